"""The common form of bench programs: arguments, the table, and the runner's choice."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import runner
from tests.bench.harness import ROOT
from tests.bench.program import NOT_MEASURED, parse
from tests.bench.programs import PROGRAMS, Program
from tests.bench.statistic import FEWEST

pytestmark = pytest.mark.unit

SLOW = Program("slow", "tests.bench.slow", 40, 5)
QUICK = Program("quick", "tests.bench.quick", 40, 5, 8, 1)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: each.name)
def test_every_row_of_the_table_is_a_program_of_the_common_form(program: Program) -> None:
    spec = importlib.util.find_spec(program.module)
    assert spec is not None
    if spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{program.module}.__main__")
    assert spec is not None
    assert spec.origin is not None
    assert FORM in Path(spec.origin).read_text()


FORM = "from tests.bench.program import "


def test_names_and_modules_are_there_once_and_rounds_suffice_for_figures() -> None:
    assert len({each.name for each in PROGRAMS}) == len({each.module for each in PROGRAMS})
    assert len(PROGRAMS) == len({each.name for each in PROGRAMS})
    for each in PROGRAMS:
        assert each.rounds >= FEWEST
        assert each.quick_rounds == 0 or each.quick_rounds >= FEWEST
        assert (each.quick_rounds == 0) == (each.quick_minutes == 0)


def test_quick_programs_take_about_ten_minutes() -> None:
    assert sum(each.quick_minutes for each in PROGRAMS) <= 12


def test_rounds_come_from_the_table_unless_they_are_given() -> None:
    assert parse(QUICK, []).rounds == 40
    assert parse(QUICK, ["--quick"]).rounds == 8
    assert parse(SLOW, ["--quick"]).rounds == 40
    assert parse(QUICK, ["--quick", "--rounds", "2"]).rounds == 2
    added = parse(QUICK, ["--x", "1"], add=lambda parser: parser.add_argument("--x"))
    assert added.x == "1"


@pytest.mark.parametrize("argv", [["--rounds", "0"], ["--roundz"], ["--rounds", "many"]])
def test_a_wrong_argument_is_no_refused_figure(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(QUICK, argv)
    assert ended.value.code == NOT_MEASURED


def test_a_program_that_is_not_in_the_table_measures_nothing(tmp_path: Path) -> None:
    (tmp_path / "lost.py").write_text("from tests.bench.program import main\nmain(print)\n")
    done = subprocess.run(
        [sys.executable, "-m", "lost"],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == NOT_MEASURED
    assert "lost is not in tests/bench/programs.py" in done.stderr


def test_the_runner_takes_the_quick_the_named_or_all() -> None:
    quick = [each for each in PROGRAMS if each.quick_rounds]
    assert runner.choose([], full=False) == quick
    assert runner.choose([], full=True) == list(PROGRAMS)
    assert [each.name for each in runner.choose(["boot"], full=False)] == ["boot"]
    with pytest.raises(ValueError, match="no program nil"):
        runner.choose(["nil"], full=False)


def test_the_runner_takes_no_result_of_an_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "FOLDER", tmp_path)
    monkeypatch.setattr(runner, "commit", lambda: {"commit": "c" * 40})
    old = tmp_path / "quick-cccccccccc.quick.json"
    old.write_text(json.dumps({"figures": []}))
    assert runner.run(QUICK, full=False).document is None  # there is no such module
    assert not old.exists()


ENDED = """
import signal, time
from tests.bench.program import unwind_when_ended
unwind_when_ended()
try:
    print("ready", flush=True)
    if {alarm}:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
    time.sleep(60)
finally:
    print("removed what it made")
"""


@pytest.mark.parametrize(("alarm", "why"), [(True, "deadline has passed"), (False, "was ended")])
def test_a_program_that_is_ended_removes_what_it_made(alarm: bool, why: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDED.format(alarm=alarm)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if not alarm:
        process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == NOT_MEASURED
    assert out == "removed what it made\n"
    assert why in err
