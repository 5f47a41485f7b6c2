"""Desired objects followed peer by peer are those of a full computation, whatever happens."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.mesh.backends import HostObjects, PeerObjects, ThisHost
from agent.mesh.backends.vxlan import Vxlan
from agent.mesh.desired import DesiredObjects, IngressMember, desired_objects
from agent.mesh.peer_rules import PeerRules, aggregate_routes
from agent.mesh.world import World
from agent.model import (
    BACKENDS,
    BackendData,
    HostFacts,
    HostId,
    Lease,
    MeshConfig,
    Need,
    Needed,
    Route,
    Uplink,
)
from agent.model.family import Network, network_order
from agent.model.objects import FdbEntry, LinkAddress, LinkSpec, Neighbour
from agent.sharedmap import SharedMap

pytestmark = pytest.mark.property

KINDS: tuple[Any, ...] = (Route, LinkSpec, LinkAddress, Neighbour, FdbEntry, IngressMember)
CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"),
    subnet_len=24,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.255.0"),
    backend="vxlan",
)
OWN = Lease(
    subnet=IPv4Network("10.64.0.0/24"),
    node_address=IPv4Address("192.0.2.1"),
    backend="vxlan",
    host_id=HostId("0" * 32),
)
UPLINK = Uplink(
    index=2,
    name="eth0",
    mtu=1500,
    node_address=IPv4Address("192.0.2.1"),
    on_link=IPv4Network("192.0.2.0/24"),
)
HOSTS = (
    HostFacts(links=(), foreign_routes=()),
    HostFacts(
        links=(),
        foreign_routes=(),
        needed=(Needed(IPv4Address("10.64.2.9"), Need.ETCD),),
    ),
)
MACS = (*["02:aa:aa:aa:aa:aa"] * 4, *["02:bb:bb:bb:bb:bb"] * 2, "02:00:00:00:00:00")
DATA = [BackendData.of({"VNI": 1, "VtepMAC": each}) for each in MACS]
subnets = st.sampled_from([IPv4Network(f"10.64.{n}.0/24") for n in range(1, 5)])
leases = st.builds(
    Lease,
    subnet=subnets,
    node_address=st.sampled_from([IPv4Address(f"192.0.2.{n}") for n in (1, 11, 12)]),
    backend=st.sampled_from(["vxlan"] * 8 + ["host-gw"]),
    host_id=st.sampled_from(
        [HostId("a" * 32)] * 3 + [HostId("b" * 32), HostId("0" * 32)] + [None] * 4
    ),
    create_revision=st.integers(5, 7),
)
"""Few MACs and addresses: leases of one host, and forged ones, are frequent."""


class CrowdedVxlan(Vxlan):
    """One that has a forwarding entry of this host's own, which no peer may take."""

    def host_objects(self, host: ThisHost) -> HostObjects:
        made = super().host_objects(host)
        device = next(each for each in made.objects if isinstance(each, LinkSpec))
        own = FdbEntry(link=device.name, mac=device.mac, destination=host.uplink.node_address)
        return replace(made, objects=(*made.objects, own))


