"""Promises 4 to 6 for any desired state and any kernel state, on a model of the kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.mesh.plan import OperationKind, OperationResult, Reason, RoutePlan, plan_routes
from agent.model import Route

pytestmark = pytest.mark.property

OURS = 140

destinations = st.sampled_from(
    [IPv4Network(each) for each in ("10.64.0.0/10", "10.65.0.0/16", "10.65.1.0/24", "10.66.0.0/16")]
)


@st.composite
def routes(draw: st.DrawFn, protocols: Iterable[int], tables: Iterable[int] = (254, 77)) -> Route:
    kind = draw(st.sampled_from(["unicast", "unreachable", "unicast+metrics"]))
    return Route(
        destination=draw(destinations),
        kind=kind,
        gateway=None
        if kind == "unreachable"
        else IPv4Address(f"192.0.2.{draw(st.integers(1, 3))}"),
        protocol=draw(st.sampled_from(list(protocols))),
        table=draw(st.sampled_from(list(tables))),
        metric=draw(st.sampled_from([0, 5])),
        tos=draw(st.sampled_from([0, 0, 0, 16])),
    )


desired_sets = st.lists(routes([OURS], [254]), unique_by=lambda route: route.key).map(
    lambda found: {route.key: replace(route, kind=route.kind.partition("+")[0]) for route in found}
)
kernels = st.lists(routes([OURS, 4, 186]), unique=True)


class Kernel:
    """net/ipv4/fib_trie.c in small: routes in order, exclusive adding, replacement of the first."""

    def __init__(self, found: list[Route]) -> None:
        self.routes = list(found)

    def split(self) -> tuple[list[Route], list[Route]]:
        ours = [route for route in self.routes if route.protocol == OURS]
        foreign = [r for r in self.routes if r.protocol != OURS and r.table == 254]
        return ours, foreign

    def apply(self, plan: RoutePlan) -> list[OperationResult]:
        for operation in plan.operations:
            key = operation.route.key
            places = [n for n, each in enumerate(self.routes) if each.key == key]
            if operation.kind is OperationKind.DELETE:
                assert operation.route.protocol == OURS
                self.routes.remove(operation.route)
            elif operation.reason is Reason.MISSING:
                assert not places, "a route to the key exists: EEXIST"
                self.routes.append(operation.route)
            else:
                assert self.routes[places[0]].protocol == OURS, "another's route was overwritten"
                self.routes[places[0]] = operation.route
        return [OperationResult(operation) for operation in plan.operations]


@given(desired_sets, kernels)
def test_promise_6_one_plan_is_enough_and_a_second_is_empty(
    desired: dict[tuple[object, ...], Route], found: list[Route]
) -> None:
    kernel = Kernel(found)
    before = [route for route in found if route.protocol != OURS]
    plan = plan_routes(desired, *kernel.split(), may_delete=True)  # type: ignore[arg-type]
    kernel.apply(plan)

    ours, foreign = kernel.split()
    assert [route for route in kernel.routes if route.protocol != OURS] == before, "promise 5"
    taken = {route.place for route in foreign}
    contested = {conflict.wanted.place for conflict in plan.conflicts}
    assert contested == {wanted.place for wanted in desired.values()} & taken
    for key, wanted in desired.items():
        expected = [] if wanted.place in taken else [wanted]
        assert [route for route in ours if route.key == key] == expected, "promise 5"
    for route in ours:
        assert desired.get(route.key) == route
    again = plan_routes(desired, ours, foreign, may_delete=True)  # type: ignore[arg-type]
    assert again.operations == ()


@given(desired_sets, kernels)
def test_promise_4_no_deletion_before_it_is_allowed(
    desired: dict[tuple[object, ...], Route], found: list[Route]
) -> None:
    kernel = Kernel(found)
    plan = plan_routes(desired, *kernel.split(), may_delete=False)  # type: ignore[arg-type]
    taken = {route.place for route in kernel.split()[1]}
    for each in plan.operations:
        assert each.kind is OperationKind.REPLACE or each.route.place in taken
    destinations_before = {(r.table, r.destination) for r in kernel.routes}
    kernel.apply(plan)
    assert destinations_before <= {(r.table, r.destination) for r in kernel.routes}


@given(desired_sets, kernels, st.data())
def test_promise_6_killed_between_any_two_operations_converges(
    desired: dict[tuple[object, ...], Route], found: list[Route], data: st.DataObject
) -> None:
    kernel = Kernel(found)
    plan = plan_routes(desired, *kernel.split(), may_delete=True)  # type: ignore[arg-type]
    cut = data.draw(st.integers(0, len(plan.operations)))
    kernel.apply(replace(plan, operations=plan.operations[:cut]))
    kernel.apply(plan_routes(desired, *kernel.split(), may_delete=True))  # type: ignore[arg-type]

    whole = Kernel(found)
    whole.apply(plan)
    assert set(kernel.routes) == set(whole.routes)


@given(desired_sets, kernels)
def test_promise_6_no_destination_is_ever_without_a_route_it_keeps(
    desired: dict[tuple[object, ...], Route], found: list[Route]
) -> None:
    """Before each operation: what had a route of ours and is still wanted has one, or a rival."""
    kernel = Kernel(found)
    plan = plan_routes(desired, *kernel.split(), may_delete=True)  # type: ignore[arg-type]
    taken = {route.place for route in kernel.split()[1]}
    kept = {r.key for r in kernel.routes if r.protocol == OURS} & set(desired)
    kept = {key for key in kept if key.place not in taken}
    for operation in plan.operations:
        kernel.apply(RoutePlan(operations=(operation,)))
        assert kept <= {route.key for route in kernel.routes}


@given(desired_sets, kernels, routes([4, 186], [254]), st.booleans())
def test_promise_5_ours_gives_way_to_a_rival_and_is_back_when_it_goes(
    desired: dict[tuple[object, ...], Route], found: list[Route], rival: Route, before: bool
) -> None:
    """In both orders, and whether or not anything may be deleted."""
    alone = [route for route in found if route.protocol == OURS]
    kernel = Kernel([rival, *alone] if before else alone)
    kernel.apply(plan_routes(desired, *kernel.split(), may_delete=True))  # type: ignore[arg-type]
    if not before:
        kernel.routes.append(rival)
    kernel.apply(plan_routes(desired, *kernel.split(), may_delete=False))  # type: ignore[arg-type]
    there = [each for each in kernel.routes if each.place == rival.place]
    assert there == [rival]
    kernel.routes.remove(rival)
    kernel.apply(plan_routes(desired, *kernel.split(), may_delete=False))  # type: ignore[arg-type]
    assert set(kernel.routes) == set(desired.values())
