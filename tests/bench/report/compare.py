"""Say whether a figure of a new run is worse than the committed one, beyond both runs' noise. Pure.

A figure is worse if both are true:

- The 95 % intervals of the two medians do not overlap: the difference is not the noise of the
  rounds. For equal code that happens to about 3 of 1,000 figures.
- The median is worse by more than ALLOWED: the difference is not that of one run to the next, such
  as where code and data lie in memory, or the neighbours on a virtual machine.

A figure that is worse is measured once more. The verdict is of the rounds of both runs together,
and the second run's median has to be worse by more than ALLOWED again.

So a slow-down of 20 % shows where the committed interval is narrow enough (`would_show`). Ratios
and differences were measured beside a limit or a peer in the same run and are compared on any
machine; values are compared only with a run on the same machine, both without load. Times and rates
without a peer are not compared: on a shared machine, put to route took 2.7 ms in one quiet run and
4.5 ms in the next, while its ratio to a peer stayed the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from tests.bench.statistic import FEWEST, differences, ratios, summarize

ALLOWED = {"ratio": 0.10, "difference": 0.10, "value": 0.13}
"""How much worse a median may be, as a part of it."""
ALLOWED_OF_OTHER = 0.02
"""A small difference of two large times moves by that part of the times."""
SLOW_DOWN = 1.2
_SAME_MEMORY = 0.05
_TIMES = ("s", "ms", "us", "ns")
_MACHINE = ("cpu", "cores", "kernel", "python", "libraries")


class Outcome(StrEnum):
    """The result of a comparison."""

    OK = "ok"
    BETTER = "better"
    WORSE = "WORSE"
    HIDDEN = "HIDDEN"
    """The median is worse by 20 % or more, but the new run's own spread could be the reason."""
    NOISY = "too noisy"
    """The committed figure would not show a slow-down of 20 %."""
    NOT_JUDGED = "not judged"


class Key(NamedTuple):
    """The identity of a figure within its program."""

    name: str
    kind: str
    other_name: str

    def __str__(self) -> str:
        if not self.other_name:
            return self.name
        return f"{self.name}, {'over' if self.kind == 'difference' else 'of'} {self.other_name}"


@dataclass(frozen=True)
class Measured:
    """A figure as a program's JSON has it."""

    key: Key
    unit: str
    more_is_better: bool
    ours: tuple[float, ...]
    others: tuple[float, ...]

    @property
    def values(self) -> list[float]:
        """Return what the median and its interval are of."""
        if self.key.kind == "value":
            return list(self.ours)
        return (ratios if self.key.kind == "ratio" else differences)(self.ours, self.others)

    @property
    def is_bare_time(self) -> bool:
        """Whether it is a time or a rate without a peer in the same run."""
        is_time = self.unit in _TIMES or self.unit.endswith("/s") or self.unit.startswith("s per")
        return self.key.kind == "value" and is_time

    @property
    def allowed(self) -> float:
        """Return how much worse another run's median may be."""
        part = ALLOWED[self.key.kind] * abs(statistics.median(self.values))
        if self.key.kind == "difference":
            part += ALLOWED_OF_OTHER * abs(statistics.median(self.others))
        return part

    def slowed(self, factor: float) -> Measured:
        """Return the same with everything of Hostmesh slower."""
        by = 1 / factor if self.more_is_better else factor
        return replace(self, ours=tuple(each * by for each in self.ours))

    def pooled(self, other: Measured) -> Measured:
        """Return the rounds of both."""
        return replace(self, ours=self.ours + other.ours, others=self.others + other.others)


@dataclass(frozen=True)
class Comparison:
    """A figure of a new run beside the committed one.

    Attributes:
        worse_by: Of the median, as a part of it: 0.2 is 20 % worse.
        beyond: The median is worse by more than ALLOWED.
        why: Of a figure that is not judged.
    """

    key: Key
    outcome: Outcome
    worse_by: float = 0.0
    beyond: bool = False
    why: str = ""

    def line(self) -> str:
        """Return the comparison for a terminal."""
        if self.why:
            return f"{self.key}: {self.outcome}: {self.why}"
        way = "worse" if self.worse_by > 0 else "better"
        return f"{self.key}: {self.outcome}: its median is {abs(self.worse_by):.0%} {way}"


