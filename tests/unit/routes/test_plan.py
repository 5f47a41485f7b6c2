"""Plans: one case a line; the properties are in tests/property/routes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.mesh.object_kinds import route_kind
from agent.model import CONDITIONS_SHOWN, Route
from agent.reconcile.interfaces import Listing, OperationKind, Reason
from agent.reconcile.plan import Plan
from agent.reconcile.tracker import compare

pytestmark = pytest.mark.unit

A = Route(
    destination=IPv4Network("10.65.0.0/16"),
    gateway=IPv4Address("192.0.2.11"),
    link="eth0",
    protocol=140,
)
B = replace(A, destination=IPv4Network("10.66.0.0/16"))
FOREIGN = replace(A, gateway=IPv4Address("192.0.2.77"), protocol=186)


KIND = route_kind(140)


def planned(
    desired: list[Route], ours: list[Route], foreign: list[Route], *, may_delete: bool = True
) -> Plan[Route]:
    wanted = {route.key: route for route in desired}
    listing = Listing(tuple(ours), tuple(foreign))
    return compare(KIND, wanted, listing).plan(may_delete=may_delete)


def words(plan: Plan[Route]) -> list[tuple[str, str, str]]:
    return [(o.kind, str(o.object.destination), o.reason) for o in plan.operations]


def test_nothing_to_do_when_nothing_differs() -> None:
    assert planned([A, B], [B, A], []) == Plan()


def test_missing_modified_extra() -> None:
    bent = replace(B, gateway=IPv4Address("192.0.2.99"))
    extra = replace(A, destination=IPv4Network("10.67.0.0/16"))
    plan = planned([A, B], [bent, extra], [])
    assert words(plan) == [
        ("replace", "10.65.0.0/16", "missing"),
        ("replace", "10.66.0.0/16", "modified"),
        ("delete", "10.67.0.0/16", "extra"),
    ]
    assert plan.operations[1].actual == bent


def test_promise_6_replace_before_delete_and_the_specific_before_the_general() -> None:
    extras = [replace(A, destination=IPv4Network(n)) for n in ("10.0.0.0/8", "10.9.1.0/24")]
    plan = planned([B], extras, [])
    assert [o.kind for o in plan.operations] == [
        OperationKind.REPLACE,
        OperationKind.DELETE,
        OperationKind.DELETE,
    ]
    assert str(plan.operations[1].object.destination) == "10.9.1.0/24"


def test_promise_4_extra_routes_are_held_until_deletion_is_allowed() -> None:
    plan = planned([], [A], [], may_delete=False)
    assert plan.operations == ()
    assert plan.held == (A,)


def test_promise_5_foreign_route_is_reported_not_stolen() -> None:
    plan = planned([A], [], [FOREIGN])
    assert plan.operations == ()
    (condition,) = plan.conditions(KIND)
    assert condition.name == "route-conflict"
    assert "bgp (186)" in condition.cause


def test_promise_5_foreign_route_of_another_metric_is_a_conflict_too() -> None:
    plan = planned([A], [], [replace(FOREIGN, metric=100)])
    assert plan.operations == ()
    assert len(plan.conflicts) == 1


@pytest.mark.parametrize("ours", [A, replace(A, gateway=IPv4Address("192.0.2.99"))])
@pytest.mark.parametrize("metric", [0, 100])
@pytest.mark.parametrize("may_delete", [True, False])
def test_promise_5_an_own_route_gives_way_to_a_foreign_one_of_any_metric(
    ours: Route, metric: int, *, may_delete: bool
) -> None:
    """Never by a replacement: at the same metric it could hit the foreign route."""
    foreign = replace(FOREIGN, metric=metric)
    plan = planned([A], [ours], [foreign], may_delete=may_delete)
    assert words(plan) == [("delete", "10.65.0.0/16", "conflict")]
    assert plan.operations[0].object == ours
    assert plan.operations[0].actual == foreign
    assert len(plan.conflicts) == 1


def test_promise_5_a_held_route_gives_way_too() -> None:
    """Nothing says yet that its lease is gone; the operator's route says more."""
    plan = planned([], [A], [replace(FOREIGN, metric=100)], may_delete=False)
    assert words(plan) == [("delete", "10.65.0.0/16", "conflict")]
    assert plan.held == ()


@pytest.mark.parametrize(
    "beside",
    [
        replace(FOREIGN, destination=IPv4Network("10.0.0.0/8")),
        replace(FOREIGN, destination=IPv4Network("10.65.1.0/24"), metric=100),
        replace(FOREIGN, tos=16),
    ],
    ids=["wider", "narrower", "tos"],
)
def test_a_foreign_route_that_neither_shadows_nor_is_shadowed_is_no_conflict(
    beside: Route,
) -> None:
    assert planned([A], [A], [beside]) == Plan()
    assert words(planned([A], [], [beside])) == [("replace", "10.65.0.0/16", "missing")]


def test_promise_5_foreign_route_in_another_table_is_no_conflict() -> None:
    assert words(planned([A], [], [replace(FOREIGN, table=100)])) == [
        ("replace", "10.65.0.0/16", "missing")
    ]


def test_of_two_under_one_key_the_wrong_one_goes() -> None:
    bent = replace(A, gateway=IPv4Address("192.0.2.99"))
    plan = planned([A], [bent, A], [])
    assert words(plan) == [("delete", "10.65.0.0/16", "extra")]
    assert plan.operations[0].object == bent


def test_extra_of_our_own_in_another_table_goes() -> None:
    assert words(planned([A], [A, replace(A, table=77)], [])) == [
        ("delete", "10.65.0.0/16", Reason.EXTRA)
    ]


def test_promise_10_a_table_full_of_conflicts_is_summarised() -> None:
    wanted = [replace(A, destination=IPv4Network(f"10.65.{n}.0/24")) for n in range(200)]
    plan = planned(wanted, [], [replace(each, protocol=186, metric=7) for each in wanted])
    assert len(plan.conflicts) == 200
    assert len(plan.conditions(KIND)) == CONDITIONS_SHOWN + 1
    assert plan.conditions(KIND)[-1].subject == "others"
    assert plan.conditions(KIND)[-1].cause.startswith("180 more")
    assert {each.name for each in plan.conditions(KIND)} == {"route-conflict"}


def test_promise_5_the_hint_removes_the_rival_and_not_what_stands_beside_it() -> None:
    rival = replace(FOREIGN, metric=7, table=100)
    (condition,) = planned([replace(A, table=100)], [], [rival]).conditions(KIND)
    assert "ip route del 10.65.0.0/16 proto 186 metric 7 table 100" in condition.hint
