"""Promises 4 to 6 for any desired and any actual state, on a model of the kernel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.reconcile.interfaces import OperationKind
from agent.reconcile.plan import Plan
from agent.reconcile.tracker import compare
from tests.property.reconcile.things import (
    FOREIGN,
    KIND,
    OWN,
    Kernel,
    Thing,
    ThingKey,
    contested,
    desired_sets,
    kernels,
    taken,
    targets,
)

pytestmark = pytest.mark.property

Desired = dict[ThingKey, Thing]


def planned(desired: Desired, kernel: Kernel, *, may_delete: bool = True) -> Plan[Thing]:
    return compare(KIND, desired, kernel.list_all()).plan(may_delete=may_delete)


@given(desired_sets, kernels)
def test_promise_6_one_plan_is_enough_and_a_second_is_empty(
    desired: Desired, found: list[Thing]
) -> None:
    kernel = Kernel(found)
    before = [thing for thing in found if thing.writer != OWN]
    plan = planned(desired, kernel)
    kernel.apply(plan.operations)
    assert [thing for thing in kernel.things if thing.writer != OWN] == before, "promise 5"
    assert {c.wanted.place for c in plan.conflicts} == {k.place for k in desired} & taken(kernel)
    for key, wanted in desired.items():
        expected = [] if key.place in taken(kernel) else [wanted]
        assert [e for e in kernel.things if e.key == key and e.writer == OWN] == expected
    for thing in kernel.things:
        assert thing.writer != OWN or desired.get(thing.key) == thing
    assert planned(desired, kernel).operations == ()


@given(desired_sets, kernels)
def test_promise_4_no_deletion_before_it_is_allowed(desired: Desired, found: list[Thing]) -> None:
    kernel = Kernel(found)
    plan = planned(desired, kernel, may_delete=False)
    for each in plan.deletions:
        assert each.object.place in taken(kernel)
    before = {each.place for each in kernel.things}
    kernel.apply(plan.operations)
    assert before <= {each.place for each in kernel.things}


@given(desired_sets, kernels, st.data())
def test_promise_6_killed_between_any_two_operations_converges(
    desired: Desired, found: list[Thing], data: st.DataObject
) -> None:
    kernel, whole = Kernel(found), Kernel(found)
    operations = planned(desired, kernel).operations
    kernel.apply(operations[: data.draw(st.integers(0, len(operations)))])
    kernel.apply(planned(desired, kernel).operations)
    whole.apply(operations)
    assert set(kernel.things) == set(whole.things)


@given(desired_sets, kernels)
def test_promise_6_no_key_is_ever_without_an_object_it_keeps(
    desired: Desired, found: list[Thing]
) -> None:
    kernel = Kernel(found)
    kept = {each.key for each in kernel.things if each.writer == OWN} & desired.keys()
    kept = {key for key in kept if key.place not in taken(kernel)}
    for operation in planned(desired, kernel).operations:
        kernel.apply([operation])
        assert kept <= {each.key for each in kernel.things}


@given(desired_sets, kernels, st.builds(Thing, st.sampled_from("abc"), targets), st.booleans())
def test_promise_5_an_own_object_gives_way_to_a_foreign_one_and_comes_back(
    desired: Desired, found: list[Thing], thing: Thing, before: bool
) -> None:
    """In both orders, and whether or not anything may be deleted."""
    foreign = Thing(thing.place, thing.target, FOREIGN, metric=9)
    alone = [each for each in found if each.writer == OWN]
    kernel = Kernel([foreign, *alone] if before else alone)
    kernel.apply(planned(desired, kernel).operations)
    if not before:
        kernel.things.append(foreign)
    kernel.apply(planned(desired, kernel, may_delete=False).operations)
    assert [e for e in kernel.things if contested(e) == contested(foreign)] == [foreign]
    kernel.things.remove(foreign)
    kernel.apply(planned(desired, kernel, may_delete=False).operations)
    assert set(kernel.things) == set(desired.values())


@given(desired_sets, kernels)
def test_replacements_come_first_and_deletions_in_the_kinds_order(
    desired: Desired, found: list[Thing]
) -> None:
    plan = planned(desired, Kernel(found))
    kinds = [each.kind for each in plan.operations]
    assert kinds == sorted(kinds, key=lambda kind: kind is OperationKind.DELETE)
    orders = [KIND.order(each.object) for each in plan.deletions]
    assert orders == sorted(orders)
