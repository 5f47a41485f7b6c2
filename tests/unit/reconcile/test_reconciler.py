"""One pass over several kinds: the order, what failed, what is listed again, what is drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from agent.errors import KernelError
from agent.reconcile.interfaces import NONE_KNOWN, Change, Listing, Operation, Reason, Result
from agent.reconcile.reconciler import Permission, Reconciler, Report, reconcile
from agent.reconcile.tracker import compare
from tests.property.reconcile.things import FOREIGN, KIND, Kernel, Thing

pytestmark = pytest.mark.unit

ALL = Permission(may_delete=True)


class Table(Kernel):
    """A kernel that notes its calls in a log shared with others."""

    def __init__(self, name: str, log: list[str], found: Sequence[Thing] = ()) -> None:
        super().__init__(found)
        self.name, self.log, self.broken = name, log, False

    def list_all(self, known: Mapping[Any, Thing] = NONE_KNOWN) -> Listing[Thing]:
        self.log.append(f"{self.name} list")
        if self.broken:
            raise KernelError("the list was interrupted")
        return super().list_all(known)

    def apply(
        self, operations: Sequence[Operation[Thing]], *, for_s: float | None = None
    ) -> tuple[Result[Thing], ...]:
        self.log += [f"{self.name} {each.kind} {each.object.place}" for each in operations]
        return super().apply(operations, for_s=for_s)


def reconciler(table: Table, *, opens: bool = False) -> Reconciler[Thing]:
    return Reconciler(replace(KIND, opens=opens), table, clock=lambda: 0.0)


def one(found: Sequence[Thing] = ()) -> tuple[Table, Reconciler[Thing], list[str]]:
    log: list[str] = []
    table = Table("thing", log, found)
    return table, reconciler(table), log


def want(target: Reconciler[Thing], *things: Thing) -> None:
    target.want({thing.key: thing for thing in things})


def run(target: Reconciler[Thing], permission: Permission = ALL) -> Report[Thing]:
    return reconcile([target], permission)[0]


def test_what_closes_comes_first_and_what_opens_last_and_deletion_is_in_reverse() -> None:
    log: list[str] = []
    old = [Thing("old", "one")]
    links, routes, members = (Table(name, log, old) for name in ("link", "route", "member"))
    kinds = [reconciler(links), reconciler(routes), reconciler(members, opens=True)]
    for each in kinds:
        want(each, Thing("new", "one"))
    reconcile(kinds, ALL)
    assert [line for line in log if not line.endswith("list")] == [
        "member delete old",
        "link replace new",
        "route replace new",
        "member replace new",
        "route delete old",
        "link delete old",
    ]


def test_promise_4_a_kind_that_cannot_be_listed_is_left_alone_and_others_go_on() -> None:
    log: list[str] = []
    links, routes = Table("link", log, [Thing("old", "one")]), Table("route", log)
    links.broken = True
    kinds = [reconciler(links), reconciler(routes)]
    for each in kinds:
        want(each, Thing("new", "one"))
    failed, fine = reconcile(kinds, ALL)
    assert failed.error is not None
    assert failed.installed is None
    assert links.things == [Thing("old", "one")]
    assert fine.complete
    links.broken = False
    assert run(kinds[0]).complete


def test_a_list_is_made_once_and_again_only_when_something_calls_for_it() -> None:
    table, things, log = one()
    want(things, Thing("a", "one"))
    run(things)
    run(things)
    assert log == ["thing list", "thing replace a"]
    things.links_changed(["eth7"])
    run(things)
    assert log[2:] == []
    things.links_changed(["eth0"])
    run(things)
    assert log[2:] == ["thing list"]
    table.things.clear()
    things.observe([Change(object=Thing("a", "one"), gone=True)])
    report = run(things)
    assert log[3:] == ["thing replace a"]
    assert [each.object.place for each in report.repaired] == ["a"]


def test_promise_3_objects_of_an_earlier_run_wait_for_the_grace_time() -> None:
    old, known = Thing("old", "one"), Thing("known", "one")
    table, things, _ = one([old, known])
    want(things, known)
    hold = Permission(may_delete=True, may_sweep=False)
    run(things, hold)
    things.want({known.key: None}, known_gone=True)
    run(things, hold)
    assert table.things == [old], "what was known and went does not wait"
    run(things)
    assert table.things == []


def test_what_came_from_an_incomplete_view_waits_too() -> None:
    known = Thing("known", "one")
    table, things, _ = one([known])
    want(things, known)
    hold = Permission(may_delete=True, may_sweep=False)
    run(things, hold)
    things.want({known.key: None}, known_gone=False)
    assert run(things, hold).differing == 1
    assert table.things == [known]


def test_promise_8_a_harmful_object_goes_without_permission() -> None:
    table, things, _ = one([Thing("bad", "one"), Thing("old", "one")])
    run(things, Permission(may_delete=False, harmful=lambda thing: thing.place == "bad"))
    assert table.things == [Thing("old", "one")]


def test_a_refused_object_is_tried_again_later_and_is_a_condition() -> None:
    table, things, _ = one()
    want(things, Thing("a", "one"))
    table.refusing = 0
    report = run(things)
    assert report.failed == 1
    assert report.installed == 0
    assert [each.name for each in report.conditions] == ["thing-refused"]
    held = run(things)
    assert held.failed == 0
    assert held.again_in_s is not None
    things.retry_now()
    assert run(things).complete


def test_a_change_of_desired_that_takes_several_tries_is_no_drift() -> None:
    table, things, _ = one()
    run(things)
    want(things, Thing("a", "one"))
    table.refusing = 0
    assert run(things).repaired == ()
    things.retry_now()
    assert run(things).repaired == ()
    table.things.clear()
    things.look_again()
    assert len(run(things).repaired) == 1


def test_what_an_earlier_run_left_is_no_drift() -> None:
    _, things, _ = one([Thing("old", "one"), Thing("a", "two")])
    want(things, Thing("a", "one"))
    assert run(things).repaired == ()


def test_promise_5_a_conflict_is_reported_and_giving_way_is_no_repair() -> None:
    ours = Thing("a", "one")
    table, things, _ = one([ours])
    want(things, ours)
    run(things)
    foreign = Thing("a", "two", FOREIGN, metric=9)
    table.things.append(foreign)
    things.observe([Change(object=foreign)])
    report = run(things)
    assert table.things == [foreign]
    assert report.repaired == ()
    assert [each.name for each in report.conditions] == ["thing-conflict"]
    assert "writer 186" in report.conditions[0].cause


def test_after_a_deletion_beside_another_object_a_list_is_called_for() -> None:
    ours = Thing("a", "one")
    _, things, log = one([ours, replace(ours, target="two")])
    want(things, ours)
    assert run(things).again_in_s == 0.0
    run(things)
    assert log == ["thing list", "thing delete a", "thing list"]


def test_a_kind_is_listed_again_after_the_link_it_is_on_was_made() -> None:
    """With a link the kernel deletes all that is on it: one pass restores both."""
    log: list[str] = []
    links, routes = Table("link", log), Table("route", log)
    link = Reconciler(replace(KIND, makes=lambda thing: thing.link), links, clock=lambda: 0.0)
    route = reconciler(routes)
    for each in (link, route):
        want(each, Thing("a", "one"))
    reconcile((link, route), ALL)
    links.things[:] = [Thing("a", "altered")]
    link.look_again()
    routes.things.clear()
    reconcile((link, route), ALL)
    assert links.things == routes.things == [Thing("a", "one")]


def test_one_that_went_and_replaced_takes_all_under_its_key_with_it() -> None:
    """A deleted neighbour is announced without its MAC: only its key tells which one it was."""
    here = Thing("a", "one")
    tracker = compare(KIND, {here.key: here}, Listing((here,)))
    tracker.observed(Change(object=replace(here, target=""), gone=True, replaced=True))
    (missing,) = tracker.plan(may_delete=True).replacements
    assert (missing.object, missing.reason) == (here, Reason.MISSING)
    assert not tracker.needs_list


def test_a_host_that_leaves_and_joins_again_and_again_is_in_no_fight() -> None:
    table, things, _ = one()
    for _round in range(10):
        want(things, Thing("a", "one"))
        assert run(things).conditions == ()
        assert table.things == [Thing("a", "one")]
        things.forget()
        table.things.clear()  # as leaving does
