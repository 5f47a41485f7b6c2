"""wireguard between real dockerds behind NAT: two sites use the same private range."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hostmesh_lab.demo import packets
from hostmesh_lab.demo.stage import Stage
from hostmesh_lab.lab import CIDR, Lab, LabOptions
from hostmesh_lab.machines.capture import Capture
from hostmesh_lab.underlay.topology import NAT
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

LAB = LabOptions(name="wireguard", hosts=3, topology=NAT, backend={"Type": "wireguard"})
"""host2 is behind NAT, host3 behind one that forwards the port; both are 192.168.1.0/24."""
MARKER = "from-a-container"


def test_hosts_behind_nat_reach_each_other_encrypted(mesh: Lab) -> None:
    hosts = [mesh.hosts[f"host{number}"] for number in (1, 2, 3)]
    addresses = {host.name: str(host.start_container("web")) for host in hosts}
    try:
        for host in hosts:
            others = [addresses[each.name] for each in hosts if each is not host]
            wait_until(
                lambda host=host, others=others: all(  # type: ignore[misc] # bound as defaults
                    host.fetch(f"http://{each}/", container="web") for each in others
                ),
                120,
                f"{host.name} to reach every container",
            )
        with Capture(mesh.machine("world"), "eth0") as passed:
            for one in hosts:
                for other in hosts:
                    if one is not other:
                        target = addresses[other.name]
                        seen = one.fetch(f"http://{target}/cgi-bin/whoami", container="web")
                        assert (seen or "").strip() == addresses[one.name]
            assert not [each for each in passed.packets() if each.src in IPv4Network(CIDR)]
        packets.walk(Stage(mesh, print, "wireguard", containers=addresses))
        mtu = hosts[0].docker("network", "inspect", "bridge").stdout
        assert '"1420"' in mtu
    finally:
        for host in hosts:
            host.remove_container("web")


def test_promise_11_containers_send_nothing_to_the_port_of_a_peer(mesh: Lab) -> None:
    one = mesh.hosts["host1"]
    one.start_container("web")
    nodes = [each["node_address"] for each in one.status()["peers"]]
    pid = one.docker("inspect", "-f", "{{.State.Pid}}", "web").stdout.strip()
    try:
        with Capture(one, "eth0", f"udp and udp[4:2] == {8 + len(MARKER)}") as passed:
            for port in (51820, 51821):
                for node in nodes:
                    send = f"printf {MARKER} > /dev/udp/{node}/{port}"
                    one.run(["nsenter", "-t", pid, "-n", "bash", "-c", send])
            wait_until(lambda: len(passed.packets()) >= len(nodes), 20, "those to another port")
        ports = [each.ports[1] for each in passed.packets() if each.ports]
        assert ports == [51821] * len(nodes)
    finally:
        one.remove_container("web")
