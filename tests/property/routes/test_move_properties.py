"""While the mesh moves to another CIDR: nothing that is desired leaves the two (promise 8)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.firewall.chains.declared import our_chains
from agent.mesh.config_change import ConfigWish, left_behind, wished_config
from agent.mesh.desired import desired_objects
from agent.mesh.firewall.desired import desired_firewall
from agent.mesh.world import World, peers_by_subnet
from agent.model import DockerFacts, DockerNetwork, HostId, Lease, MeshConfig, Route, Uplink
from agent.model.family import Address, Family, Network, within
from tests.property.networks import families, in_family
from tests.unit.firewall.wanted import world_of

pytestmark = pytest.mark.property

OLD, NEW = IPv4Network("10.64.0.0/12"), IPv4Network("10.32.0.0/12")
CONFIG = MeshConfig(
    cidr=NEW,
    subnet_len=16,
    subnet_min=NEW.network_address,
    subnet_max=IPv4Address("10.47.0.0"),
    previous=(OLD,),
)
UPLINK = Uplink(
    index=2,
    name="eth0",
    mtu=1500,
    node_address=IPv4Address("192.0.2.1"),
    on_link=IPv4Network("192.0.2.0/24"),
)
ME = HostId("0" * 32)
anything = st.builds(
    lambda bits, length: IPv4Network((bits >> (32 - length) << (32 - length), length)),
    st.integers(0, 2**32 - 1),
    st.integers(8, 30),
)
inside = st.builds(
    lambda cidr, offset, length: IPv4Network(
        ((int(cidr.network_address) + (offset << 10)) >> (32 - length) << (32 - length), length)
    ),
    st.sampled_from([OLD, NEW]),
    st.integers(0, (1 << 10) - 1),
    st.integers(13, 24),
)
subnets = st.one_of(anything, inside, st.sampled_from([OLD, NEW]))
gateways = st.one_of(
    st.integers(0, 2**32 - 1).map(IPv4Address),
    st.sampled_from([IPv4Address(each) for each in ("192.0.2.7", "10.32.0.9", "10.64.0.9")]),
)
peers = st.lists(st.tuples(subnets, gateways), max_size=8)


def lease(subnet: Network, address: Address, host: str | None = None) -> Lease:
    return Lease(
        subnet=subnet,
        node_address=address,
        backend="host-gw",
        host_id=HostId(host) if host else None,
    )


@given(peers)
def test_promise_8_no_route_leaves_the_two_cidrs(
    found: list[tuple[Network, Address]],
) -> None:
    own = lease(IPv4Network("10.33.0.0/16"), UPLINK.node_address, ME)
    former = lease(IPv4Network("10.65.0.0/16"), UPLINK.node_address, ME)
    world = World(
        config=CONFIG,
        own=own,
        former=former,
        uplink=UPLINK,
        complete=True,
        peers=peers_by_subnet([lease(*each) for each in found], own),
    )
    desired = desired_objects(world)
    aggregates = {each.destination for each in desired.of(Route).values() if each.gateway is None}
    assert {OLD, NEW} <= aggregates
    for route in desired.of(Route).values():
        assert within(route.destination, OLD) or within(route.destination, NEW)
        if route.gateway is not None:
            assert route.destination not in (OLD, NEW)
            assert route.gateway not in OLD
            assert route.gateway not in NEW
            assert not any(route.destination.overlaps(each) for each in world.own_subnets)


@given(st.lists(subnets, max_size=6))
def test_promises_5_and_8_no_rule_opens_more_than_the_two_cidrs(found: list[Network]) -> None:
    own, former = IPv4Network("10.33.0.0/16"), IPv4Network("10.65.0.0/16")
    networks = [
        DockerNetwork(id=str(n), name=f"n{n}", bridge=f"br-{n}", subnet=subnet)
        for n, subnet in enumerate(found)
    ]
    docker = DockerFacts(reachable=True, networks=tuple(networks))
    wants = desired_firewall(world_of(NEW, own, docker, previous=(OLD,), former=former))
    for network in wants.networks:
        assert within(network.subnet, own) or within(network.subnet, former)
    chains = our_chains(wants)
    senders = chains["raw"]["HOSTMESH-SENDERS"]
    assert not any("ACCEPT" in words.split() for words in senders), "it only closes"
    opening = [
        words
        for table in chains.values()
        for name, rules in table.items()
        if name != "HOSTMESH-SENDERS"
        for words in map(str.split, rules)
        if "HOSTMESH-SENDERS" not in words
    ]
    for words in opening:
        for option in ("-s", "-d"):
            if option in words:
                named = IPv4Network(words[words.index(option) + 1])
                assert within(named, OLD) or within(named, NEW)
    post = " ".join(chains["nat"]["HOSTMESH-POSTROUTING"])
    for source in (own, former):
        for dest in (OLD, NEW):
            assert f"-s {source} -d {dest}" in post, "true source addresses in both directions"


cidrs = st.builds(
    lambda base, length: str(IPv4Network(f"{base}/{length}", strict=False)),
    st.sampled_from(["10.64.0.0", "10.32.0.0", "10.80.0.0"]),
    st.integers(8, 14),
)


@given(families, st.lists(st.tuples(cidrs, st.booleans(), st.integers(16, 22)), max_size=5))
def test_promise_3_nothing_leaves_the_mesh_while_it_moves(
    family: Family, steps: list[tuple[str, bool, int]]
) -> None:
    """However often the operator changes his mind, what was in the mesh stays in until finish."""
    first, last = in_family(family, "10.64.0.0/12"), in_family(family, "10.79.0.0/16")
    config = MeshConfig(
        cidr=first,
        subnet_len=last.prefixlen,
        subnet_min=first.network_address,
        subnet_max=last.network_address,
    )
    for text, enlarge, bits in steps:
        before, cidr = config, in_family(family, text)
        length = last.prefixlen - 16 + bits
        if not enlarge or within(before.cidr, cidr):
            config = wished_config(
                before, ConfigWish(cidr=cidr, subnet_len=length, move=not enlarge)
            )
        assert not left_behind(before, config)
        assert config.cidr not in config.previous
        assert len(set(config.previous)) == len(config.previous)
        assert config.subnet_min in config.cidr
        assert config.subnet_max in config.cidr
    done = wished_config(config, ConfigWish(finish=True))
    assert done.cidrs == (config.cidr,)
