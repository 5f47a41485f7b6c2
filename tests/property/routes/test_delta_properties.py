"""The short path equals the full one, whatever happens in whatever order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.errors import KernelError
from agent.mesh.delta import RouteChange, RouteDelta
from agent.mesh.desired import desired_routes
from agent.mesh.plan import (
    OperationKind,
    OperationResult,
    Reason,
    RoutePlan,
    count_differing,
    plan_routes,
)
from agent.mesh.world import World, peers_by_subnet
from agent.model import HostFacts, HostId, Lease, MeshConfig, Route, Uplink
from agent.model.family import Address, Network
from agent.sharedmap import SharedMap

pytestmark = pytest.mark.property

CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"),
    subnet_len=24,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.255.0"),
)
OWN = Lease(
    subnet=IPv4Network("10.64.0.0/24"),
    node_address=IPv4Address("192.0.2.1"),
    backend="host-gw",
    host_id=HostId("0" * 32),
)
UPLINKS = tuple(
    Uplink(
        index=index,
        name=f"eth{index}",
        mtu=1500,
        node_address=IPv4Address("192.0.2.1"),
        on_link=IPv4Network("192.0.2.0/24"),
    )
    for index in (2, 3)
)
SUBNETS = [IPv4Network(f"10.64.{n}.0/24") for n in range(1, 5)] + [
    IPv4Network("10.64.0.0/10"),
    IPv4Network("192.168.0.0/24"),
]
HOSTS = (
    None,
    HostFacts(links=(), foreign_routes=()),
    HostFacts(
        links=(),
        foreign_routes=(Route(destination=IPv4Network("203.0.113.0/24"), link="eth2", scope=253),),
    ),
    HostFacts(
        links=(), foreign_routes=(Route(destination=IPv4Network("172.18.0.0/16"), link="br9"),)
    ),
)
"""What the host's own routes say of its links: 203.0.113.1 is on eth2's, or is not."""
subnets = st.sampled_from(SUBNETS)
addresses = st.sampled_from(
    [IPv4Address(each) for each in ("192.0.2.11", "192.0.2.12", "203.0.113.1")]
)


class Machine(RuleBasedStateMachine):
    """The world and a kernel change; the delta hears of both and must agree with a full pass."""

    @initialize()
    def begin(self) -> None:
        self.world = World(config=CONFIG, own=OWN, uplink=UPLINKS[0])
        self.delta = RouteDelta()
        self.delta.world_changed(self.world)
        self.kernel: list[Route] = []
        self.foreign_ever: set[Route] = set()

    # --- the world

    @rule(subnet=subnets, address=addresses, backend=st.sampled_from(["host-gw", "vxlan"]))
    def peer_appears_or_changes(self, subnet: Network, address: Address, backend: str) -> None:
        peer = Lease(subnet=subnet, node_address=address, backend=backend)
        self._peers_are(SharedMap(self.world.peers).changed({subnet: peer}))

    @rule(subnet=subnets)
    def peer_goes(self, subnet: Network) -> None:
        self._peers_are(SharedMap(self.world.peers).changed({subnet: None}))

    def _peers_are(self, peers: Mapping[Network, Lease]) -> None:
        self.world = replace(self.world, peers=peers)
        self.delta.world_changed(self.world)

    @rule(
        changes=st.dictionaries(subnets, st.none() | addresses, max_size=2),
        dead=st.frozensets(subnets, max_size=2),
    )
    def view_changes(
        self, changes: dict[Network, Address | None], dead: frozenset[Network]
    ) -> None:
        """A new world with a few other peers; the delta finds out which."""
        peers = dict(self.world.peers)
        for subnet, address in changes.items():
            if address is None:
                peers.pop(subnet, None)
            else:
                peers[subnet] = Lease(subnet=subnet, node_address=address, backend="host-gw")
        self.world = replace(self.world, peers=peers, dead_subnets=dead)
        self.delta.world_changed(self.world)

    @rule(
        uplink=st.sampled_from([None, *UPLINKS]),
        complete=st.booleans(),
        config=st.sampled_from([CONFIG, CONFIG, replace(CONFIG, backend="vxlan"), None]),
        dead=st.frozensets(subnets, max_size=2),
        host=st.sampled_from(HOSTS),
    )
    def all_else_changes(
        self,
        uplink: Uplink | None,
        complete: bool,
        config: MeshConfig | None,
        dead: frozenset[Network],
        host: HostFacts | None,
    ) -> None:
        self.world = replace(
            self.world,
            uplink=uplink,
            host=host,
            complete=complete,
            config=config,
            dead_subnets=dead,
            peers=peers_by_subnet(self.world.peers.values(), OWN),
        )
        self.delta.world_changed(self.world)

    @rule(host=st.sampled_from(HOSTS))
    def the_hosts_own_routes_change(self, host: HostFacts | None) -> None:
        self.world = replace(self.world, host=host)
        self.delta.world_changed(self.world)

    # --- the kernel, disturbed by others

    @rule(
        subnet=subnets,
        address=addresses,
        protocol=st.sampled_from([140, 186]),
        metric=st.sampled_from([0, 9]),
        tos=st.sampled_from([0, 0, 0, 16]),
    )
    def somebody_replaces(
        self, subnet: Network, address: Address, protocol: int, metric: int, tos: int
    ) -> None:
        route = Route(
            destination=subnet,
            gateway=address,
            link="eth2",
            protocol=protocol,
            metric=metric,
            tos=tos,
        )
        places = [n for n, r in enumerate(self.kernel) if r.key == route.key]
        if route in self.kernel:
            return
        if places:
            self.kernel[places[0]] = route
        else:
            self.kernel.append(route)
        if protocol == 186:
            self.foreign_ever.add(route)
        self.delta.observed(RouteChange(route=route, replaced=bool(places)))

    @precondition(lambda self: self.kernel)
    @rule(data=st.data())
    def somebody_deletes(self, data: st.DataObject) -> None:
        route = data.draw(st.sampled_from(self.kernel))
        self.kernel.remove(route)
        self.delta.observed(RouteChange(route=route, gone=True))

    @rule(subnet=subnets, address=addresses, protocol=st.sampled_from([140, 186]))
    def somebody_appends(self, subnet: Network, address: Address, protocol: int) -> None:
        route = Route(destination=subnet, gateway=address, link="eth2", protocol=protocol)
        if route not in self.kernel:
            self.kernel.append(route)
            self.delta.observed(RouteChange(route=route))

    @precondition(lambda self: any(route.protocol == 140 for route in self.kernel))
    @rule(data=st.data(), address=addresses, metric=st.sampled_from([0, 9, 100]))
    def a_rival_comes_after_ours(self, data: st.DataObject, address: Address, metric: int) -> None:
        ours = data.draw(st.sampled_from([each for each in self.kernel if each.protocol == 140]))
        rival = replace(
            ours, kind="unicast", gateway=address, link="eth2", protocol=186, metric=metric
        )
        if rival not in self.kernel:
            self.kernel.append(rival)
            self.delta.observed(RouteChange(route=rival))

    @precondition(lambda self: any(route.protocol == 186 for route in self.kernel))
    @rule(data=st.data())
    def a_rival_goes(self, data: st.DataObject) -> None:
        rival = data.draw(st.sampled_from([each for each in self.kernel if each.protocol == 186]))
        self.kernel.remove(rival)
        self.delta.observed(RouteChange(route=rival, gone=True))

    @rule()
    def link_flaps_without_a_word(self) -> None:
        self.kernel = [route for route in self.kernel if route.link is None]
        self._list()

    @rule(
        subnet=subnets,
        address=addresses,
        protocol=st.sampled_from([140, 186]),
        metric=st.sampled_from([0, 9]),
        gone=st.booleans(),
    )
    def changes_are_missed_and_listed_later(
        self, subnet: Network, address: Address, protocol: int, metric: int, gone: bool
    ) -> None:
        if gone:
            self.kernel = [route for route in self.kernel if route.destination != subnet]
        route = Route(
            destination=subnet, gateway=address, link="eth2", protocol=protocol, metric=metric
        )
        if route not in self.kernel:
            self.kernel.append(route)
        self._list()

    # --- the agent

    @rule()
    def agent_lists(self) -> None:
        self._list()

    @rule(may_delete=st.booleans(), cut=st.integers(0, 20), failing=st.integers(0, 20))
    def agent_repairs(self, may_delete: bool, cut: int, failing: int) -> None:
        if self.delta.needs_list:
            self._list()
        plan = self.delta.plan(may_delete=may_delete)
        results = []
        for number, operation in enumerate(plan.operations[:cut]):
            if number == failing:
                results.append(OperationResult(operation, KernelError("refused")))
                continue
            self._carry_out(operation.kind, operation.route, operation.reason)
            results.append(OperationResult(operation))
        self.delta.applied(results)

    @rule(may_delete=st.booleans())
    def agent_repairs_all(self, may_delete: bool) -> None:
        """Then each place is ours or another program's, and nothing is left to be done there."""
        self.agent_repairs(may_delete, cut=1000, failing=1000)
        if self.delta.needs_list:
            self._list()
        taken = {each.place for each in self.kernel if each.protocol != 140}
        for route in self.kernel:
            assert route.protocol != 140 or route.place not in taken, "promise 5"
        there = set(self.kernel)
        for key, wanted in self.delta.desired.items():
            assert (wanted in there) == (key.place not in taken)
        assert self.delta.plan(may_delete=may_delete).operations == ()

    def _carry_out(self, kind: OperationKind, route: Route, reason: Reason) -> None:
        places = [n for n, r in enumerate(self.kernel) if r.key == route.key]
        if kind is OperationKind.DELETE:
            assert route.protocol == 140, "promise 5"
            self.kernel.remove(route)
        elif reason is Reason.MISSING:
            assert not places
            self.kernel.append(route)
        else:
            assert self.kernel[places[0]].protocol == 140, "promise 5"
            self.kernel[places[0]] = route

    def _list(self) -> None:
        self.delta.actual_listed(
            tuple(route for route in self.kernel if route.protocol == 140),
            tuple(route for route in self.kernel if route.protocol != 140),
        )

    # --- what must hold

    @invariant()
    def desired_is_what_a_full_pass_wants(self) -> None:
        full = desired_routes(self.world)
        assert dict(self.delta.desired) == dict(full.routes)
        assert self.delta.certain == full.certain
        gateways = {route.gateway for route in full.routes.values()} - {None}
        assert self.delta.gateways == gateways
        assert set(self.delta.conditions) == set(full.conditions)

    @invariant()
    def plan_is_what_a_full_pass_plans(self) -> None:
        if self.delta.needs_list:
            return
        full = desired_routes(self.world)
        ours = [route for route in self.kernel if route.protocol == 140]
        foreign = [route for route in self.kernel if route.protocol != 140]
        missing = [each for each in full.routes.values() if each not in ours]
        assert self.delta.missing_count == len(missing)
        assert self.delta.differing_count == count_differing(full.routes, ours)
        for may_delete in (True, False):
            expected = plan_routes(
                full.routes, ours, foreign, may_delete=may_delete and full.certain
            )
            found = self.delta.plan(may_delete=may_delete)
            assert content(found) == content(expected)
            taken = {each.place for each in foreign}
            for each in found.operations:
                assert (each.reason is Reason.CONFLICT) == (each.route.place in taken)
                assert (
                    each.kind is not OperationKind.DELETE
                    or each.reason is Reason.CONFLICT
                    or (self.world.complete and may_delete)
                ), "promise 4"


def content(plan: RoutePlan) -> tuple[set[object], set[object], set[object]]:
    return set(plan.operations), set(plan.conflicts), set(plan.held)


TestDelta = Machine.TestCase
TestDelta.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestDelta.pytestmark = [pytest.mark.property]  # type: ignore[attr-defined]


def test_before_the_first_list_nothing_is_planned() -> None:
    delta = RouteDelta()
    delta.world_changed(World(config=CONFIG, own=OWN, uplink=UPLINKS[0], complete=True))
    assert delta.needs_list
    assert delta.plan(may_delete=True) == RoutePlan()
