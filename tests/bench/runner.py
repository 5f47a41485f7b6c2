"""Run bench programs one after the other, each as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.harness import ROOT, commit, file_name
from tests.bench.programs import PROGRAMS, Program
from tests.bench.statistic import Verdict

FOLDER = ROOT / "build/bench"
_QUIET_WITHIN_S = 60
_LOCK_S = 1500
_END_S = 60.0
Document = dict[str, Any]
"""A program's JSON."""


@dataclass(frozen=True)
class Ran:
    """One run of a program; without a document it measured nothing."""

    program: Program
    took_s: float
    document: Document | None = None

    def line(self) -> str:
        """Return the program's line of the summary."""
        said = f"{self.program.name}: {self.took_s / 60:.1f} minutes"
        if self.document is None:
            return f"{said}, MEASURED NOTHING"
        for verdict in (Verdict.MISSED, Verdict.REFUSED):
            for each in self.document["figures"]:
                if each["judgement"]["verdict"] == verdict:
                    other = f", of {each['other_name']}" if each["other_name"] else ""
                    said += f"\n  {verdict}: {each['name']}{other}"
        return said


def choose(names: Sequence[str], *, full: bool) -> list[Program]:
    """Return the named programs, or all, or the quick ones; ValueError for an unknown name."""
    known = {each.name: each for each in PROGRAMS}
    if unknown := set(names) - known.keys():
        raise ValueError(f"no program {min(unknown)}; there are {', '.join(known)}")
    if names:
        return [each for each in PROGRAMS if each.name in names]
    return [each for each in PROGRAMS if full or each.quick_rounds]


def run(program: Program, *, full: bool, rounds: int | None = None) -> Ran:
    """Run one program to its end, or to its deadline."""
    quick = not full and program.quick_rounds > 0
    command = [sys.executable, "-m", program.module, "--quiet-within", str(_QUIET_WITHIN_S)]
    command += ["--quick"] if quick else []
    command += ["--rounds", str(rounds)] if rounds else []
    path = FOLDER / file_name(program.name, commit()["commit"], quick=quick)
    path.unlink(missing_ok=True)
    minutes = program.quick_minutes if quick else program.minutes
    print(f"\n== {program.name}: about {minutes:g} minutes on a quiet machine", flush=True)
    began_s = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        process.wait(_LOCK_S + program.deadline_s(quick=quick) + _END_S)
    except subprocess.TimeoutExpired:
        print(f"{program.name} did not end by its own deadline", file=sys.stderr)
    finally:
        _end(process)
    took_s = time.monotonic() - began_s
    return Ran(program, took_s, read(path) if path.exists() else None)


def run_all(programs: Iterable[Program], *, full: bool, rounds: int | None = None) -> list[Ran]:
    """Run them in turn, and print a summary."""
    found = [run(each, full=full, rounds=rounds) for each in programs]
    print("\n== summary")
    for each in found:
        print(each.line())
    return found


def read(path: Path) -> Document:
    """Return the JSON of a program."""
    found: Document = json.loads(path.read_text())
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it with what it started: it unwinds when it is asked, and is killed otherwise."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
