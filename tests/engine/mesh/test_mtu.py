"""Largest packets through tunnels between real dockerds: transfers arrive as they were sent."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.underlay.topology import TWO_LANS
from hostmesh_lab.wait import wait_until

from tests.engine.mesh.test_vxlan import inside, transferred, web

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(600)]

OVERHEAD = {"vxlan": 50, "wireguard": 80}


@pytest.mark.parametrize("backend", OVERHEAD)
@pytest.mark.parametrize(
    ("mtu", "far_mtu"), [(1280, 1280), (1500, 1500), (9000, 9000), (9000, 1500), (1500, 1280)]
)
def test_every_mtu_carries_what_containers_send(backend: str, mtu: int, far_mtu: int) -> None:
    links = (replace(TWO_LANS.first, mtu=mtu), replace(TWO_LANS.links[1], mtu=far_mtu))
    options = LabOptions(
        name=f"{backend[0]}mtu{mtu}{far_mtu}",
        hosts=2,
        topology=replace(TWO_LANS, links=links),
        backend={"Type": backend},
    )
    with Lab.up(options) as lab:
        lab.wait_ready(90)
        one, far = lab.hosts["host1"], lab.hosts["host2"]
        addresses = {host.name: web(host) for host in (one, far)}
        assert transferred(far, one, addresses["host2"])
        assert transferred(one, far, addresses["host1"])
        largest = min(mtu, far_mtu) - OVERHEAD[backend]
        ping = ("ping", "-c", "2", "-W", "1", "-M", "do", "-s")
        for host, target in ((one, addresses["host2"]), (far, addresses["host1"])):
            assert inside(host, "web", *ping, str(largest - 28), target)[0] == 0
            assert inside(host, "web", *ping, str(largest - 27), target)[0] != 0
        assert IPv4Address(addresses["host1"]) in IPv4Network(one.lease() or "")
        if mtu == far_mtu == 1500:
            segments_fit_where_nothing_says_that_packets_are_too_large(one, far)


def segments_fit_where_nothing_says_that_packets_are_too_large(one: Host, far: Host) -> None:
    """Both containers have the uplink's MTU, and hear no "fragmentation needed"."""
    made = ("-o", "com.docker.network.driver.mtu=1500", "--label", "hostmesh.access=open")
    for host in (one, far):
        host.remove_container("web")
        host.docker("network", "create", *made, "old")
        host.start_container("web", network="old")
        deaf = ("iptables", "-A", "INPUT", "-p", "icmp", "-j", "DROP")
        assert inside(host, "web", *deaf)[0] == 0
    address = str(far.container_address("web"))
    wait_until(
        lambda: one.fetch(f"http://{address}/", container="web"), 20, "the network to be open"
    )
    assert transferred(far, one, address)
