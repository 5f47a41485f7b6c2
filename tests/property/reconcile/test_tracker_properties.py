"""The incremental comparison equals the full one, whatever happens in whatever order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.reconcile.interfaces import Change, OperationKind, Reason
from agent.reconcile.plan import Plan
from agent.reconcile.tracker import DeltaTracker, compare
from tests.property.reconcile.things import (
    FOREIGN,
    KIND,
    OWN,
    Kernel,
    Thing,
    ThingKey,
    contested,
    foreign_of,
    places,
    taken,
    targets,
    things,
)

pytestmark = pytest.mark.property


def content(plan: Plan[Thing]) -> tuple[set[object], set[object], set[object]]:
    return set(plan.operations), set(plan.conflicts), set(plan.held)


class Machine(RuleBasedStateMachine):
    """Desire and a kernel change; the tracker hears of both and agrees with a full comparison."""

    @initialize()
    def begin(self) -> None:
        self.kernel = Kernel()
        self.tracker = DeltaTracker(KIND)
        self.wanted: dict[ThingKey, Thing] = {}

    @rule(changes=st.dictionaries(places, st.none() | targets, max_size=3))
    def desire_changes(self, changes: dict[str, str | None]) -> None:
        found = {
            ThingKey(place, 0): None if target is None else Thing(place, target)
            for place, target in changes.items()
        }
        for key, thing in found.items():
            if thing is None:
                self.wanted.pop(key, None)
            else:
                self.wanted[key] = thing
        self.tracker.want(found)

    @rule(thing=things)
    def another_program_replaces(self, thing: Thing) -> None:
        if thing not in self.kernel.things:
            replaced = self.kernel.replace(thing)
            self.tracker.observed(Change(object=thing, replaced=replaced))

    @rule(thing=things)
    def another_program_appends(self, thing: Thing) -> None:
        if thing not in self.kernel.things:
            self.kernel.things.append(thing)
            self.tracker.observed(Change(object=thing))

    @rule(thing=things)
    def another_program_prepends(self, thing: Thing) -> None:
        if thing not in self.kernel.things:
            self.kernel.things.insert(0, thing)
            self.tracker.observed(Change(object=thing))

    @precondition(lambda self: self.kernel.things)
    @rule(data=st.data())
    def another_program_deletes(self, data: st.DataObject) -> None:
        thing = data.draw(st.sampled_from(self.kernel.things))
        self.kernel.things.remove(thing)
        self.tracker.observed(Change(object=thing, gone=True))

    @precondition(lambda self: any(each.writer == OWN for each in self.kernel.things))
    @rule(data=st.data(), metric=st.sampled_from([0, 9, 100]))
    def a_foreign_one_comes_where_ours_is(self, data: st.DataObject, metric: int) -> None:
        own = [each for each in self.kernel.things if each.writer == OWN]
        thing = replace(foreign_of(data.draw(st.sampled_from(own))), metric=metric)
        if thing not in self.kernel.things:
            self.kernel.things.append(thing)
            self.tracker.observed(Change(object=thing))

    @precondition(lambda self: any(each.writer == FOREIGN for each in self.kernel.things))
    @rule(data=st.data())
    def a_foreign_one_goes(self, data: st.DataObject) -> None:
        found = [each for each in self.kernel.things if each.writer == FOREIGN]
        thing = data.draw(st.sampled_from(found))
        self.kernel.things.remove(thing)
        self.tracker.observed(Change(object=thing, gone=True))

    @rule(thing=things, gone=st.booleans())
    def changes_are_missed_and_listed_later(self, thing: Thing, *, gone: bool) -> None:
        if gone:
            self.kernel.things = [e for e in self.kernel.things if e.place != thing.place]
        if thing not in self.kernel.things:
            self.kernel.things.append(thing)
        self.lists()

    @rule()
    def lists(self) -> None:
        self.tracker.listed(self.kernel.list_all())

    @rule(may_delete=st.booleans(), cut=st.integers(0, 8), refusing=st.none() | st.integers(0, 8))
    def repairs(self, *, may_delete: bool, cut: int, refusing: int | None) -> None:
        if self.tracker.needs_list:
            self.lists()
        plan = self.tracker.plan(may_delete=may_delete)
        self.kernel.refusing = refusing
        self.tracker.applied(self.kernel.apply(plan.operations[:cut]))
        self.kernel.refusing = None

    @rule(may_delete=st.booleans())
    def repairs_all(self, *, may_delete: bool) -> None:
        """Then each place is the agent's or another program's, and nothing is left to do."""
        self.repairs(may_delete=may_delete, cut=1000, refusing=None)
        if self.tracker.needs_list:
            self.lists()
        places_taken = taken(self.kernel)
        for thing in self.kernel.things:
            assert thing.writer != OWN or thing.place not in places_taken, "promise 5"
        for thing in self.wanted.values():
            assert (thing in self.kernel.things) == (thing.place not in places_taken)
        assert self.tracker.plan(may_delete=may_delete).operations == ()

    @invariant()
    def desired_is_what_was_asked_for(self) -> None:
        assert dict(self.tracker.desired) == self.wanted

    @invariant()
    def links_are_those_of_all_objects(self) -> None:
        foreign = [e for e in self.kernel.things if e.writer == FOREIGN]
        if not self.tracker.needs_list:
            assert self.tracker.depends_on("eth0") == bool(self.wanted or foreign)

    @invariant()
    def plan_is_what_a_full_comparison_plans(self) -> None:
        if self.tracker.needs_list:
            return
        listing = self.kernel.list_all()
        missing = [each for each in self.wanted.values() if each not in listing.own]
        assert self.tracker.missing_count == len(missing)
        keys = {each.key for each in listing.own} | self.wanted.keys()
        differing = [
            key
            for key in keys
            if [e for e in listing.own if e.key == key] != [e for e in [self.wanted.get(key)] if e]
        ]
        assert self.tracker.differing_count == len(differing)
        for may_delete in (True, False):
            found = self.tracker.plan(may_delete=may_delete)
            full = compare(KIND, self.wanted, listing).plan(may_delete=may_delete)
            assert content(found) == content(full)
            places_taken = taken(self.kernel)
            for each in found.operations:
                in_the_way = contested(each.object).place in places_taken
                assert (each.reason is Reason.CONFLICT) == in_the_way
                allowed = may_delete or in_the_way or each.kind is OperationKind.REPLACE
                assert allowed, "promise 4"


TestTracker = Machine.TestCase
TestTracker.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestTracker.pytestmark = [pytest.mark.property]  # type: ignore[attr-defined]


def test_promise_4_before_the_first_list_nothing_is_planned() -> None:
    tracker = DeltaTracker(KIND)
    tracker.want({ThingKey("a", 0): Thing("a", "one")})
    assert tracker.needs_list
    assert tracker.plan(may_delete=True) == Plan()
