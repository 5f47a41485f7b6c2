"""The backend wireguard: options, published data and what one peer is worth."""

from __future__ import annotations

import base64
import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from agent.kernel.netlink.links import RawLink
from agent.kernel.tables.links import LinkTable
from agent.mesh.backends import HostObjects, PeerObjects, ThisHost
from agent.mesh.backends.wireguard import WireGuard
from agent.mesh.desired import desired_objects
from agent.mesh.world import World, peers_by_subnet
from agent.model import (
    BackendData,
    Condition,
    HostId,
    Lease,
    LinkAddress,
    LinkSpec,
    MeshConfig,
    Route,
    Uplink,
)
from agent.model.wireguard import (
    AllowedIp,
    Endpoint,
    WireGuardDevice,
    WireGuardPeer,
    is_public_key,
    read_endpoint,
)
from agent.reconcile.interfaces import Operation, OperationKind, Reason

pytestmark = pytest.mark.unit

KEY, PEERS_KEY = (base64.b64encode(bytes([each] * 32)).decode() for each in (1, 2))
UPLINK = Uplink(
    index=2,
    name="eth0",
    mtu=1500,
    node_address=IPv4Address("192.0.2.1"),
    on_link=IPv4Network("192.0.2.0/24"),
    wireguard_key=KEY,
)
CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"),
    subnet_len=16,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.0.0"),
    backend="wireguard",
)


def this_host(uplink: Uplink = UPLINK, **options: object) -> ThisHost:
    return ThisHost(
        config=replace(CONFIG, backend_options=BackendData.of(options)),
        uplink=uplink,
        on_link=(UPLINK.on_link,),
        subnets=(IPv4Network("10.64.0.0/16"),),
        host_id=HostId("0" * 32),
        protocol=140,
        table=254,
        metric=0,
    )


def a_peer(address: str = "198.51.100.7", /, **published: Any) -> Lease:  # noqa: ANN401 - JSON
    return Lease(
        subnet=IPv4Network("10.65.0.0/16"),
        node_address=IPv4Address(address),
        backend="wireguard",
        backend_data=BackendData.of({"PublicKey": PEERS_KEY, **published}),
    )


def objects_of(peer: Lease, host: ThisHost | None = None) -> PeerObjects:
    found = WireGuard().peer_objects(peer, host or this_host())
    assert isinstance(found, PeerObjects)
    return found


def endpoint_of(peer: Lease, host: ThisHost | None = None) -> Endpoint | None:
    (found,) = (e for e in objects_of(peer, host).objects if isinstance(e, WireGuardPeer))
    return found.endpoint


def test_this_host_has_a_device_with_its_key_and_lets_in_by_nothing_else() -> None:
    found = WireGuard().host_objects(this_host(ListenPort=4000))
    assert isinstance(found, HostObjects)
    assert found.objects == (
        LinkSpec(name="hm-wg", kind="wireguard", mtu=1420),
        LinkAddress(link="hm-wg", interface=IPv4Interface("10.64.0.0/32")),
        WireGuardDevice(link="hm-wg", public_key=KEY, port=4000),
    )
    assert found.ingress == ("hm-wg",)
    assert [(each.port, each.authenticated) for each in found.ports] == [(4000, True)]
    assert found.published == BackendData.of({"PublicKey": KEY, "Port": 4000})


def test_a_host_without_a_key_says_so_and_loses_nothing() -> None:
    found = WireGuard().host_objects(this_host(replace(UPLINK, wireguard_key="")))
    assert isinstance(found, Condition)
    assert found.name == "wireguard-unavailable"


def test_a_peer_is_one_peer_of_the_device_with_its_subnet() -> None:
    found = objects_of(a_peer(Port=4000))
    assert found.ingress == ("hm-wg",)
    assert found.objects == (
        WireGuardPeer(
            link="hm-wg",
            public_key=PEERS_KEY,
            endpoint=Endpoint(IPv4Address("198.51.100.7"), 4000),
        ),
        AllowedIp(link="hm-wg", network=IPv4Network("10.65.0.0/16"), public_key=PEERS_KEY),
        Route(
            destination=IPv4Network("10.65.0.0/16"),
            link="hm-wg",
            prefsrc=IPv4Address("10.64.0.0"),
            protocol=140,
        ),
    )


def test_a_host_that_moves_is_one_peer_with_both_subnets() -> None:
    now, before = a_peer(), replace(a_peer(), subnet=IPv4Network("10.66.0.0/16"))
    world = World(config=CONFIG, uplink=UPLINK, peers=peers_by_subnet([now, before], None))
    desired = desired_objects(world)
    assert desired.count(WireGuardPeer) == 1
    assert {each.network for each in desired.of(AllowedIp).values()} == {now.subnet, before.subnet}
    assert not desired.conditions


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        ({}, "198.51.100.7:51820"),
        ({"Port": 7}, "198.51.100.7:7"),
        ({"Endpoint": "203.0.113.9:4000"}, "203.0.113.9:4000"),
        ({"NAT": True}, "None"),
    ],
)
def test_where_a_peer_is_sent_to(published: dict[str, object], expected: str) -> None:
    assert str(endpoint_of(a_peer(**published))) == expected


