"""Hold every registered backend to the promises, for any record."""

from __future__ import annotations

import base64
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.mesh.backends import PeerObjects, ThisHost, backend_by_name
from agent.mesh.peer_rules import PeerRules
from agent.mesh.world import World
from agent.model import (
    BACKENDS,
    FAMILIES,
    BackendData,
    HostId,
    Lease,
    LinkSpec,
    MeshConfig,
    Route,
    Uplink,
    within,
)

pytestmark = pytest.mark.property

ALL = tuple(BACKENDS)
_SMALLEST_MTU = 68
"""Of IPv4 (RFC 791)."""
CIDR = IPv4Network("10.64.0.0/10")
KEY, PEERS_KEY = (base64.b64encode(bytes([each] * 32)).decode() for each in (1, 2))
OWN = Lease(
    subnet=IPv4Network("10.64.0.0/16"),
    node_address=IPv4Address("192.0.2.1"),
    backend="",
    host_id=HostId("0" * 32),
)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
usual_names = st.sampled_from(["VNI", "VtepMAC", "PublicKey", "vtepmac"])
usual = st.sampled_from([1, "82:4b:b6:2f:54:4e", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "-x"])
data = st.dictionaries(
    st.text(max_size=8) | usual_names, json | usual, max_size=4
) | st.sampled_from(
    [
        {"VNI": 1, "VtepMAC": "02:aa:aa:aa:aa:aa"},
        {"VNI": 1, "VtepMAC": "82:4b:b6:2f:54:4e"},
        {"PublicKey": PEERS_KEY, "Port": 51820},
        {"PublicKey": PEERS_KEY, "Endpoint": "198.51.100.7:4000"},
        {"PublicKey": PEERS_KEY, "Endpoint": "10.64.0.7:4000"},
        {"PublicKey": PEERS_KEY, "NAT": True},
        {"PublicKey": KEY},
    ]
)
options = st.sampled_from(
    [
        None,
        BackendData.of({"DirectRouting": True}),
        BackendData.of({"VNI": 1, "Port": 4789, "MTU": 1400}),
    ]
)
addresses = st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 255).map(
    lambda last: IPv4Address("192.0.2.0") + last
)
peers = st.builds(
    lambda second, address, found, host, mtu: Lease(
        subnet=IPv4Network(f"10.{second}.0.0/16"),
        node_address=address,
        backend="",
        backend_data=BackendData.of(found),
        host_id=host,
        mtu=mtu,
    ),
    st.integers(60, 130),
    addresses,
    data,
    st.none() | st.sampled_from([HostId("0" * 32), HostId("a" * 32)]),
    st.sampled_from([0, 1, 60, 575, 576, 1400, 1500, 9000, 2**31 - 1]),
)


def rules_of(
    backend: str, own: Lease | None = OWN, options: BackendData | None = None
) -> PeerRules:
    config = MeshConfig(
        cidr=CIDR,
        subnet_len=16,
        subnet_min=CIDR.network_address,
        subnet_max=IPv4Address("10.127.0.0"),
        backend=backend,
        backend_options=options,
    )
    uplink = Uplink(
        index=2,
        name="eth0",
        mtu=1500,
        node_address=OWN.node_address,
        on_link=IPv4Network("192.0.2.0/24"),
        wireguard_key=KEY,
    )
    rules = PeerRules.of(World(host_id=HostId("0" * 32), config=config, own=own, uplink=uplink))
    assert isinstance(rules, PeerRules)
    return rules


@pytest.mark.parametrize("name", ALL)
def test_a_backend_has_the_name_it_is_registered_under(name: str) -> None:
    backend = backend_by_name(name)
    assert backend is not None
    assert backend.name == name
    for family in FAMILIES:
        assert 0 <= backend.overhead(family) < 200


@pytest.mark.parametrize("name", ALL)
def test_a_backend_publishes_before_it_has_a_lease_and_the_same_after(name: str) -> None:
    """The first claim says already what peers need."""
    assert rules_of(name, own=None).published("") == rules_of(name).published("")


@pytest.mark.parametrize("name", ALL)
@given(peer=peers, options=options)
def test_promises_5_and_8_a_peer_has_its_own_subnet_and_the_backends_own_links(
    name: str, peer: Lease, options: BackendData | None
) -> None:
    rules = rules_of(name, options=options)
    host: ThisHost = rules.host
    links = {each.name for each in rules.objects if isinstance(each, LinkSpec)}
    peer = replace(peer, backend=name)
    outcome = rules.outcome(peer)
    assert outcome == rules.outcome(peer), "the same question, the same answer"
    if not isinstance(outcome, PeerObjects):
        return
    assert set(outcome.ingress) <= set(rules.ingress)
    assert outcome.ingress, "what it sends must be let in"
    keys = [(type(each), each.key) for each in outcome.objects]
    assert len(keys) == len(set(keys))
    for each in outcome.objects:
        if isinstance(each, Route):
            assert within(each.destination, peer.subnet)
            assert each.mtu == 0 or _SMALLEST_MTU <= each.mtu < host.uplink.mtu
            assert (each.protocol, each.table, each.metric) == (
                host.protocol,
                host.table,
                host.metric,
            )
            assert each.link in {*links, host.uplink.name}
        else:
            assert not isinstance(each, LinkSpec), "a link is the host's, not a peer's"
            assert each.link in links
