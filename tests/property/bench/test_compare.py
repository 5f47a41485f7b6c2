"""bench-check: a rerun of equal code stays green, a slow-down of 20 % turns it red."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.report.compare import (
    ALLOWED,
    SLOW_DOWN,
    Key,
    Measured,
    Outcome,
    compare,
    settle,
    would_show,
)
from tests.bench.statistic import FEWEST

pytestmark = pytest.mark.property

KINDS = tuple(ALLOWED)
_TIMES = st.floats(1e-3, 1e3)
_FIGURES = 60
_DRIFT = {"ratio": 0.02, "value": 0.03}
"""Standard deviation of a whole run, beside the noise of its rounds."""


@st.composite
def figures(draw: st.DrawFn, narrow: float = 100.0) -> Measured:
    rounds = draw(st.integers(FEWEST, 40))
    middle, other = draw(_TIMES), draw(_TIMES)
    spread = st.floats(1, narrow)
    kind = draw(st.sampled_from(KINDS))
    ours = tuple(middle * draw(spread) for _ in range(rounds))
    others = () if kind == "value" else (other,) * rounds
    return Measured(Key("a", kind, "b" if others else ""), "MB", draw(st.booleans()), ours, others)


@given(figures())
def test_a_run_is_not_worse_than_itself(figure: Measured) -> None:
    assert compare(figure, figure).outcome in {Outcome.OK, Outcome.NOISY}


@given(figures(narrow=1.03))
def test_a_narrow_ratio_or_value_that_is_slower_by_a_fifth_is_worse(figure: Measured) -> None:
    if figure.key.kind == "difference":
        return
    assert would_show(figure)
    assert compare(figure, figure.slowed(SLOW_DOWN)).outcome is Outcome.WORSE
    faster = compare(figure, figure.slowed(1 / 1.25)).outcome
    assert faster is Outcome.BETTER


@given(figures(), st.floats(1.0, 100.0))
def test_more_slow_down_is_never_a_better_outcome(figure: Measured, factor: float) -> None:
    if compare(figure, figure.slowed(1.3)).outcome is Outcome.WORSE:
        assert compare(figure, figure.slowed(1.3 * factor)).outcome is Outcome.WORSE


@given(figures(), st.floats(1.0, 1.09))
def test_less_than_the_allowance_is_never_worse(figure: Measured, factor: float) -> None:
    if figure.key.kind != "difference":
        assert compare(figure, figure.slowed(factor)).outcome is not Outcome.WORSE


@given(figures(), figures())
def test_a_rate_is_judged_as_the_time_that_it_is_the_inverse_of(
    one: Measured, two: Measured
) -> None:
    """Only the allowance is a part of the median, so compare what lies far beyond it."""
    if one.key.kind != "value" or two.key.kind != "value":
        return
    time = replace(one, more_is_better=False), replace(two, more_is_better=False, key=one.key)
    rate = [
        replace(each, more_is_better=True, ours=tuple(1 / value for value in each.ours))
        for each in time
    ]
    slower = compare(*time)
    if slower.outcome is Outcome.WORSE and slower.worse_by > 0.5:
        assert compare(rate[0], rate[1]).outcome is Outcome.WORSE


def run_of(source: random.Random, rounds: int, noise: float, kind: str, by: float) -> Measured:
    """A run of a program: its own drift, and in each round noise with a tail."""
    drift = source.lognormvariate(0, _DRIFT[kind])

    def one() -> float:
        tail = 1 + source.random() if source.random() < 0.05 else 1.0
        return by * drift * source.lognormvariate(0, noise) * tail

    ours = tuple(one() for _ in range(rounds))
    others = () if kind == "value" else (1.0,) * rounds
    return Measured(Key("a", kind, "" if kind == "value" else "b"), "MB", False, ours, others)


def verdict(source: random.Random, rounds: int, noise: float, kind: str, by: float) -> Outcome:
    """A figure's outcome as bench-check has it: measured once more if it is worse."""
    committed = run_of(source, max(rounds, 12), noise, kind, 1.0)
    if not would_show(committed):
        return Outcome.NOISY
    first = run_of(source, rounds, noise, kind, by)
    found = compare(committed, first)
    if found.outcome in {Outcome.WORSE, Outcome.HIDDEN}:
        found = settle(committed, first, run_of(source, rounds, noise, kind, by))
    return found.outcome


MIX = [
    (rounds, noise, kind)
    for rounds in (6, 12, 40)
    for noise in (0.01, 0.04, 0.08)
    for kind in ("ratio", "value")
]


def test_sixty_figures_of_equal_code_are_green() -> None:
    source = random.Random("equal")  # noqa: S311 - repeatable
    found = [verdict(source, *MIX[number % len(MIX)], 1.0) for number in range(6000)]
    assert found.count(Outcome.WORSE) / len(found) * _FIGURES < 0.05
    assert found.count(Outcome.HIDDEN) / len(found) * _FIGURES < 0.1


@pytest.mark.parametrize(("kind", "at_least"), [("ratio", 0.95), ("value", 0.8)])
def test_a_slow_down_of_a_fifth_turns_figures_red(kind: str, at_least: float) -> None:
    source = random.Random(kind)  # noqa: S311 - repeatable
    mixed = [each for each in MIX if each[1] <= 0.04 and each[2] == kind]
    found = [verdict(source, *mixed[number % len(mixed)], SLOW_DOWN) for number in range(900)]
    judged = [each for each in found if each is not Outcome.NOISY]
    assert len(judged) > len(found) / 2
    assert judged.count(Outcome.WORSE) / len(judged) > at_least
