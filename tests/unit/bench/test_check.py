"""bench-check names each figure that is worse, missing or hidden, and ends with its status."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.bench.harness import Bench
from tests.bench.programs import Program
from tests.bench.report.check import NOT_COMPARED, WORSE, check
from tests.bench.runner import Document

pytestmark = pytest.mark.unit

PROGRAM = Program("try", "tests.bench.try", 6, 1, 6, 1)
STEADY = [1.0, 1.01, 1.02, 1.0, 1.03, 1.01]


def document(folder: Path, ours: Sequence[float], **changes: Any) -> Document:  # noqa: ANN401 - JSON
    """The JSON of a run with a ratio and a value, as the harness writes it."""
    bench = Bench("try", folder / "made", lambda _: None)
    bench.ratio("pass", ours, "iptables-save", [1.0] * len(ours))
    bench.value("resident", ours, unit="MB")
    bench.finish()
    (path,) = (folder / "made").iterdir()
    found: Document = json.loads(path.read_text())
    path.unlink()
    return {**found, "under_load": False, **changes}


def checked(folder: Path, committed: Document | None, *runs: Document | None) -> tuple[int, str]:
    """Return status and lines of a check whose runs have these results."""
    if committed is not None:
        (folder / "try.json").write_text(json.dumps(committed))
    left: Iterator[Document | None] = iter(runs)
    said: list[str] = []
    status = check([PROGRAM], lambda _: next(left), folder, said.append)
    assert not list(left)
    return status, "\n".join(said)


def slowed(by: float) -> list[float]:
    return [each * by for each in STEADY]


def test_equal_runs_are_green_and_run_once(tmp_path: Path) -> None:
    same = document(tmp_path, STEADY)
    status, said = checked(tmp_path, same, same)
    assert status == 0
    assert "try: 2 of 2 figures compared" in said
    assert "2 of them would show a slow-down of 20 %" in said


def test_a_slow_down_of_a_fifth_is_measured_again_and_named(tmp_path: Path) -> None:
    slow = document(tmp_path, slowed(1.2))
    status, said = checked(tmp_path, document(tmp_path, STEADY), slow, slow)
    assert status == WORSE
    assert "pass, of iptables-save: WORSE: its median is 20% worse" in said
    assert "resident: WORSE" in said


def test_a_slow_run_that_does_not_come_again_is_green(tmp_path: Path) -> None:
    good = document(tmp_path, STEADY)
    status, said = checked(tmp_path, good, document(tmp_path, slowed(1.2)), good)
    assert status == 0
    assert "measured once more for pass, of iptables-save; resident" in said


def test_a_second_run_within_the_allowance_is_green(tmp_path: Path) -> None:
    """Together the rounds of both would be worse."""
    runs = [document(tmp_path, slowed(by)) for by in (1.2, 1.07)]
    assert checked(tmp_path, document(tmp_path, STEADY), *runs)[0] == 0


def test_values_of_another_machine_are_named_and_ratios_are_compared(tmp_path: Path) -> None:
    slow = document(tmp_path, slowed(1.3))
    slow["machine"]["kernel"] = "another"
    status, said = checked(tmp_path, document(tmp_path, STEADY), slow, slow)
    assert status == WORSE
    assert "pass, of iptables-save: WORSE" in said
    assert "resident: not judged: other machine (kernel)" in said


def test_a_time_without_a_peer_is_not_judged(tmp_path: Path) -> None:
    documents = [document(tmp_path, STEADY), document(tmp_path, slowed(1.3))]
    for each in documents:
        each["figures"][-1]["unit"] = "ms"
    status, said = checked(tmp_path, documents[0], documents[1], documents[1])
    assert status == WORSE
    assert "resident: not judged: a time without a peer" in said


def test_values_of_a_run_under_load_are_not_judged(tmp_path: Path) -> None:
    again = document(tmp_path, STEADY, under_load=True)
    status, said = checked(tmp_path, document(tmp_path, STEADY), again)
    assert status == 0
    assert "resident: not judged: the new run was under load" in said


def test_a_median_far_off_that_its_spread_hides_is_not_green(tmp_path: Path) -> None:
    wide = document(tmp_path, [0.9, 1.0, 1.5, 1.6, 1.7, 1.8])
    status, said = checked(tmp_path, document(tmp_path, STEADY), wide, wide)
    assert status == NOT_COMPARED
    assert "pass, of iptables-save: HIDDEN" in said


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    full, part = document(tmp_path, STEADY), document(tmp_path, STEADY)
    lost = part["figures"].pop()
    assert lost["name"] == "resident"
    status, said = checked(tmp_path, full, part)
    assert (status, "resident: MISSING" in said) == (NOT_COMPARED, True)
    status, said = checked(tmp_path, full, {**part, "quick": True})
    assert (status, "1 of 2 figures compared" in said) == (0, True)
    status, said = checked(tmp_path, part, full)
    assert (status, "resident: new, not committed" in said) == (0, True)
    status, said = checked(tmp_path, full, None)
    assert (status, "try: MEASURED NOTHING" in said) == (NOT_COMPARED, True)


def test_a_program_without_committed_figures_is_named_and_not_run(tmp_path: Path) -> None:
    status, said = checked(tmp_path, None)
    assert status == 0
    assert "try: nothing is committed to compare it with" in said
