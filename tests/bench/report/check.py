"""`make bench-check`: measure, compare with the committed JSON, measure what is worse once more.

Of sixty figures of equal code one would be worse by chance in one of six runs. So a program with a
figure that is worse runs again, and the verdict is of both runs (`compare.settle`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.harness import ROOT
from tests.bench.programs import Program
from tests.bench.report.compare import Comparison, Key, Outcome, compare_all, measured, would_show
from tests.bench.runner import Document, read

COMMITTED = ROOT / "docs/figures"
WORSE = 1
NOT_COMPARED = 2
_AGAIN = {Outcome.WORSE, Outcome.HIDDEN}
_SHOWN = {*_AGAIN, Outcome.BETTER, Outcome.NOT_JUDGED}
Measure = Callable[[Program], Document | None]
"""Run a program; None if it measured nothing."""


def committed_of(program: Program, folder: Path = COMMITTED) -> Document | None:
    """Return the committed JSON of a program, if there is one."""
    path = folder / f"{program.name}.json"
    return read(path) if path.exists() else None


def check(
    programs: Sequence[Program],
    measure: Measure,
    folder: Path = COMMITTED,
    say: Callable[[str], None] = print,
) -> int:
    """Compare each program, say what is worse, and return the exit status.

    Returns:
        0 if no figure is worse, 1 if one is, 2 if a program or figure could not be compared.
    """
    status = 0
    lines: list[str] = []
    for program in programs:
        committed = committed_of(program, folder)
        if committed is None:
            lines.append(f"{program.name}: nothing is committed to compare it with")
            continue
        found, its_lines = _one(program, committed, measure, say)
        lines += its_lines
        status = WORSE if WORSE in (status, found) else max(status, found)
    for line in ("", "== compared with docs/figures", *lines):
        say(line)
    return status


def _one(
    program: Program, committed: Document, measure: Measure, say: Callable[[str], None]
) -> tuple[int, list[str]]:
    first = measure(program)
    if first is None:
        return NOT_COMPARED, [f"{program.name}: MEASURED NOTHING"]
    found = compare_all(committed, first)
    again = [key for key, each in found.items() if each.outcome in _AGAIN]
    if again:
        say(f"{program.name}: measured once more for {'; '.join(map(str, again))}")
        second = measure(program)
        if second is None:
            return NOT_COMPARED, [f"{program.name}: MEASURED NOTHING the second time"]
        settled = compare_all(committed, first, second)
        found |= {key: settled[key] for key in again if key in settled}
    lost = _lost(committed, first)
    return _status(found, lost), _lines(program, committed, first, found, lost)


def _lost(committed: Document, new: Document) -> list[Key]:
    """Return the figures that the new run should have; a quick one has fewer than a full one."""
    if new.get("quick") and not committed.get("quick"):
        return []
    return [each for each in measured(committed) if each not in measured(new)]


def _status(found: dict[Key, Comparison], lost: Sequence[Key]) -> int:
    outcomes = {each.outcome for each in found.values()}
    if Outcome.WORSE in outcomes:
        return WORSE
    return NOT_COMPARED if Outcome.HIDDEN in outcomes or lost else 0


def _lines(
    program: Program,
    committed: Document,
    new: Document,
    found: dict[Key, Comparison],
    lost: Sequence[Key],
) -> list[str]:
    there = measured(committed)
    sharp = sum(would_show(there[key]) for key in found)
    compared = f"{len(found)} of {len(there)} figures compared with {committed['commit'][:10]}"
    lines = [f"{program.name}: {compared}; {sharp} of them would show a slow-down of 20 %"]
    lines += [f"  {each.line()}" for each in found.values() if each.outcome in _SHOWN]
    lines += [f"  {each}: MISSING" for each in lost]
    fresh = [each for each in measured(new) if each not in found]
    return [*lines, *(f"  {each}: new, not committed" for each in fresh)]
