"""By which device this host sends to each peer, and how large packets may be."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.mesh.backends.vxlan import vtep_mac
from agent.mesh.ways import OwnDevice, Way, own_device, ways
from agent.mesh.world import World
from agent.model import BackendChoice, BackendData, HostId, Lease
from tests.unit.routes.test_vxlan import CONFIG, ME, UPLINK

pytestmark = pytest.mark.unit


def lease(number: int, node: str, mtu: int = 0) -> Lease:
    host_id = HostId(f"{number:032x}")
    return Lease(
        subnet=IPv4Network(f"10.{64 + number}.0.0/16"),
        node_address=IPv4Address(node),
        backend="vxlan",
        host_id=host_id,
        backend_data=BackendData.of({"VNI": 1, "VtepMAC": vtep_mac(host_id)}),
        mtu=mtu,
    )


NEAR, FAR, SMALL = lease(1, "192.0.2.9"), lease(2, "198.51.100.9"), lease(3, "198.51.100.8", 1400)
REFUSED = replace(lease(4, "198.51.100.7"), backend="host-gw")
WORLD = World(
    host_id=ME,
    config=replace(CONFIG, backend_options=BackendData.of({"DirectRouting": True})),
    own=replace(lease(0, "192.0.2.1"), host_id=ME),
    uplink=UPLINK,
    peers={each.subnet: each for each in (NEAR, FAR, SMALL, REFUSED)},
)


def test_the_way_to_each_peer_that_has_one() -> None:
    assert ways(WORLD) == {
        NEAR.subnet: Way("eth0", direct=True, mtu=1500),
        FAR.subnet: Way("hm-vxlan", direct=False, mtu=1450),
        SMALL.subnet: Way("hm-vxlan", direct=False, mtu=1350),
    }


def test_a_silent_peer_has_none() -> None:
    assert FAR.subnet not in ways(replace(WORLD, dead_subnets=frozenset({FAR.subnet})))


def test_the_own_device_and_what_containers_get_while_the_backend_changes() -> None:
    assert own_device(WORLD) == OwnDevice("hm-vxlan", mtu=1450, container_mtu=1450)
    config = replace(CONFIG, accepted=BackendChoice("wireguard"))
    changing = replace(WORLD, config=config, uplink=replace(UPLINK, wireguard_key="A" * 43 + "="))
    assert own_device(changing) == OwnDevice("hm-vxlan", mtu=1450, container_mtu=1420)
    plain = replace(WORLD, config=replace(CONFIG, backend="host-gw"))
    assert own_device(plain) == OwnDevice("eth0", mtu=1500, container_mtu=1500)
    assert own_device(replace(WORLD, uplink=None)) is None
    assert ways(replace(WORLD, uplink=None)) == {}
