"""The tables and plots of docs/figures.md are made from the committed JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.programs import PROGRAMS, Program
from tests.bench.report import page, plots
from tests.bench.report.check import committed_of

pytestmark = pytest.mark.unit

DOCS = Path(__file__).parents[2] / "docs"
PUBLISHED = [each for each in PROGRAMS if committed_of(each) is not None]
ADVICE = "run `.venv/bin/python -m tests.bench --redraw`"


@pytest.mark.parametrize("program", PUBLISHED, ids=lambda each: each.name)
def test_a_block_of_the_page_is_of_its_json(program: Program) -> None:
    document = committed_of(program)
    assert document is not None
    commands = plots.script(document)
    wanted = page.block(program, document, plot=bool(commands))
    assert page.block_of((DOCS / "figures.md").read_text(), program.name) == wanted, ADVICE
    picture = DOCS / page.picture_of(program.name)
    assert picture.exists() == bool(commands), ADVICE
    if commands:
        assert plots.digest(commands) in picture.read_text(), ADVICE


def test_every_published_file_and_plot_is_of_a_program() -> None:
    names = {each.name for each in PUBLISHED}
    assert {each.stem for each in (DOCS / "figures").glob("*.json")} == names, ADVICE
    drawn = {each.stem for each in (DOCS / "pictures").glob("figures-*.svg")}
    assert drawn <= {f"figures-{name}" for name in names}, ADVICE
