"""Back-off of what fails, damping of fights; the clock is a number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.errors import KernelError
from agent.reconcile.interfaces import Change, Operation, OperationKind, Reason, Result
from agent.reconcile.pacing import Pacer
from tests.property.reconcile.things import FOREIGN, KIND, Thing

pytestmark = pytest.mark.unit

A = Thing("a", "one")
B = Thing("b", "one")

Operations = tuple[Operation[Thing], ...]


def plan(*things: Thing, reason: Reason = Reason.MODIFIED) -> Operations:
    return tuple(Operation(OperationKind.REPLACE, thing, reason) for thing in things)


def succeed(pacer: Pacer[Thing], what: Operations, now_s: float) -> int:
    """Carry out what is allowed; how much that was."""
    allowed, _ = pacer.allow(what, now_s)
    pacer.done([Result(each) for each in allowed], now_s)
    return len(allowed)


def fail(pacer: Pacer[Thing], what: Operations, now_s: float) -> int:
    allowed, _ = pacer.allow(what, now_s)
    pacer.done([Result(e, KernelError("refused")) for e in allowed], now_s)
    return len(allowed)


def test_promise_10_a_failing_route_backs_off_alone() -> None:
    pacer = Pacer(KIND)
    tries = sum(fail(pacer, plan(A), now_s) for now_s in range(600))
    assert 10 <= tries <= 20
    assert succeed(pacer, plan(A, B), 600) in (1, 2)
    assert [each.name for each in pacer.conditions()] == ["thing-refused"] or not pacer.conditions()


def test_promise_10_common_failures_are_retried_together_and_summarised() -> None:
    """All routes of a large mesh while the uplink is down."""
    jitter = iter([0.8, 1.2, 0.9, 1.1] * 2000)
    pacer = Pacer(KIND, jitter=lambda: next(jitter))
    many = plan(*(replace(A, place=str(n)) for n in range(1000)))
    tries, now_s = 0, 0.0
    while now_s < 300:
        assert fail(pacer, many, now_s) == 1000
        due_s = pacer.allow(many, now_s)[1]
        assert due_s is not None
        now_s, tries = due_s, tries + 1
    assert tries <= 12
    assert len(pacer.conditions()) == 21


def test_the_next_due_time_is_returned() -> None:
    pacer = Pacer(KIND, jitter=lambda: 1.2)
    fail(pacer, plan(A), 100)
    allowed, next_s = pacer.allow(plan(A, B), 100.5)
    assert [each.object for each in allowed] == [B]
    assert next_s == pytest.approx(101.2)
    assert pacer.allow(plan(A), 101.3)[1] is None


def test_success_ends_the_back_off() -> None:
    pacer = Pacer(KIND)
    fail(pacer, plan(A), 0)
    assert pacer.conditions()
    succeed(pacer, plan(A), 2)
    assert pacer.conditions() == ()
    assert succeed(pacer, plan(A), 2) == 1


def test_drift_now_and_then_is_repaired_at_once_for_ever() -> None:
    pacer = Pacer(KIND)
    assert all(succeed(pacer, plan(A), now_s) == 1 for now_s in range(0, 600, 5))
    assert pacer.conditions() == ()


def test_promise_10_a_fight_is_damped_and_named() -> None:
    pacer = Pacer(KIND)
    repairs = 0
    for tick in range(6000):  # ten minutes, ten times a second
        now_s = tick / 10
        done = succeed(pacer, plan(A), now_s)
        repairs += done
        if done:
            pacer.observed(Change(object=replace(A, writer=FOREIGN), replaced=True))
    assert repairs < 40
    (condition,) = pacer.conditions()
    assert condition.name == "thing-fight"
    assert "writer 186" in condition.cause


def test_a_fight_over_one_route_delays_no_other() -> None:
    pacer = Pacer(KIND)
    for tick in range(20):
        succeed(pacer, plan(A), tick / 10)
    assert succeed(pacer, plan(A, B), 2.1) == 1


def test_a_fight_that_ended_is_forgotten() -> None:
    pacer = Pacer(KIND)
    for tick in range(20):
        succeed(pacer, plan(A), tick / 10)
    assert pacer.conditions()
    pacer.allow((), 200)
    assert pacer.conditions() == ()
    assert succeed(pacer, plan(A), 201) == 1


def test_new_gateways_of_a_peer_are_no_fight() -> None:
    pacer = Pacer(KIND)
    for tick in range(50):
        thing = replace(A, target=str(tick))
        assert succeed(pacer, plan(thing), tick / 10) == 1


def test_a_changed_uplink_ends_the_waiting_and_not_the_growth_of_the_pauses() -> None:
    pacer = Pacer(KIND)
    for now_s in range(70):
        fail(pacer, plan(A), now_s)
    assert fail(pacer, plan(A), 70) == 0
    pacer.retry_now()
    assert fail(pacer, plan(A), 70) == 1
    assert pacer.allow(plan(A), 71)[1] == pytest.approx(70 + 60)


def test_promise_10_repeated_additions_of_a_route_are_damped_too() -> None:
    pacer = Pacer(KIND)
    extra = (Operation(OperationKind.DELETE, A, Reason.EXTRA),)
    removals = 0
    for tick in range(6000):  # ten minutes, ten times a second
        pacer.observed(Change(object=A))
        removals += succeed(pacer, extra, tick / 10)
        pacer.conditions(wanted=[])
    assert removals < 40
    (condition,) = pacer.conditions(wanted=[])
    assert condition.name == "thing-fight"
    assert "Hostmesh's own" in condition.cause
    assert "removed" in condition.cause


def test_a_lease_that_comes_and_goes_is_no_fight() -> None:
    pacer = Pacer(KIND)
    gone = (Operation(OperationKind.DELETE, A, Reason.EXTRA),)
    for tick in range(50):
        assert succeed(pacer, plan(A, reason=Reason.MISSING), tick / 10) == 1
        assert succeed(pacer, gone, tick / 10) == 1


def test_promise_10_a_rival_of_another_metric_that_comes_and_goes_is_a_fight_and_named() -> None:
    """Ours is put back at a pace; it gives way at once all the same."""
    pacer = Pacer(KIND)
    rival = replace(A, target="two", writer=FOREIGN, metric=9)
    gives_way = (Operation(OperationKind.DELETE, A, Reason.CONFLICT, rival),)
    back = there = 1
    for step in range(100):
        assert not there or succeed(pacer, gives_way, step * 0.1) == 1
        there = succeed(pacer, plan(A, reason=Reason.MISSING), step * 0.1)
        back += there
    assert back <= 10
    (fight,) = pacer.conditions()
    assert "writer 186" in fight.cause


def test_a_fight_over_an_object_delays_no_removal_of_another() -> None:
    pacer = Pacer(KIND)
    for tick in range(20):
        succeed(pacer, plan(A), tick / 10)
    gone = (Operation(OperationKind.DELETE, A, Reason.EXTRA),)
    assert succeed(pacer, gone, 2.1) == 1


def test_promise_9_a_refusal_has_the_kernels_message_and_a_hint() -> None:
    pacer = Pacer(KIND)
    error = KernelError("not permitted", hint="the agent needs root")
    (operation,) = plan(A)
    pacer.done([Result(operation, error)], 0)
    (condition,) = pacer.conditions()
    assert condition.cause == "not permitted"
    assert condition.hint.startswith("the agent needs root; ")


def test_link_flaps_are_no_fight() -> None:
    pacer = Pacer(KIND)
    for tick in range(50):
        pacer.forget_repairs()
        assert succeed(pacer, plan(A), tick / 10) == 1


def test_a_writer_with_the_agents_protocol_or_an_unknown_one_is_named_so() -> None:
    for change, words in (
        (Change(object=A, replaced=True), "Hostmesh's own"),
        (Change(object=A, gone=True), "an unknown program"),
    ):
        pacer = Pacer(KIND)
        for tick in range(20):
            succeed(pacer, plan(A), tick / 10)
            pacer.observed(change)
        assert words in pacer.conditions()[0].cause


def test_promise_10_a_writer_is_forgotten_with_the_repair() -> None:
    pacer = Pacer(KIND)
    succeed(pacer, plan(A, B, reason=Reason.MISSING), 0)
    for thing in (A, B):
        pacer.observed(Change(object=replace(thing, writer=FOREIGN)))
    for tick in range(20):
        succeed(pacer, plan(A), tick / 10)
    assert len(pacer._writers) == 2
    pacer.allow(plan(A), 13)
    assert list(pacer._writers) == [A.key], "the fight is remembered"
    assert "writer 186" in pacer.conditions()[0].cause
    pacer.allow(plan(A), 200)
    pacer.allow(plan(A), 202)
    assert pacer._writers == {}


def test_an_object_that_is_no_longer_wanted_has_no_condition() -> None:
    pacer = Pacer(KIND)
    fail(pacer, plan(A), 0)
    assert pacer.conditions(wanted=[]) == ()
