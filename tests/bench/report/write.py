"""`python -m tests.bench --write`: publish what was measured last in docs/figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.harness import ROOT, VERSION
from tests.bench.programs import PROGRAMS, Program
from tests.bench.report import page, plots
from tests.bench.report.check import committed_of
from tests.bench.runner import FOLDER, Document, read
from tests.bench.statistic import Verdict


@dataclass(frozen=True)
class Places:
    """Where results are and where they go."""

    measured: Path = FOLDER
    docs: Path = ROOT / "docs"

    @property
    def committed(self) -> Path:
        """Return the folder of the JSON that the page is made of."""
        return self.docs / "figures"

    @property
    def page(self) -> Path:
        """Return the page."""
        return self.docs / "figures.md"


def newest(program: Program, folder: Path) -> Document | None:
    """Return the result that was measured last; of one commit a full one before a quick one."""
    found = [read(each) for each in folder.glob(f"{program.name}-*.json")]
    found = [each for each in found if (each["bench"], each["version"]) == (program.name, VERSION)]
    if not found:
        return None
    last = max(found, key=lambda each: str(each["at"]))
    same = [each for each in found if each["commit"] == last["commit"]]
    return max(same, key=lambda each: (not each["quick"], str(each["at"])))


def publish(programs: Sequence[Program], places: Places | None = None) -> list[str]:
    """Put the newest results into docs/figures, draw the page anew, and say what was published."""
    where = places or Places()
    lines = []
    for program in programs:
        result = newest(program, where.measured)
        if result is None:
            lines.append(f"{program.name}: not measured, docs/figures keeps what it has")
            continue
        if all(each["judgement"]["verdict"] == Verdict.REFUSED for each in result["figures"]):
            lines.append(f"{program.name}: every figure is refused, docs/figures keeps what it has")
            continue
        where.committed.mkdir(exist_ok=True)
        (where.committed / f"{program.name}.json").write_text(as_text(result))
        load = ", UNDER LOAD" if result["under_load"] else ""
        lines.append(f"{program.name}: {'quick' if result['quick'] else 'full'}{load}")
    redraw(where)
    return lines


def redraw(where: Places) -> None:
    """Make the page's blocks and plots from the committed JSON."""
    blocks = {}
    for program in PROGRAMS:
        document = committed_of(program, where.committed)
        if document is None:
            continue
        commands = plots.script(document)
        picture = where.docs / page.picture_of(program.name)
        if commands:
            plots.draw(commands, picture)
        else:
            picture.unlink(missing_ok=True)
        blocks[program.name] = page.block(program, document, plot=bool(commands))
    where.page.write_text(page.with_blocks(where.page.read_text(), blocks))


def as_text(document: Document) -> str:
    """Return JSON with a line for each figure, and six digits of each number."""
    rounded: Document = _rounded(document)
    figures = ",\n".join(f"  {json.dumps(each)}" for each in rounded.pop("figures"))
    return f'{json.dumps(rounded, indent=1)[:-2]},\n "figures": [\n{figures}\n ]\n}}\n'


def _rounded(found: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(found, dict):
        return {key: _rounded(each) for key, each in found.items()}
    if isinstance(found, list):
        return [_rounded(each) for each in found]
    return float(f"{found:.6g}") if isinstance(found, float) else found
