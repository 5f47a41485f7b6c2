"""How often repairs are tried while another program undoes them."""

import pytest

from agent.reconcile.damping import Damper, Limits

pytestmark = pytest.mark.unit

LIMITS = Limits(burst=20, window_s=30.0, first_pause_s=5.0, longest_pause_s=5.0, over_s=25.0)


def test_a_burst_of_repairs_goes_through_then_one_in_five_seconds_until_it_is_quiet() -> None:
    damper = Damper(LIMITS)
    for second in range(20):
        assert damper.allows(second)
        damper.repaired(second)
    assert damper.is_fight(20)
    assert not damper.allows(20)
    assert not damper.allows(23.9)
    assert damper.allows(24)
    damper.repaired(24)
    assert not damper.allows(25)
    assert damper.total == 21
    assert not damper.is_fight(55)


def test_promise_10_a_fight_of_minutes_is_one_condition_and_one_repair_in_five_seconds() -> None:
    """Another program undoes every repair at once: no new burst after half a minute."""
    damper = Damper(LIMITS)
    contested = []
    for tick in range(3_000):
        now_s = tick / 10
        if damper.allows(now_s):
            damper.repaired(now_s)
        contested.append(damper.is_fight(now_s))
    assert damper.total <= 20 + 300 / 5
    assert contested.index(True) < 25
    assert all(contested[contested.index(True) :])
    assert not damper.is_fight(300 + 31)


def test_seldom_repairs_are_never_held_back() -> None:
    damper = Damper(LIMITS)
    for repair in range(50):
        assert damper.allows(repair * 2.0)
        damper.repaired(repair * 2.0)


def test_pauses_of_a_fight_grow_to_the_longest() -> None:
    damper = Damper(
        Limits(burst=3, window_s=10.0, first_pause_s=1.0, longest_pause_s=4.0, over_s=60.0)
    )
    now_s, pauses = 0.0, []
    for _ in range(6):
        damper.repaired(now_s)
        pauses.append(damper.pause_s)
        now_s = max(now_s, damper.due_s)
    assert pauses == [0, 0, 1, 2, 4, 4]
