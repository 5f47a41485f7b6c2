"""Promises 3 and 4: what may go at once, and what has to wait for the grace time; what is drift."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from agent.errors import KernelError
from agent.mesh.delta import RouteDelta
from agent.mesh.desired import desired_routes
from agent.mesh.peer_rules import PeerRules
from agent.mesh.plan import OperationResult
from agent.mesh.world import World, peers_by_subnet
from agent.model import HostFacts, Route
from tests.unit.small_mesh import CONFIG, UPLINK, lease

pytestmark = pytest.mark.unit

WORLD = World(
    config=CONFIG,
    own=lease(0),
    peers=peers_by_subnet((lease(1), lease(2)), lease(0)),
    uplink=UPLINK,
    host=HostFacts(links=(), foreign_routes=()),
    complete=True,
)
LESS = replace(WORLD, peers=peers_by_subnet((lease(1),), lease(0)))


def routes(world: World) -> tuple[Route, ...]:
    return tuple(desired_routes(world).routes.values())


def deleted(delta: RouteDelta, **allowed: bool) -> set[str]:
    plan = delta.plan(**allowed)
    return {str(each.route.destination) for each in plan.operations if each.kind == "delete"}


def test_a_route_whose_lease_went_in_this_life_does_not_wait() -> None:
    delta = RouteDelta()
    delta.world_changed(WORLD)
    delta.actual_listed(routes(WORLD), ())
    delta.world_changed(LESS)
    assert deleted(delta, may_delete=False, may_sweep=False) == set()
    assert deleted(delta, may_delete=True, may_sweep=False) == {"10.66.0.0/16"}


def test_a_route_of_an_earlier_life_waits_for_the_grace_time() -> None:
    delta = RouteDelta()
    delta.world_changed(LESS)
    delta.actual_listed(routes(WORLD), ())
    assert deleted(delta, may_delete=True, may_sweep=False) == set()
    assert deleted(delta, may_delete=True, may_sweep=True) == {"10.66.0.0/16"}


def test_what_only_the_hosts_own_copy_knew_waits_too() -> None:
    delta = RouteDelta()
    delta.world_changed(replace(WORLD, complete=False))
    delta.actual_listed(routes(WORLD), ())
    delta.world_changed(LESS)
    assert deleted(delta, may_delete=True, may_sweep=False) == set()


def test_a_lease_that_came_back_before_the_pass_is_not_deleted() -> None:
    delta = RouteDelta()
    delta.world_changed(WORLD)
    delta.actual_listed(routes(WORLD), ())
    delta.world_changed(LESS)
    delta.world_changed(WORLD)
    assert deleted(delta, may_delete=True, may_sweep=True) == set()


def test_promise_9_a_rival_of_a_route_that_was_there_before_its_lease_is_told() -> None:
    delta = RouteDelta()
    delta.world_changed(LESS)
    ours = routes(WORLD)
    route = next(each for each in ours if each.destination == lease(2).subnet)
    delta.actual_listed(ours, (replace(route, protocol=186, metric=9),))
    delta.world_changed(WORLD)
    (conflict,) = delta.plan(may_delete=True).conflicts
    assert conflict.wanted == route


def test_a_docker_network_that_is_made_computes_no_peer_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delta = RouteDelta()
    delta.world_changed(WORLD)
    monkeypatch.setattr(PeerRules, "outcome", None)
    bridge = Route(destination=IPv4Network("172.18.0.0/16"), link="br0", scope=253)
    delta.world_changed(replace(WORLD, host=HostFacts(links=(), foreign_routes=(bridge,))))
    assert delta.desired_count == 3


def test_a_wish_that_takes_several_tries_is_no_drift_when_it_comes_true() -> None:
    delta = RouteDelta()
    delta.world_changed(LESS)
    delta.actual_listed(routes(LESS), ())
    delta.world_changed(WORLD)
    plan = delta.plan(may_delete=True)
    (operation,) = plan.operations
    refused = OperationResult(operation, KernelError("refused"))
    assert delta.drifted(plan, [refused]) == ()
    assert delta.drifted(plan, []) == (), "a pass in which it had to wait"
    done = OperationResult(operation)
    assert delta.drifted(plan, [done]) == ()
    assert delta.drifted(plan, [done]) == (operation,), "somebody took it away again"


def test_promise_6_after_a_deletion_beside_another_route_a_list_is_called_for() -> None:
    delta = RouteDelta()
    delta.world_changed(LESS)
    wanted = next(each for each in routes(LESS) if each.gateway)
    odd = replace(wanted, kind="unicast+metrics")
    delta.actual_listed((*routes(LESS), odd), ())
    plan = delta.plan(may_delete=True)
    assert not delta.needs_list
    delta.applied([OperationResult(each) for each in plan.operations])
    assert delta.needs_list