def measured(document: Mapping[str, Any]) -> dict[Key, Measured]:
    """Return the figures of a program's JSON."""
    found = {}
    for each in document["figures"]:
        key = Key(each["name"], each["kind"], each["other_name"])
        others = each["others"]["values"] if each["others"] else ()
        found[key] = Measured(
            key, each["unit"], each["more_is_better"], tuple(each["ours"]["values"]), tuple(others)
        )
    return found


def other_machine(committed: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the facts of the machine that differ, so that absolute values mean nothing."""
    one, two = committed["machine"], new["machine"]
    found = [each for each in _MACHINE if one.get(each) != two.get(each)]
    if abs(one["memory_mib"] - two["memory_mib"]) > _SAME_MEMORY * one["memory_mib"]:
        found.append("memory_mib")
    return found


def incomparable(committed: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return why absolute values of the two runs are not compared; "" if they are."""
    if differing := other_machine(committed, new):
        return f"other machine ({', '.join(differing)})"
    if committed["under_load"] or new["under_load"]:
        return f"the {'committed' if committed['under_load'] else 'new'} run was under load"
    return ""


def would_show(figure: Measured) -> bool:
    """Whether a run like this one, but slower by 20 %, would be worse."""
    return compare(figure, figure.slowed(SLOW_DOWN), check_noise=False).outcome is Outcome.WORSE


def compare(
    committed: Measured, new: Measured, *, why_not: str = "", check_noise: bool = True
) -> Comparison:
    """Compare one figure.

    Args:
        why_not: Why absolute values are not compared.
        check_noise: Say so where the committed figure is too noisy to show anything.
    """
    if committed.key.kind == "value" and why_not:
        return Comparison(committed.key, Outcome.NOT_JUDGED, why=why_not)
    if committed.is_bare_time:
        why = "a time without a peer, which this machine's own speed changes"
        return Comparison(committed.key, Outcome.NOT_JUDGED, why=why)
    few = min(len(committed.ours), len(new.ours))
    if few < FEWEST:
        why = f"{few} rounds, at least {FEWEST} are needed"
        return Comparison(committed.key, Outcome.NOT_JUDGED, why=why)
    old, now = summarize(committed.values), summarize(new.values)
    # With the sign changed, a rate is a figure of which less is better.
    sign = -1.0 if committed.more_is_better else 1.0
    worse = sign * (now.median - old.median)
    apart = now.low > old.high or now.high < old.low
    beyond = worse > committed.allowed
    by = worse / abs(old.median) if old.median else 0.0
    if apart and beyond:
        outcome = Outcome.WORSE
    elif check_noise and not would_show(committed):
        outcome = Outcome.NOISY
    elif beyond and by >= SLOW_DOWN - 1:
        outcome = Outcome.HIDDEN
    else:
        outcome = Outcome.BETTER if apart and -worse > committed.allowed else Outcome.OK
    return Comparison(committed.key, outcome, by, beyond)


def settle(
    committed: Measured, first: Measured, second: Measured, *, why_not: str = ""
) -> Comparison:
    """Return the verdict on a figure that was measured once more."""
    again = compare(committed, second, why_not=why_not)
    return compare(committed, first.pooled(second), why_not=why_not) if again.beyond else again


def compare_all(
    committed: Mapping[str, Any], first: Mapping[str, Any], second: Mapping[str, Any] | None = None
) -> dict[Key, Comparison]:
    """Compare each committed figure that the new run has, or both new runs."""
    runs = [first] if second is None else [first, second]
    why_not = next(filter(None, (incomparable(committed, each) for each in runs)), "")
    old = measured(committed)
    one, two = measured(first), measured(second or first)
    there = [key for key in old if key in one and key in two]
    if second is None:
        return {key: compare(old[key], one[key], why_not=why_not) for key in there}
    return {key: settle(old[key], one[key], two[key], why_not=why_not) for key in there}