class Machine(RuleBasedStateMachine):
    """The world changes; what is followed must be what one computation of it all says."""

    @initialize()
    def begin(self) -> None:
        self.followed = DesiredObjects()
        self.mirror: dict[Any, dict[Hashable, object]] = {kind: {} for kind in KINDS}
        self.world = World(
            host_id=HostId("0" * 32),
            config=CONFIG,
            own=OWN,
            uplink=UPLINK,
            host=HOSTS[0],
            peers=SharedMap(),
        )
        self._follow(self.world, was_complete=False)

    def _follow(self, world: World, *, was_complete: bool | None = None) -> None:
        if was_complete is None:
            was_complete = self.world.complete
        self.world = world
        changes = self.changes = self.followed.follow(world)
        assert changes.known_gone == was_complete
        assert bool(changes) == any(changes.of(kind) for kind in KINDS)
        for kind in KINDS:
            mirrored = self.mirror[kind]
            for key, wanted in changes.of(kind).items():
                if wanted is None:
                    mirrored.pop(key, None)
                else:
                    mirrored[key] = wanted

    @rule(found=st.lists(leases, max_size=3), gone=st.lists(subnets, max_size=2))
    def peers_change(self, found: list[Lease], gone: list[Network]) -> None:
        changes: dict[Network, Lease | None] = dict.fromkeys(gone)
        changes.update({each.subnet: each for each in found})
        self._follow(replace(self.world, peers=SharedMap(self.world.peers).changed(changes)))

    @rule()
    def leases_are_renewed(self) -> None:
        peers = {subnet: replace(each, renewed_s=1.0) for subnet, each in self.world.peers.items()}
        self._follow(replace(self.world, peers=SharedMap(peers)))
        assert not self.changes

    @rule(dead=st.frozensets(subnets, max_size=2))
    def hosts_die_and_come_back(self, dead: frozenset[Network]) -> None:
        self._follow(replace(self.world, dead_subnets=dead))

    @rule(
        backend=st.sampled_from(["vxlan"] * 6 + ["host-gw", "unknown", None]),
        uplink=st.sampled_from([UPLINK] * 5 + [replace(UPLINK, name="eth1", index=3), None]),
        host_id=st.sampled_from([HostId("0" * 32)] * 5 + [HostId("a" * 32)]),
        host=st.sampled_from(HOSTS),
        complete=st.booleans(),
        metric=st.sampled_from([0, 9]),
        gone=st.lists(subnets, max_size=1),
    )
    def all_else_changes(
        self,
        backend: str | None,
        uplink: Uplink | None,
        host_id: HostId,
        host: HostFacts,
        complete: bool,
        metric: int,
        gone: list[Network],
    ) -> None:
        config = None if backend is None else replace(CONFIG, backend=backend)
        self._follow(
            replace(
                self.world,
                config=config,
                uplink=uplink,
                host_id=host_id,
                host=host,
                complete=complete,
                route_metric=metric,
                peers=SharedMap(self.world.peers).changed(dict.fromkeys(gone)),
            )
        )

    @invariant()
    def it_is_what_the_world_asks_for(self) -> None:
        wanted = naive(self.world)
        for kind in KINDS:
            assert self.followed.of(kind) == wanted[kind] == self.mirror[kind]
            assert self.followed.count(kind) == len(wanted[kind])

    @invariant()
    def it_is_what_a_full_computation_says(self) -> None:
        full = desired_objects(self.world)
        assert set(self.followed.conditions) == set(full.conditions)
        assert self.followed.certain == full.certain
        if isinstance(PeerRules.of(self.world), PeerRules):
            assert self.followed.ingress == full.ingress
        else:
            assert not any(self.followed.ingress.values()), "links stay, and their sets are kept"
        assert self.followed.ingress is self.followed.ingress

    @invariant()
    def promise_9_an_object_that_another_peer_has_is_reported(self) -> None:
        reported = {each.subject for each in self.followed.conditions}
        for subnet, kind, key, each in by_peer(self.world):
            if self.followed.of(kind)[key] != each:
                assert str(subnet) in reported


def age(peer: Lease) -> tuple[object, ...]:
    return peer.host_id is None, peer.create_revision, network_order(peer.subnet)


def by_peer(world: World) -> Iterator[tuple[Network, Any, Hashable, object]]:
    rules = PeerRules.of(world)
    if isinstance(rules, PeerRules):
        for subnet, peer in sorted(world.peers.items(), key=lambda each: age(each[1])):
            outcome = rules.outcome(peer)
            if isinstance(outcome, PeerObjects):
                for each in outcome.objects:
                    key = each.key
                    yield subnet, type(each), key, each
                for link in outcome.ingress:
                    for network in (subnet, IPv4Network(peer.node_address)):
                        member = IngressMember(link, network)
                        yield subnet, IngressMember, member, member


def naive(world: World) -> dict[Any, dict[Hashable, object]]:
    """Ask for every peer, the oldest lease first; the first that wants a key has it."""
    wanted: dict[Any, dict[Hashable, object]] = {kind: {} for kind in KINDS}
    for route in aggregate_routes(world):
        wanted[Route][route.key] = route
    rules = PeerRules.of(world)
    if isinstance(rules, PeerRules):
        for each in rules.objects:
            wanted[type(each)][each.key] = each
    for _, kind, key, found in by_peer(world):
        wanted[kind].setdefault(key, found)
    return wanted


class TestDesired(Machine.TestCase):  # type: ignore[misc, valid-type] # made by Hypothesis
    settings = settings(max_examples=150, stateful_step_count=25, deadline=None)

    @pytest.fixture(autouse=True)
    def crowded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(BACKENDS, "vxlan", f"{__name__}:CrowdedVxlan")
