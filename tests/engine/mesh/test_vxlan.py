"""vxlan between real dockerds on two LANs whose router knows no container."""

from __future__ import annotations

import re
from ipaddress import IPv4Network

import pytest
from hostmesh_lab.demo import packets
from hostmesh_lab.demo.stage import Stage
from hostmesh_lab.lab import CIDR, Lab, LabOptions
from hostmesh_lab.machines.capture import Capture
from hostmesh_lab.machines.host import Host
from hostmesh_lab.underlay.topology import TWO_LANS
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

LAB = LabOptions(
    name="tunnel",
    hosts=3,
    topology=TWO_LANS,
    backend={"Type": "vxlan", "DirectRouting": True},
)
"""host1 and host3 are on one LAN, host2 is on the other."""
MEGABYTES = 20
_MD5_DIGITS = 32


def web(host: Host, name: str = "web") -> str:
    return str(host.start_container(name))


def inside(host: Host, container: str, *command: str) -> tuple[int, str]:
    """Run one of the host's programs in the network namespace of a container."""
    pid = host.docker("inspect", "-f", "{{.State.Pid}}", container).stdout.strip()
    done = host.run(["nsenter", "-t", pid, "-n", *command], check=False)
    return done.returncode, done.stdout


def transferred(server: Host, client: Host, address: str) -> bool:
    """Whether a file arrives as it was sent."""
    make = f"dd if=/dev/urandom of=/www/file bs=1M count={MEGABYTES} 2>/dev/null; md5sum /www/file"
    sent = server.docker("exec", "web", "sh", "-c", make).stdout.split()[0]
    take = f"wget -q -O - http://{address}/file | md5sum"
    taken = client.docker("exec", "web", "sh", "-c", take, timeout_s=120).stdout.split()[0]
    return len(sent) == _MD5_DIGITS and sent == taken


def test_a_mesh_on_two_lans(mesh: Lab) -> None:
    one, far, near = (mesh.hosts[name] for name in ("host1", "host2", "host3"))
    addresses = {host.name: web(host) for host in (one, far, near)}
    try:
        with Capture(mesh.machine("world"), "eth1") as passed:
            for host in (one, near):
                for peer, other in ((host, far), (far, host)):
                    target = addresses[other.name]
                    seen = peer.fetch(f"http://{target}/cgi-bin/whoami", container="web")
                    assert (seen or "").strip() == addresses[peer.name]
            assert transferred(far, one, addresses["host2"])
            tunnelled = [each for each in passed.packets() if each.ports and each.ports[1] == 8472]
        assert len(tunnelled) > MEGABYTES
        packets.walk(Stage(mesh, print, "vxlan", containers=addresses))
        inner = [each for each in passed.packets() if each.src in IPv4Network(CIDR)]
        assert inner == [], "the router sees no container"
        # Both are on one LAN: no tunnel between them.
        route = next(each for each in one.mesh_routes() if each["dst"] == near.lease())
        assert (route["gateway"], route["dev"]) == (near.address, "eth0")
        assert one.fetch(f"http://{addresses['host3']}/", container="web")
        assert "rp-filter-strict" not in one.conditions()
    finally:
        for host in (one, far, near):
            host.remove_container("web")


def test_containers_with_the_uplinks_mtu_learn_that_the_tunnel_takes_less(mesh: Lab) -> None:
    """As those have it that ran before the mesh became a tunnel."""
    one, far = mesh.hosts["host1"], mesh.hosts["host2"]
    target = web(far)
    one.docker("network", "create", "-o", "com.docker.network.driver.mtu=1500", "old")
    one.start_container("large", network="old")
    try:
        ping = ("ping", "-c", "2", "-W", "1", "-M", "do", "-s")
        status, said = inside(one, "large", *ping, "1472", target)
        assert status != 0
        assert re.search(r"mtu = 1450|mtu=1450", said), said
        assert inside(one, "large", *ping, str(1450 - 28), target)[0] == 0
        assert inside(one, "large", "ping", "-c", "1", "-W", "2", "-s", "3000", target)[0] == 0
        found = one.docker("exec", "large", "wget", "-q", "-O", "-", f"http://{target}/")
        assert found.stdout
    finally:
        far.remove_container("web")
        one.remove_container("large")
        one.docker("network", "rm", "old")
    assert one.docker("network", "inspect", "bridge").stdout.count('"1450"') == 1


@pytest.mark.full
def test_an_uplink_that_changes_its_mtu_is_followed(mesh: Lab) -> None:
    one = mesh.hosts["host1"]
    one.run(["ip", "link", "set", "eth0", "mtu", "1400"])
    try:
        wait_until(
            lambda: "mtu 1350" in one.run(["ip", "link", "show", "hm-vxlan"]).stdout, 10, "the MTU"
        )
    finally:
        one.run(["ip", "link", "set", "eth0", "mtu", "1500"])
    wait_until(
        lambda: "mtu 1450" in one.run(["ip", "link", "show", "hm-vxlan"]).stdout, 10, "the MTU"
    )
