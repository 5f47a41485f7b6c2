"""One form of result for every figure: ours and the other in turn, median, interval, JSON.

    bench = Bench("routes")
    bench.compare("apply of 1000 routes", ours, "ip -batch", other, rounds=9, goal=Goal(3))
    sys.exit(bench.finish())

`finish` writes build/bench/NAME-COMMIT.json and returns 1 if a goal was missed, 2 if a figure was
refused (see statistic.py for the rule), else 0. A refused figure is printed without its number.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from tests.bench.statistic import (
    Goal,
    Judgement,
    Summary,
    Verdict,
    differences,
    judge,
    ratios,
    summarize,
)

ROOT = Path(__file__).parents[2]
QUIET = 0.5
"""Processes that want a core before a quiet run begins, at most."""
VERSION = 2
"""Of the JSON; 1 had neither `quick` nor the direction of a figure."""
_LIBRARIES = ("etcd3", "grpcio", "pyroute2", "python-iptables", "docker")
_ALL_THREADS = 2  # CPUCLOCK_SCHED of a whole process, linux/posix-timers.h
_LOOK_S = 2.0
_GLANCE_S = 0.2
Run = Callable[[], float]
T = TypeVar("T")


def busy_s() -> float:
    """Return the processor time that all processes of the machine have had, in seconds."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def processor_s(pid: int) -> float:
    """Return the processor time of all threads of a process, ended ones included, in seconds."""
    return time.clock_gettime((~pid << 3) | _ALL_THREADS)


