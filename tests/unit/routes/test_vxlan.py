"""The backend vxlan: options, published data and what one peer is worth, as flannel has them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from agent.mesh.backends import HostObjects, PeerObjects, ThisHost, container_mtu
from agent.mesh.backends.vxlan import Vxlan, vtep_mac
from agent.model import (
    BackendChoice,
    BackendData,
    Condition,
    FdbEntry,
    HostId,
    Lease,
    LinkAddress,
    LinkSpec,
    MeshConfig,
    Neighbour,
    Route,
    Uplink,
    VxlanOptions,
)

pytestmark = pytest.mark.unit

ME, OTHER = HostId("0123456789" + "0" * 22), HostId("a" * 32)
UPLINK = Uplink(
    index=2,
    name="eth0",
    mtu=1500,
    node_address=IPv4Address("192.0.2.1"),
    on_link=IPv4Network("192.0.2.0/24"),
)
CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"),
    subnet_len=16,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.0.0"),
    backend="vxlan",
)
FLANNELS = BackendData.of({"VNI": 1, "VtepMAC": "82:4b:b6:2f:54:4e"})
"""As flannel 0.28.9 publishes it."""


def this_host(**options: Any) -> ThisHost:  # noqa: ANN401 - JSON
    return ThisHost(
        config=replace(CONFIG, backend_options=BackendData.of(options)),
        uplink=UPLINK,
        on_link=(UPLINK.on_link,),
        subnets=(IPv4Network("10.64.0.0/16"),),
        host_id=ME,
        protocol=140,
        table=254,
        metric=0,
    )


def peer(
    node_address: str = "198.51.100.9",
    data: BackendData | None = FLANNELS,
    host_id: HostId | None = None,
) -> Lease:
    return Lease(
        subnet=IPv4Network("10.65.0.0/16"),
        node_address=IPv4Address(node_address),
        backend="vxlan",
        backend_data=data,
        host_id=host_id,
    )


def own(host: ThisHost) -> HostObjects:
    found = Vxlan().host_objects(host)
    assert isinstance(found, HostObjects)
    return found


def device(host: ThisHost) -> LinkSpec:
    return next(each for each in own(host).objects if isinstance(each, LinkSpec))


def objects(found: PeerObjects | Condition) -> PeerObjects:
    assert isinstance(found, PeerObjects)
    return found


def test_a_host_has_a_device_with_the_network_address_of_its_lease() -> None:
    assert own(this_host()).objects == (
        LinkSpec(
            name="hm-vxlan",
            kind="vxlan",
            mac="02:01:23:45:67:89",
            mtu=1450,
            options=VxlanOptions(vni=1, port=8472, local=UPLINK.node_address, underlay="eth0"),
        ),
        LinkAddress(link="hm-vxlan", interface=IPv4Interface("10.64.0.0/32")),
    )


def test_options_are_read_as_flannel_reads_them() -> None:
    found = device(this_host(vni=7, port=4789, mtu=1400, Learning=True))
    assert found.options is not None
    assert (found.options.vni, found.options.port, found.mtu) == (7, 4789, 1350)
    assert not found.options.learning
    larger = device(this_host(MTU=9000))
    assert larger.mtu == 1450, "never more than the uplink takes"
    assert device(this_host(Port=0)).options == device(this_host()).options


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"VNI": 0}, "VNI is not an integer from 1 to 16777215"),
        ({"VNI": "7"}, "VNI is not an integer from 1 to 16777215"),
        ({"Port": 70000}, "Port is not an integer from 0 to 65535"),
        ({"MTU": 100}, "MTU is not an integer from 576 to 65535"),
        ({"DirectRouting": "yes"}, "DirectRouting is not true or false"),
        ({"GBP": True}, "GBP is true, and this version sends no group policy"),
    ],
)
def test_options_that_cannot_be_used_say_why(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match="^" + reason):
        Vxlan().host_objects(this_host(**options))


def test_what_is_published_is_flannels_backend_data_byte_for_byte() -> None:
    published = own(this_host(VNI=7)).published
    assert published is not None
    assert published.text == '{"VNI":7,"VtepMAC":"02:01:23:45:67:89"}'


def test_a_peer_is_a_route_a_neighbour_and_a_forwarding_entry() -> None:
    found = objects(Vxlan().peer_objects(peer(), this_host()))
    assert found.objects == (
        Route(
            destination=IPv4Network("10.65.0.0/16"),
            gateway=IPv4Address("10.65.0.0"),
            link="hm-vxlan",
            prefsrc=IPv4Address("10.64.0.0"),
            onlink=True,
            protocol=140,
        ),
        Neighbour(link="hm-vxlan", address=IPv4Address("10.65.0.0"), mac="82:4b:b6:2f:54:4e"),
        FdbEntry(
            link="hm-vxlan",
            mac="82:4b:b6:2f:54:4e",
            destination=IPv4Address("198.51.100.9"),
        ),
    )
    assert found.ingress == ("hm-vxlan",)


def test_direct_routing_is_for_peers_on_the_link() -> None:
    direct = this_host(DirectRouting=True)
    (route,) = objects(Vxlan().peer_objects(peer("192.0.2.9"), direct)).objects
    assert isinstance(route, Route)
    assert (str(route.gateway), route.link, route.prefsrc) == ("192.0.2.9", "eth0", None)
    assert len(objects(Vxlan().peer_objects(peer(), direct)).objects) == 3


@pytest.mark.parametrize(
    ("own_link", "peers_link", "direct"),
    [("", "", True), ("a", "a", True), ("a", "b", False), ("", "b", False), ("a", "", False)],
)
def test_direct_routing_does_not_guess_across_segments_of_one_range(
    own_link: str, peers_link: str, *, direct: bool
) -> None:
    host = this_host(DirectRouting=True)
    host = replace(host, uplink=replace(host.uplink, link=own_link))
    proper = BackendData.of({"VNI": 1, "VtepMAC": vtep_mac(OTHER)})
    lease = replace(peer("192.0.2.9", proper, OTHER), link=peers_link)
    assert (len(objects(Vxlan().peer_objects(lease, host)).objects) == 1) == direct
    flannels = replace(lease, host_id=None)
    assert len(objects(Vxlan().peer_objects(flannels, host)).objects) == 1


def test_a_peer_on_the_link_may_deliver_by_either_link() -> None:
    """Hosts do not change from one to the other in the same millisecond."""
    for direct in (False, True):
        host = this_host(DirectRouting=direct)
        found = objects(Vxlan().peer_objects(peer("192.0.2.9"), host))
        assert set(found.ingress) == {"hm-vxlan", "eth0"}


def test_promise_8_a_host_cannot_claim_the_mac_of_another() -> None:
    forged = BackendData.of({"VNI": 1, "VtepMAC": vtep_mac(ME)})
    with pytest.raises(ValueError, match="VtepMAC is not that of its host id"):
        Vxlan().peer_objects(peer(data=forged, host_id=OTHER), this_host())
    proper = BackendData.of({"VNI": 1, "VtepMAC": vtep_mac(OTHER)})
    objects(Vxlan().peer_objects(peer(data=proper, host_id=OTHER), this_host()))


def test_a_route_is_no_larger_than_the_peers_uplink() -> None:
    for address, left in (("198.51.100.9", 1350), ("192.0.2.9", 1400)):
        for mtu, wanted in ((1400, left), (1500, 0), (9000, 0), (0, 0), (10, 0)):
            lease = replace(peer(address), mtu=mtu)
            found = objects(Vxlan().peer_objects(lease, this_host(DirectRouting=True)))
            (route,) = (each for each in found.objects if isinstance(each, Route))
            assert route.mtu == wanted


def test_a_peer_with_the_own_node_address_gets_nothing() -> None:
    found = Vxlan().peer_objects(peer("192.0.2.1"), this_host())
    assert isinstance(found, Condition)
    assert found.name == "peer-same-address"


@pytest.mark.parametrize(
    ("mtu", "options", "wanted"),
    [(1500, {}, 1450), (9000, {}, 8950), (1280, {}, 1230), (9000, {"MTU": 1500}, 1450)],
)
def test_containers_get_what_the_tunnel_leaves(
    mtu: int, options: dict[str, object], wanted: int
) -> None:
    config = replace(CONFIG, backend_options=BackendData.of(options))
    assert container_mtu(replace(UPLINK, mtu=mtu), config) == wanted
    accepting = replace(config, backend="host-gw", accepted=BackendChoice("vxlan"))
    assert container_mtu(replace(UPLINK, mtu=mtu), accepting) <= mtu - 50


def test_options_that_cannot_be_used_leave_containers_the_uplinks_mtu_less_the_headers() -> None:
    config = replace(CONFIG, backend_options=BackendData.of({"MTU": "large"}))
    assert container_mtu(UPLINK, config) == 1450