def test_two_hosts_may_have_one_private_address() -> None:
    assert endpoint_of(a_peer("192.0.2.1")) is None


def test_a_host_behind_nat_says_so_and_keeps_the_way_back_open() -> None:
    host = this_host(replace(UPLINK, public_endpoint="none"))
    own = WireGuard().host_objects(host)
    assert isinstance(own, HostObjects)
    assert own.published == BackendData.of({"PublicKey": KEY, "Port": 51820, "NAT": True})
    (peer,) = (e for e in objects_of(a_peer(), host).objects if isinstance(e, WireGuardPeer))
    assert peer.keepalive_s == 25
    forwarded = this_host(replace(UPLINK, public_endpoint="203.0.113.1:4000"))
    own = WireGuard().host_objects(forwarded)
    assert isinstance(own, HostObjects)
    assert own.published is not None
    assert own.published.fields["Endpoint"] == "203.0.113.1:4000"


def test_direct_routing_sends_in_the_clear_on_the_link_only() -> None:
    host = this_host(DirectRouting=True)
    near, far = objects_of(a_peer("192.0.2.2"), host), objects_of(a_peer(), host)
    assert near.ingress == ("hm-wg", "eth0")
    assert [e.gateway for e in near.objects if isinstance(e, Route)] == [IPv4Address("192.0.2.2")]
    assert far.ingress == ("hm-wg",)
    assert objects_of(a_peer("192.0.2.2")).ingress == ("hm-wg",), "without it everything is hidden"


def test_a_route_is_no_larger_than_the_peers_uplink() -> None:
    for address, left in (("198.51.100.7", 1320), ("192.0.2.2", 1400)):
        for mtu, wanted in ((1400, left), (1500, 0), (9000, 0), (0, 0), (10, 0)):
            found = objects_of(replace(a_peer(address), mtu=mtu), this_host(DirectRouting=True))
            (route,) = (each for each in found.objects if isinstance(each, Route))
            assert route.mtu == wanted


@pytest.mark.parametrize(
    ("published", "reason"),
    [
        ({"PublicKey": "x"}, "PublicKey is not one"),
        ({"PublicKey": KEY}, "this host's own"),
        ({"PublicKey": "A" * 43 + "="}, "PublicKey is not one"),
        ({"Endpoint": "example.org:1"}, "Endpoint is not"),
        ({"Endpoint": "203.0.113.9:0"}, "Endpoint is not"),
        ({"Endpoint": "10.64.0.9:4000"}, "inside the mesh"),
        ({"Port": 0}, "Port"),
    ],
)
def test_promise_8_data_that_cannot_be_used_is_refused(
    published: dict[str, object], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        WireGuard().peer_objects(a_peer(**published), this_host())


def test_options_that_this_version_cannot_do_are_refused() -> None:
    with pytest.raises(ValueError, match="PSK"):
        WireGuard().host_objects(this_host(PSK="secret"))


def is_endpoint(text: str) -> bool:
    try:
        read_endpoint(text)
    except ValueError:
        return False
    return True


def test_keys_and_endpoints_are_read_strictly() -> None:
    assert is_public_key(KEY)
    for bad in ("", KEY[:-1], KEY.replace("=", ""), KEY + "\n", "*" * 44):
        assert not is_public_key(bad)
    assert str(read_endpoint("192.0.2.7:51820")) == "192.0.2.7:51820"
    for bad in (
        "192.0.2.7",
        "192.0.2.7:",
        "192.0.2.7:70000",
        ":1",
        "224.0.0.1:1",
        "192.0.2.7:\u0661",
    ):
        assert not is_endpoint(bad)


def test_the_kernel_is_asked_for_a_device_as_iproute2_does_it() -> None:
    """Byte for byte: ``ip link add hm-wg mtu 1420 type wireguard`` (linux/if_link.h)."""
    wanted = LinkSpec(name="hm-wg", kind="wireguard", mtu=1420)
    operation = Operation(OperationKind.REPLACE, wanted, Reason.MISSING)
    creation, mark = LinkTable().encode(operation, no_link)
    header, attributes = creation.body[:16], creation.body[16:]
    assert (creation.kind, creation.flags) == (16, 0x600), "RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL"
    assert header[8:] == struct.pack("=II", 1, 1), "IFF_UP, and that it changes"
    assert attributes == (
        attribute(3, b"hm-wg\0") + attribute(4, struct.pack("=I", 1420))
        + attribute(18, attribute(1, b"wireguard\0"))
    )  # fmt: skip
    assert mark.body[4:8] == header[4:8], "the owner mark goes to the link that was just made"
    assert mark.body[16:].startswith(attribute(20, b"hostmesh =mac"))


def attribute(number: int, value: bytes) -> bytes:
    """One netlink attribute, padded to four bytes (linux/netlink.h, NLA_ALIGN)."""
    return struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)


def no_link(name: str) -> RawLink:
    raise AssertionError(name)
