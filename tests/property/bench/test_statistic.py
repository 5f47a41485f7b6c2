"""A few measurements may claim this much: exact for any distribution."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.statistic import (
    CONFIDENCE,
    FEWEST,
    WIDEST,
    Goal,
    Verdict,
    differences,
    ends_of_interval,
    judge,
    ratios,
    summarize,
)

pytestmark = pytest.mark.property

_TIMES = st.floats(1e-6, 1e6)
_ENOUGH = st.lists(_TIMES, min_size=FEWEST, max_size=60)
_NEAR = st.lists(st.floats(0.8, 1.25), min_size=FEWEST, max_size=20)
_GOALS = st.builds(Goal, _TIMES, st.booleans())


def _missed(rounds: int, outside: int) -> float:
    """How often an interval lacks the median: counted over all ways that values fall."""
    falls = itertools.product((False, True), repeat=rounds)
    missed = sum(not outside < sum(each) < rounds - outside for each in falls)
    return float(missed / 2**rounds)


@pytest.mark.parametrize("rounds", range(1, 13))
def test_the_interval_is_the_narrowest_that_holds_the_median_often_enough(rounds: int) -> None:
    outside = ends_of_interval(rounds)
    assert (outside is None) == (rounds < FEWEST)
    if outside is not None:
        assert _missed(rounds, outside) <= 1 - CONFIDENCE
        assert _missed(rounds, outside + 1) > 1 - CONFIDENCE


@given(st.lists(_TIMES, min_size=1, max_size=60))
def test_the_interval_holds_the_median_and_lies_between_the_extremes(values: list[float]) -> None:
    found = summarize(values)
    assert found.low <= found.median <= found.high
    assert found.rounds == len(values)
    if len(values) < FEWEST:
        assert (found.low, found.high) == (-math.inf, math.inf)
    else:
        assert found.least <= found.low
        assert found.high <= found.most


@given(_ENOUGH, st.integers(-8, 8))
def test_another_unit_changes_no_ratio_and_scales_every_value(
    values: list[float], power: int
) -> None:
    factor = 2.0**power
    scaled = [each * factor for each in values]
    assert summarize(scaled).low == summarize(values).low * factor
    assert summarize(scaled).median == summarize(values).median * factor
    assert ratios(scaled, values) == [factor] * len(values)
    assert set(differences(values, values)) == {0.0}


@given(_ENOUGH, _GOALS)
def test_what_is_published_lies_wholly_on_one_side_of_its_goal(
    values: list[float], goal: Goal
) -> None:
    found = summarize(values)
    verdict = judge(found, goal, is_ratio=True).verdict
    inside = found.high <= goal.value if goal.at_most else found.low >= goal.value
    outside = found.low > goal.value if goal.at_most else found.high < goal.value
    assert verdict is (Verdict.OK if inside else Verdict.MISSED if outside else Verdict.REFUSED)


@given(_NEAR, st.integers(-8, 8), st.floats(0.01, 0.4))
def test_equals_are_published_only_if_the_whole_interval_is_that_near(
    factors: list[float], power: int, within: float
) -> None:
    value = 2.0**power
    found = summarize([each * value for each in factors])
    verdict = judge(found, Goal(value, equal_within=within), is_ratio=True).verdict
    far = [max(each / value, value / each) > 1 + within for each in (found.low, found.high)]
    same_side = (found.low > value) == (found.high > value)
    if not any(far):
        assert verdict is Verdict.OK
    else:
        assert verdict is (Verdict.MISSED if all(far) and same_side else Verdict.REFUSED)


@given(_NEAR, st.floats(0.01, 0.4))
def test_equality_is_the_same_from_both_sides(values: list[float], within: float) -> None:
    """The slower beside the faster gets the same verdict as the faster beside the slower."""
    goal, ones = Goal(1, equal_within=within), [1.0] * len(values)
    one, other = summarize(ratios(values, ones)), summarize(ratios(ones, values))
    near_a_bound = any(
        abs(end / bound - 1) < 1e-9 for end in (one.low, one.high) for bound in goal.range
    )
    if not near_a_bound:
        verdicts = [judge(each, goal, is_ratio=True).verdict for each in (one, other)]
        assert verdicts[0] is verdicts[1]


@given(_ENOUGH)
def test_a_ratio_without_a_goal_is_published_only_if_it_differs_from_one(
    values: list[float],
) -> None:
    found = summarize(values)
    verdict = judge(found, None, is_ratio=True).verdict
    narrow = found.high <= WIDEST * found.low
    assert (verdict is Verdict.OK) == (narrow and not found.low <= 1 <= found.high)


@given(st.lists(_TIMES, min_size=1, max_size=FEWEST - 1), _GOALS)
def test_a_few_rounds_carry_nothing(values: list[float], goal: Goal) -> None:
    assert judge(summarize(values), goal, is_ratio=True).verdict is Verdict.REFUSED
