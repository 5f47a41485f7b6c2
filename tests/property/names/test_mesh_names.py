"""Names of a mesh with hostile hosts: each host names its own verified addresses, nothing else."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.mesh.names import MeshNames, NamesInput, label_of, mesh_names
from agent.mesh.names.labels import host_label, labels_of
from agent.mesh.world import World
from agent.model import Access, HostId, Lease
from agent.model.endpoint import Endpoint, EndpointAddress, Health
from agent.model.family import Address, Network
from agent.model.names import HostNames, NameKind
from agent.sharedmap import SharedMap

pytestmark = pytest.mark.property

HOSTS = tuple(HostId(f"{number:032x}") for number in range(4))
HERE = HOSTS[0]
SUBNETS = tuple(IPv4Network(f"10.{64 + number}.0.0/16") for number in range(6))
TEXTS = (
    "db",
    "DB",
    "d_b",
    "d.b",
    "d-b",
    "host",
    "api",
    "_",
    "",
    "a" * 70,
    "ä",
    "x.",
    "db-" + HOSTS[1],
)
NETWORKS = ("", "web", "db")

addresses = st.builds(
    lambda subnet, last: subnet.network_address + last,
    st.sampled_from((*SUBNETS, IPv4Network("203.0.113.0/24"))),
    st.integers(1, 3),
)
places = st.builds(
    EndpointAddress,
    network=st.sampled_from(("bridge", "app")),
    address=addresses,
    mesh_network=st.sampled_from(NETWORKS),
    access=st.sampled_from(Access),
    aliases=st.lists(st.sampled_from(TEXTS), max_size=3).map(tuple),
)


@st.composite
def endpoints(draw: st.DrawFn) -> Endpoint:
    return Endpoint(
        host_id=draw(st.sampled_from(HOSTS)),
        container_id=f"{draw(st.integers(0, 3)):064x}",
        name=draw(st.sampled_from(TEXTS)),
        project=draw(st.sampled_from(TEXTS)),
        service=draw(st.sampled_from(TEXTS)),
        health=draw(st.sampled_from(Health)),
        addresses=tuple(draw(st.lists(places, max_size=3))),
    )


leases = st.builds(
    Lease,
    subnet=st.sampled_from(SUBNETS),
    node_address=st.integers(1, 3).map(lambda last: IPv4Address(f"192.0.2.{last}")),
    backend=st.just("host-gw"),
    host_id=st.sampled_from((*HOSTS, None)),
    host_name=st.sampled_from(TEXTS),
    create_revision=st.integers(0, 4),
)


@st.composite
def inputs(draw: st.DrawFn) -> NamesInput:
    own = draw(st.none() | leases.map(lambda each: replace(each, host_id=HERE)))
    found = {each.subnet: each for each in draw(st.lists(leases, max_size=5))}
    peers = {
        subnet: each
        for subnet, each in found.items()
        if each.host_id != HERE and (own is None or subnet != own.subnet)
    }
    shown = draw(st.lists(endpoints(), max_size=5))
    world = World(
        host_id=HERE,
        own=own,
        peers=SharedMap(peers),
        dead_subnets=frozenset(draw(st.sets(st.sampled_from(SUBNETS), max_size=2))),
    )
    return NamesInput(
        world=world,
        endpoints=SharedMap({(each.host_id, each.container_id): each for each in shown}),
        own=tuple(draw(st.lists(endpoints(), max_size=2))),
    )


@given(st.lists(inputs(), max_size=6))
def test_following_costs_nothing_but_the_way(steps: list[NamesInput]) -> None:
    """Equal to a computation of everything, and the changes say all that differs."""
    followed, written = MeshNames(), dict[HostId, HostNames]()
    for now in steps:
        for host, names in followed.follow(now).items():
            if names is None:
                del written[host]
            else:
                assert written.get(host) != names
                written[host] = names
        assert followed.hosts == mesh_names(now) == written


@given(inputs())
def test_no_host_names_anything_but_its_own_verified_addresses(now: NamesInput) -> None:
    world = now.world
    subnets = defaultdict[HostId, list[Network]](list)
    nodes = defaultdict[HostId, set[Address]](set)
    every = (*([world.own] if world.own else []), *world.peers.values())
    for lease in every:
        if lease.host_id is not None and lease.subnet not in world.dead_subnets:
            subnets[lease.host_id].append(lease.subnet)
        if lease.host_id is not None:
            nodes[lease.host_id].add(lease.node_address)
    hosts_of = defaultdict[str, set[HostId]](set)
    found = mesh_names(now)
    assert found.keys() == subnets.keys()
    for host, names in found.items():
        assert names.host_id == host
        for each in names.addresses:
            kinds = {name.kind for name in each.names}
            inside = any(each.address in subnet for subnet in subnets[host])
            assert inside or (kinds == {NameKind.OWN} and each.address in nodes[host])
            assert not each.pointer or inside
            for name in each.names:
                first, _, domain = name.text.rpartition(".")
                if name.kind in {NameKind.HOST, NameKind.OWN}:
                    label = first if name.kind is NameKind.OWN else domain
                    hosts_of[label].add(host)
                elif name.kind is NameKind.NETWORK:
                    assert domain == each.mesh_network
    assert all(len(hosts) == 1 for hosts in hosts_of.values()), "a host's label is its own"


@given(st.sets(st.text(max_size=80) | st.sampled_from(TEXTS)))
def test_two_names_of_one_scope_never_share_a_label(names: set[str]) -> None:
    labels = labels_of(names)
    assert len(set(labels.values())) == len(labels)
    assert all(labels[each] == each for each in names if each and label_of(each) == each)
    assert labels.keys() == {each for each in names if label_of(each)}
    assert all(len(each) <= 63 for each in labels.values())


@given(st.lists(st.tuples(st.sampled_from(TEXTS) | st.text(), st.booleans()), min_size=2))
def test_no_host_can_call_itself_what_another_host_is_called(
    hosts: list[tuple[str, bool]],
) -> None:
    """A name that several hosts have is shared for all but one: theirs end in their ids."""
    plain = set[str]()
    for number, (name, shared) in enumerate(hosts):
        host = HostId(f"{number:032x}")
        label = host_label(name, host, shared=shared or label_of(name) in plain)
        if label.endswith(host):
            continue
        plain.add(label)
        others = (
            host_label(each, HostId(f"{n:032x}"), shared=True) for n, (each, _) in enumerate(hosts)
        )
        assert label not in set(others)
