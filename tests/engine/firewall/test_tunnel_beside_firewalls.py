"""ufw and firewalld on hosts whose packets travel in VXLAN: the port is open to the mesh."""

from __future__ import annotations

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.wait import wait_until

from tests.engine.firewall.test_firewalld import START, STOP, reached, shell

pytestmark = [pytest.mark.engine, pytest.mark.full]
LAB = LabOptions(name="fwtunnel", hosts=2, packages=["firewalld", "ufw"], backend={"Type": "vxlan"})
LAB_LAST = True


@pytest.fixture(scope="module")
def webs(mesh: Lab) -> dict[str, str]:
    found = {name: host.start_container("web") for name, host in mesh.hosts.items()}
    assert reached(mesh, found) == [True, True, True]
    return found


def tunnels(host: Host) -> bool:
    return any(each["dev"] == "hm-vxlan" for each in host.mesh_routes() if "dev" in each)


def test_ufw_that_denies_what_comes_in_lets_the_tunnel_pass(
    mesh: Lab, webs: dict[str, str]
) -> None:
    hosts = mesh.hosts.values()
    assert all(map(tunnels, hosts))
    try:
        for host in hosts:
            shell(host, "ufw --force enable")
        assert "deny (incoming)" in shell(mesh.hosts["host2"], "ufw status verbose")
        assert reached(mesh, webs) == [True, True, True]
    finally:
        for host in hosts:
            shell(host, "ufw disable")


def test_firewalld_drops_the_tunnel_until_the_conditions_command_is_run(
    mesh: Lab, webs: dict[str, str]
) -> None:
    two = mesh.hosts["host2"]
    shell(two, START)
    assert reached(mesh, webs) == [False, False, False]
    found = two.wait_condition("firewalld-blocks-mesh")
    shell(two, found["hint"].partition(" (or ")[0])
    wait_until(lambda: reached(mesh, webs) == [True, True, True], 20, "containers")
    shell(two, STOP + "; rm /etc/firewalld/zones/trusted.xml")
