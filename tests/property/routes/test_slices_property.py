"""Slices followed change by change are those of a full computation, and each lies in its lease."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.mesh.networks import (
    AcceptedSlices,
    SliceMember,
    SliceMembers,
    accepted_slices,
    own_slices,
)
from agent.mesh.world import World
from agent.model import DockerFacts, DockerNetwork, HostId, Lease, MeshConfig
from agent.model.family import Network, meet, within
from agent.model.network import NETWORK_LABEL, MeshNetwork, NetworkSlice
from agent.sharedmap import SharedMap

pytestmark = pytest.mark.property

CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"),
    subnet_len=24,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.255.0"),
    level=3,
)
HOSTS = [HostId(each * 32) for each in "0ab"]
OWN, *_ = HOSTS
LEASES: dict[Network, Lease] = {
    IPv4Network(f"10.64.{n}.0/24"): Lease(
        subnet=IPv4Network(f"10.64.{n}.0/24"),
        node_address=IPv4Address(f"192.0.2.{n}"),
        backend="host-gw",
        host_id=host,
        host_name=f"host-{host and host[0]}",
    )
    for n, host in enumerate((*HOSTS, *HOSTS, None))
}
names = st.sampled_from(["web", "db", "x"])
claims = st.builds(
    NetworkSlice,
    host_id=st.sampled_from(HOSTS),
    network=names,
    subnet=st.builds(
        lambda n, at, length: IPv4Network((f"10.64.{n}.{at}", length), strict=False),
        st.integers(0, 7),
        st.sampled_from([0, 64, 128]),
        st.sampled_from([23, 24, 25, 26]),
    ),
    create_revision=st.integers(1, 3),
)
records = st.builds(
    MeshNetwork,
    name=names,
    hosts=st.sampled_from([(), ("host-a",), ("host-*",), (HOSTS[2],), ("none",)]),
)


class Machine(RuleBasedStateMachine):
    """The world changes; what is followed must be what one computation of it all says."""

    @initialize()
    def begin(self) -> None:
        self.followed = AcceptedSlices()
        self.mirror: dict[tuple[HostId, str], NetworkSlice] = {}
        self.members = SliceMembers()
        self.mirrored_members: set[SliceMember] = set()
        own = next(iter(LEASES.values()))
        self.world = World(
            host_id=OWN, config=CONFIG, own=own, peers=SharedMap(), slices=SharedMap()
        )
        self._follow(self.world)

    def _follow(self, world: World) -> None:
        self.world = world
        for key, (before, now) in self.followed.follow(world).items():
            assert self.mirror.pop(key, None) == before
            if now is not None:
                self.mirror[key] = now
        for member, wanted in self.members.follow(world).items():
            assert (member in self.mirrored_members) is (wanted is None)
            self.mirrored_members ^= {member}

    @rule(
        found=st.lists(claims, max_size=4),
        gone=st.lists(st.tuples(st.sampled_from(HOSTS), names), max_size=2),
    )
    def slices_change(self, found: list[NetworkSlice], gone: list[tuple[HostId, str]]) -> None:
        changes: dict[tuple[HostId, str], NetworkSlice | None] = dict.fromkeys(gone)
        changes |= {(each.host_id, each.network): each for each in found}
        slices = SharedMap[tuple[HostId, str], NetworkSlice](self.world.slices)
        self._follow(replace(self.world, slices=slices.changed(changes)))

    @rule(there=st.sets(st.sampled_from(list(LEASES)[1:])), renewed=st.booleans())
    def leases_change(self, there: set[Network], *, renewed: bool) -> None:
        found = {each: LEASES[each] for each in there}
        if renewed:
            found = {key: replace(each, renewed_s=1.0) for key, each in found.items()}
        self._follow(replace(self.world, peers=SharedMap(found)))

    @rule(
        found=st.dictionaries(st.sampled_from(["web", "db", "X"]), st.integers(0, 7)),
        reachable=st.booleans(),
    )
    def docker_changes(self, found: dict[str, int], *, reachable: bool) -> None:
        networks = tuple(
            DockerNetwork(
                id=label,
                name=label,
                bridge=label,
                subnet=IPv4Network((f"10.64.{at // 4}.{at % 4 * 64}", 26)),
                labels={NETWORK_LABEL: label},
            )
            for label, at in found.items()
        )
        facts = DockerFacts(reachable=reachable, networks=networks)
        self._follow(replace(self.world, docker=facts))

    @rule(found=st.lists(records, max_size=2), gone=st.lists(names, max_size=2))
    def records_change(self, found: list[MeshNetwork], gone: list[str]) -> None:
        changes: dict[str, MeshNetwork | None] = dict.fromkeys(gone)
        changes |= {each.name: each for each in found}
        self._follow(replace(self.world, networks=SharedMap(self.world.networks).changed(changes)))

    @rule(
        level=st.sampled_from([2, 3, 3, 3]),
        declared=st.sampled_from([True, False, False]),
        allow=st.sampled_from([("*",), ("*",), ("w*", "d?"), ()]),
        host_id=st.sampled_from([OWN, OWN, HOSTS[1]]),
        known=st.booleans(),
    )
    def all_else_changes(
        self, level: int, allow: tuple[str, ...], host_id: HostId, *, declared: bool, known: bool
    ) -> None:
        config = replace(CONFIG, level=level, declared_networks=declared)
        self._follow(
            replace(
                self.world,
                config=config if known else None,
                allowed_networks=allow,
                host_id=host_id,
            )
        )

    @invariant()
    def it_is_what_a_full_computation_says(self) -> None:
        full = accepted_slices(self.world)
        assert self.followed.set_aside == full.set_aside
        assert self.followed.conditions == full.conditions
        for name in ("web", "db", "x"):
            mirrored = {host: each for (host, of), each in self.mirror.items() if of == name}
            assert self.followed.of(name) == full.of(name) == mirrored

    @invariant()
    def the_members_are_the_slices_of_the_networks_of_this_host(self) -> None:
        own, accepted = own_slices(self.world), accepted_slices(self.world)
        wanted = {SliceMember(each.name, each.subnet) for each in own.slices} | {
            SliceMember(each.name, other.subnet)
            for each in own.slices
            for other in accepted.of(each.name).values()
        }
        assert self.mirrored_members == wanted
        assert self.members.conditions == (*own.conditions, *accepted.conditions)

    @invariant()
    def promise_8_what_counts_lies_in_its_hosts_lease_and_overlaps_nothing(self) -> None:
        used = list(self.mirror.values())
        for each in used:
            leases = (at for at, it in self.world.peers.items() if it.host_id == each.host_id)
            assert any(within(each.subnet, lease) for lease in leases)
            assert all(each is other or not meet(each.subnet, other.subnet) for other in used)
            assert each.host_id != self.world.host_id
            record = self.world.networks.get(each.network)
            assert record is None or record.hosts != ("none",)


TestSlices = Machine.TestCase
TestSlices.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
