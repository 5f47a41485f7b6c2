"""Networks of records with real agents: what happens to them on one host, and to the host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

NEW = "10.32.0.0/12"
LAB = LabOptions(
    name="networks",
    hosts=2,
    # Nothing is deleted in the first grace time of an agent.
    host=HostOptions(settings={"lease": {"empty_cluster_grace_s": 3}}),
    cidr="10.64.0.0/12",
)
LAB_LAST = True  # the mesh's level stays, and it moves


@pytest.fixture(autouse=True)
def level(mesh: Lab) -> None:
    """Let the mesh have networks; the lab's config is as 0.1 made it."""
    one = mesh.hosts["host1"]

    def raised() -> bool:
        return one.agentctl("config", "set", "--level", "3", check=False).returncode == 0

    wait_until(raised, 20, "level 3")


def subnet(host: Host, name: str = "shop") -> str:
    """Return the subnet of a Docker network, "" where there is none or Docker does not answer."""
    shown = host.docker("network", "inspect", name, check=False)
    if shown.returncode != 0:
        return ""
    return str(json.loads(shown.stdout)[0]["IPAM"]["Config"][0]["Subnet"])


def is_new(text: str) -> bool:
    """Whether a subnet lies in the range that the mesh moves to."""
    return bool(text) and ip_network(text).subnet_of(ip_network(NEW))  # type: ignore[arg-type]


def held(host: Host) -> list[str]:
    return [each["subnet"] for each in host.leases() if each["host_name"] == host.name]


def slices(mesh: Lab) -> list[str]:
    """Return the keys of all slices."""
    return mesh.etcdctl("get", "--prefix", "--keys-only", "/hostmesh/slices/").split()


def wait_subnet(host: Host, wanted: str) -> None:
    what = f"network shop on {host.name}: {wanted or 'none'}"
    wait_until(lambda: subnet(host) == wanted, 40, what)


@contextmanager
def shop(mesh: Lab) -> Iterator[dict[str, str]]:
    """Make mesh network shop on both hosts; yield its subnets by host."""
    one = mesh.hosts["host1"]
    one.agentctl("network", "create", "shop", timeout_s=60)
    try:
        wait_until(lambda: all(subnet(each) for each in mesh.hosts.values()), 40, "shop everywhere")
        wait_until(lambda: len(slices(mesh)) == 2, 20, "both slices in etcd")
        yield {name: subnet(host) for name, host in mesh.hosts.items()}
    finally:
        one.agentctl("network", "rm", "shop", check=False, timeout_s=60)
        for host in mesh.hosts.values():
            wait_subnet(host, "")
        wait_until(lambda: not slices(mesh), 20, "no slice in etcd")


def test_promise_2_a_network_keeps_its_subnet_whatever_happens_on_one_host(mesh: Lab) -> None:
    one = mesh.hosts["host1"]
    with shop(mesh) as subnets:
        wanted = subnets["host1"]
        one.docker("network", "rm", "shop")
        wait_subnet(one, wanted)
        one.stop_agent()
        one.docker("network", "rm", "shop")
        one.start_agent()
        wait_subnet(one, wanted)
        one.kill_agent()
        one.docker("network", "rm", "shop", check=False)
        wait_until(one.ready, 40, "the agent after its kill")
        wait_subnet(one, wanted)
        one.service("restart", "docker")
        wait_subnet(one, wanted)
        one.docker("network", "prune", "-f")
        wait_subnet(one, wanted)
        assert subnet(mesh.hosts["host2"]) == subnets["host2"]


@pytest.mark.full
def test_a_removed_network_stays_where_it_is_used_until_it_is_not(mesh: Lab) -> None:
    one, two = mesh.hosts["host1"], mesh.hosts["host2"]
    with shop(mesh) as subnets:
        two.start_container("uses", network="shop")
        two.docker("stop", "-t0", "uses")
        one.agentctl("network", "rm", "shop", timeout_s=60, check=False)
        wait_subnet(one, "")
        assert "uses" in two.wait_condition("network-in-use")["cause"]
        assert subnet(two) == subnets["host2"]
        two.docker("rm", "uses")
        wait_subnet(two, "")
        wait_until(lambda: "network-in-use" not in two.conditions(), 20, "the condition's end")


@pytest.mark.full
def test_promise_5_a_network_of_that_name_without_the_label_stays_the_operators(mesh: Lab) -> None:
    one, two = mesh.hosts["host1"], mesh.hosts["host2"]
    two.docker("network", "create", "--subnet", "172.30.0.0/24", "shop")
    try:
        one.agentctl("network", "create", "shop", check=False, timeout_s=60)
        assert two.wait_condition("network-name-taken")["subject"] == "shop"
        assert subnet(two) == "172.30.0.0/24"
        assert len(slices(mesh)) == 1
        two.docker("network", "rm", "shop")
        wait_until(lambda: subnet(two).startswith("10."), 40, "the mesh's network")
    finally:
        one.agentctl("network", "rm", "shop", check=False, timeout_s=60)
        for host in (one, two):
            wait_subnet(host, "")


@pytest.mark.full
def test_a_move_of_the_mesh_takes_networks_along_where_nothing_is_attached(mesh: Lab) -> None:
    one, two = mesh.hosts["host1"], mesh.hosts["host2"]
    with shop(mesh):
        two.start_container("uses", network="shop")
        two.docker("stop", "-t0", "uses")
        one.agentctl("config", "set", "--cidr", NEW, "--move")
        wait_until(lambda: is_new(subnet(one)), 120, "the network of host1 in its new lease")
        wait_until(lambda: len(held(one)) == 1, 30, "host1 to give its previous lease up")
        condition = two.wait_condition("network-in-use", 60)
        assert "uses" in condition["cause"]
        assert not is_new(subnet(two))
        refused = one.agentctl("config", "set", "--finish", check=False)
        assert refused.returncode != 0
        assert "host2" in refused.stderr
        two.docker("rm", "uses")
        wait_until(lambda: is_new(subnet(two)), 60, "the network of host2 in its new lease")
        wait_until(lambda: len(held(two)) == 1, 30, "host2 to give its previous lease up")
        one.agentctl("config", "set", "--finish")
        published = mesh.etcdctl("get", "--prefix", "--print-value-only", "/hostmesh/slices/")
        assert published.count("10.3") + published.count("10.4") == 2
