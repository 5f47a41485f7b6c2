"""Median and interval of a few measurements, and whether they carry a claim. Pure.

No distribution is assumed: times have a long tail. The interval is that of the sign test, from one
order statistic to another (W. J. Conover, Practical Nonparametric Statistics, 3.2): the true median
lies outside with at most 5 %, whatever the distribution. Fewer than six values have none.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

CONFIDENCE = 0.95
FEWEST = 6
"""Of five values even the smallest and the largest miss the median with 6 %."""
WIDEST = 1.5
"""An interval whose ends differ by more than this factor says nothing that should be printed."""


class Verdict(StrEnum):
    """The verdict of the measurements on the claim."""

    OK = "ok"
    MISSED = "MISSED"
    REFUSED = "REFUSED"


@dataclass(frozen=True)
class Summary:
    """A median, the interval that holds the true one, and the extremes."""

    median: float
    low: float
    high: float
    least: float
    most: float
    rounds: int


@dataclass(frozen=True)
class Goal:
    """The goal of a figure: at most or at least ``value``, or equal to it.

    Attributes:
        equal_within: How far an equal may be off, as a part of ``value``: 0.05 allows ratios to 1
            from 1 / 1.05 to 1.05. None for a goal with one side.
    """

    value: float
    at_most: bool = True
    equal_within: float | None = None

    @property
    def range(self) -> tuple[float, float]:
        """Return the least and the greatest value that meets the goal."""
        if self.equal_within is not None:
            factor = 1 + self.equal_within
            return self.value / factor, self.value * factor
        return (-math.inf, self.value) if self.at_most else (self.value, math.inf)

    def __str__(self) -> str:
        """Return the goal as a line of the bench has it."""
        if self.equal_within is not None:
            return f"{self.value:g} within {self.equal_within:.0%}"
        return f"at {'most' if self.at_most else 'least'} {self.value:g}"


@dataclass(frozen=True)
class Judgement:
    """The verdict, and why a figure is refused."""

    verdict: Verdict
    why: str = ""


def ends_of_interval(rounds: int) -> int | None:
    """How many values lie outside of the interval on either side; None if there is no interval."""
    outside, below = None, 0.0
    for number in range(rounds // 2):
        below += math.comb(rounds, number) / 2**rounds
        if 2 * below > 1 - CONFIDENCE:
            break
        outside = number
    return outside


def summarize(values: Sequence[float]) -> Summary:
    """Return median and interval; with too few values the interval is without bounds."""
    ordered = sorted(values)
    outside = ends_of_interval(len(ordered))
    low, high = (-math.inf, math.inf) if outside is None else (ordered[outside], ordered[~outside])
    return Summary(statistics.median(ordered), low, high, ordered[0], ordered[-1], len(ordered))


def ratios(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """Ours by the other's, round by round: what slows a whole round down cancels out."""
    return [a / b for a, b in zip(ours, others, strict=True)]


def differences(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """Ours less the other's, round by round."""
    return [a - b for a, b in zip(ours, others, strict=True)]


def judge(
    summary: Summary, goal: Goal | None, *, is_ratio: bool, is_scale: bool = True
) -> Judgement:
    """Say whether the figure may be published, and whether it meets its goal.

    Refused is a figure of fewer than six rounds, and one whose interval holds the very value that
    it claims to be above or below: a bound of its goal, or for a ratio without a goal 1. Without a
    goal the number itself is the claim: an interval wider than a factor of 1.5 is refused, too.

    Args:
        is_ratio: It compares two; without a goal it claims that they differ.
        is_scale: Its values are positive, so that a factor between them means something.
    """
    if summary.rounds < FEWEST:
        return Judgement(Verdict.REFUSED, f"{summary.rounds} rounds, at least {FEWEST} are needed")
    if goal is not None:
        return _against(summary, goal)
    if is_scale and summary.high > WIDEST * summary.low:
        return Judgement(
            Verdict.REFUSED,
            f"its interval spans a factor of {summary.high / summary.low:.2f}, more than {WIDEST}"
            if summary.low > 0
            else "its interval reaches 0",
        )
    if is_ratio and summary.low <= 1.0 <= summary.high:
        return Judgement(Verdict.REFUSED, "its interval holds 1, which it is compared to")
    return Judgement(Verdict.OK)


def _against(summary: Summary, goal: Goal) -> Judgement:
    """Judge by the whole interval; one with a part on either side of a bound decides nothing."""
    least, most = goal.range
    if least <= summary.low and summary.high <= most:
        return Judgement(Verdict.OK)
    if summary.high < least or summary.low > most:
        return Judgement(Verdict.MISSED)
    bound = least if summary.low < least else most
    return Judgement(
        Verdict.REFUSED, f"its interval holds {bound:.4g}, a bound of its goal ({goal})"
    )