def resident_mb(pid: int | str = "self", field: str = "VmRSS") -> float:
    """Return the resident memory of a process, or its peak with ``VmHWM``."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(each for each in status.splitlines() if each.startswith(field))
    return int(line.split()[1]) / 1024


def wait_quiet(at_most_s: float) -> float:
    """Wait until the machine has next to nothing to do; return how many cores are busy.

    The load average knows what was done a minute ago, such as by the bench's own preparation.
    """
    until_s = time.monotonic() + at_most_s
    while True:
        began_s, before_s = time.monotonic(), busy_s()
        time.sleep(_LOOK_S if at_most_s else _GLANCE_S)
        busy = (busy_s() - before_s) / (time.monotonic() - began_s)
        if busy <= QUIET or time.monotonic() > until_s:
            return busy


def timed(work: Callable[[], object]) -> Run:
    """Make of something to be done a run that returns the seconds it took."""

    def run() -> float:
        began_s = time.perf_counter()
        work()
        return time.perf_counter() - began_s

    return run


def interleave(runs: Sequence[Callable[[], T]], rounds: int, warm_up: int = 1) -> list[list[T]]:
    """Measure each in turn, every other round in the reverse order; warm-up rounds do not count."""
    values: list[list[T]] = [[] for _ in runs]
    for number in range(-warm_up, rounds):
        order = range(len(runs)) if number % 2 else reversed(range(len(runs)))
        for each in order:
            value = runs[each]()
            if number >= 0:
                values[each].append(value)
    return values


@dataclass(frozen=True)
class Figure:
    """One figure: what was measured in each round, and what it says."""

    name: str
    unit: str
    kind: str
    ours: tuple[float, ...]
    other_name: str
    others: tuple[float, ...]
    goal: Goal | None
    result: Summary
    judgement: Judgement
    more_is_better: bool = False

    def document(self) -> dict[str, Any]:
        """As JSON: each round is there, so that anyone can judge it again."""
        found = {name: _finite(value) for name, value in asdict(self).items()}
        for name, values in (("ours", self.ours), ("others", self.others)):
            found[name] = (
                _finite(asdict(summarize(values)) | {"values": values}) if values else None
            )
        return found

    def line(self) -> str:
        """For a terminal. A refused figure shows why instead of its number."""
        if self.judgement.verdict is Verdict.REFUSED:
            return f"{self.name}: REFUSED: {self.judgement.why}"
        unit = "x" if self.kind == "ratio" else f" {self.unit}"
        said = f"{self.result.median:.3g}{unit} [{self.result.low:.3g} to {self.result.high:.3g}]"
        if self.others:
            ours, other = summarize(self.ours).median, summarize(self.others).median
            said += f" of {self.other_name} ({ours:.4g} and {other:.4g} {self.unit})"
        if self.goal is not None:
            said += f", goal {self.goal}: {self.judgement.verdict}"
        return f"{self.name}: {said}"


class Bench:
    """Collects the figures of one program.

    Args:
        name: Of the program; part of the file's name.
        folder: Where the JSON goes.
        say: Where lines go.
        quiet_within_s: How long to wait for other processes to end.
        quick: It measures with fewer rounds, or less.
    """

    def __init__(
        self,
        name: str,
        folder: Path = ROOT / "build/bench",
        say: Callable[[str], None] = print,
        quiet_within_s: float = 0.0,
        *,
        quick: bool = False,
    ) -> None:
        self._name = name
        self._folder = folder
        self._say = say
        self._quiet_within_s = quiet_within_s
        self._quick = quick
        self._began_s = time.monotonic()
        self._machine = machine()
        self._figures: list[Figure] = []
        self._facts: dict[str, object] = {}
        self.settle()

    def settle(self) -> None:
        """Wait for a quiet machine: call it again after a preparation that takes a while."""
        self._machine["load_before"] = wait_quiet(self._quiet_within_s)
        if self._machine["load_before"] > QUIET:
            self._say(f"UNDER LOAD: {self._machine['load_before']:.1f} cores are busy")

    def compare(
        self,
        name: str,
        ours: Run,
        other_name: str,
        other: Run,
        *,
        rounds: int,
        warm_up: int = 1,
        unit: str = "s",
        goal: Goal | None = None,
        more_is_better: bool | None = None,
    ) -> Figure:
        """Run both in turn and keep the ratio."""
        mine, its = interleave((ours, other), rounds, warm_up)
        return self.ratio(
            name, mine, other_name, its, unit=unit, goal=goal, more_is_better=more_is_better
        )

    def ratio(
        self,
        name: str,
        ours: Sequence[float],
        other_name: str,
        others: Sequence[float],
        *,
        unit: str = "s",
        goal: Goal | None = None,
        more_is_better: bool | None = None,
    ) -> Figure:
        """Keep the ratio of what was measured in turn, round by round.

        Args:
            more_is_better: By default it is where the goal is a lower bound, or the unit a rate.
        """
        result = summarize(ratios(ours, others))
        return self._keep(
            Figure(name, unit, "ratio", tuple(ours), other_name, tuple(others), goal, result,
                   judge(result, goal, is_ratio=True), _more(more_is_better, goal, unit))
        )  # fmt: skip

    def difference(
        self,
        name: str,
        ours: Sequence[float],
        other_name: str,
        others: Sequence[float],
        *,
        unit: str = "s",
        goal: Goal | None = None,
    ) -> Figure:
        """Keep how much more ours took than the other, round by round."""
        result = summarize(differences(ours, others))
        return self._keep(
            Figure(name, unit, "difference", tuple(ours), other_name, tuple(others), goal, result,
                   judge(result, goal, is_ratio=False, is_scale=False), _more(None, goal, unit))
        )  # fmt: skip

    def value(
        self,
        name: str,
        values: Sequence[float],
        *,
        unit: str = "s",
        goal: Goal | None = None,
        more_is_better: bool | None = None,
    ) -> Figure:
        """Keep a figure that is compared to nothing but its goal."""
        result = summarize(values)
        return self._keep(
            Figure(name, unit, "value", tuple(values), "", (), goal, result,
                   judge(result, goal, is_ratio=False), _more(more_is_better, goal, unit))
        )  # fmt: skip

    def fact(self, name: str, value: object) -> None:
        """Keep a value that is counted or read, not measured: a version, a number of rules."""
        self._facts[name] = value
        self._say(f"{name}: {value}")

    def finish(self) -> int:
        """Write the JSON; return the exit status."""
        self._folder.mkdir(parents=True, exist_ok=True)
        made = {
            "version": VERSION,
            "bench": self._name,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            **(code := commit()),
            "quick": self._quick,
            "took_s": round(time.monotonic() - self._began_s),
            "machine": {**self._machine, "load_after": os.getloadavg()[0]},
            "under_load": self._machine["load_before"] > QUIET,
            "facts": self._facts,
            "figures": [each.document() for each in self._figures],
        }
        path = self._folder / file_name(self._name, code["commit"], quick=self._quick)
        path.write_text(json.dumps(made, indent=1, default=str) + "\n")
        self._say(f"written to {path}")
        found = {each.judgement.verdict for each in self._figures}
        return 1 if Verdict.MISSED in found else 2 if Verdict.REFUSED in found else 0

    def _keep(self, figure: Figure) -> Figure:
        self._figures.append(figure)
        load = " (UNDER LOAD)" if self._machine["load_before"] > QUIET else ""
        self._say(figure.line() + load)
        return figure


def machine() -> dict[str, Any]:
    """Return the facts that a figure depends on, beside the code."""
    cpu = ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(("model name", "Model")):
            cpu = line.partition(":")[2].strip()
            break
    memory = Path("/proc/meminfo").read_text(encoding="ascii").split("\n", 1)[0].split()
    return {
        "cpu": cpu or platform.machine(),
        "cores": os.cpu_count(),
        "memory_mib": int(memory[1]) // 1024,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
        "iptables": _said("iptables", "--version"),
        "iproute2": _said("ip", "-Version"),
    }


def commit() -> dict[str, Any]:
    """Which code was measured, and whether files differ from it."""
    git = ("git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT))
    return {
        "commit": _said(*git, "rev-parse", "HEAD"),
        "changed_files": len(_said(*git, "status", "--porcelain").splitlines()),
    }


def file_name(program: str, code: str, *, quick: bool) -> str:
    """Return the name of a program's JSON: a quick run does not replace a full one."""
    return f"{program}-{code[:10] or 'unknown'}{'.quick' if quick else ''}.json"


def _more(given: bool | None, goal: Goal | None, unit: str) -> bool:
    if given is not None:
        return given
    has_side = goal is not None and goal.equal_within is None
    return not goal.at_most if goal and has_side else unit.endswith("/s")


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except OSError as error:
        print(f"{command[0]} cannot be asked: {error}", file=sys.stderr)
        return ""
    return done.stdout.strip()


def _finite(found: Any) -> Any:  # noqa: ANN401 - JSON
    """JSON has no infinity: an interval without bounds has null."""
    if isinstance(found, dict):
        return {key: _finite(each) for key, each in found.items()}
    if isinstance(found, list | tuple):
        return [_finite(each) for each in found]
    return None if found in (float("inf"), float("-inf")) else found
