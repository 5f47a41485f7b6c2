"""A mesh that grows, gets smaller subnets for new hosts, and moves to another CIDR.

All under traffic. The tests build on one another: each goes on where the one before it ends, and
runs it where it was not selected.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import ip_interface, ip_network

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.capture import Pinger
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

from agent.errors import Refused

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

LAB = LabOptions(
    name="moving",
    hosts=2,
    # Nothing is deleted in the first grace time of an agent.
    host=HostOptions(reject_forward=True, settings={"lease": {"empty_cluster_grace_s": 3}}),
    cidr="10.64.0.0/12",
)
FIRST, LARGER, NEW = "10.64.0.0/12", "10.64.0.0/11", "10.32.0.0/12"
_STAYS = ("--restart", "always")


def destinations(host: Host) -> set[str]:
    return {each["dst"] for each in host.mesh_routes()}


def rules(host: Host) -> str:
    return "\n".join(line for table in ("raw", "filter", "nat") for line in host.iptables(table))


def held(host: Host) -> set[str]:
    return {each["subnet"] for each in host.leases() if each["host_name"] == host.name}


def docker0(host: Host) -> str:
    return "".join(host.addresses("docker0")[:1])


def is_new(address: object) -> bool:
    """Whether an address or network lies in the mesh's new CIDR."""
    return bool(address) and ip_interface(str(address)).network.subnet_of(ip_network(NEW))  # type: ignore[arg-type]


def on_all(
    hosts: Iterable[Host], true: Callable[[Host], object], what: str, timeout_s: float = 10
) -> None:
    for host in hosts:
        wait_until(partial(true, host), timeout_s, f"{what} on {host.name}")


def test_a_larger_cidr_and_another_length_under_a_running_ping(mesh: Lab) -> None:
    first, second = mesh.hosts["host1"], mesh.hosts["host2"]
    web = first.start_container("web", options=_STAYS)
    ping = Pinger(second, web, every_s=0.05)
    ping.wait_reply(10, "host1")
    subnets = held(first), held(second)
    grown = first.agentctl("config", "set", "--cidr", LARGER, "--subnet-len", "20", "-o", "json")
    assert json.loads(grown.stdout)["changed"]
    both = (first, second)
    on_all(both, lambda host: LARGER in destinations(host), "the larger aggregate")
    on_all(both, lambda host: FIRST not in destinations(host), "the smaller one gone")
    on_all(both, lambda host: f"-s {LARGER}" in rules(host), "rules for all of it")
    on_all(both, lambda host: f"-s {FIRST}" not in rules(host), "and for nothing else")
    assert (held(first), held(second)) == subnets
    newcomer = mesh.join()
    wait_until(newcomer.ready, 60, "a new host")
    (subnet,) = held(newcomer)
    assert subnet.endswith("/20")
    wait_until(partial(newcomer.ping, web), 10, "it to reach host1")
    ping.stop()
    assert ping.missed() == []


def test_promise_3_a_move_begins_and_cuts_nobody_off(mesh: Lab) -> None:
    """A host without containers moves at once; the others hold two subnets and wait."""
    if "host3" not in mesh.hosts:
        test_a_larger_cidr_and_another_length_under_a_running_ping(mesh)
    one, two, three = (mesh.hosts[f"host{n}"] for n in (1, 2, 3))
    two.docker("network", "create", "app")
    two.start_container("inner", network="app", options=_STAYS)
    web = one.container_address("web")
    ping = Pinger(two, web, every_s=0.05)
    ping.wait_reply(10, "host1")
    refused = one.agentctl("config", "set", "--cidr", NEW, check=False)
    assert refused.returncode == Refused.exit_code, "not without --move"
    said = one.agentctl("config", "set", "--cidr", NEW, "--move").stdout
    assert "stays in use until its hosts have moved" in said
    wait_until(
        lambda: is_new(docker0(three)) and len(held(three)) == 1 and three.ready(),
        90,
        "host3 to have moved",
    )
    both = (one, two)
    on_all(both, lambda host: len(held(host)) == 2, "two subnets")
    on_all(both, Host.ready, "the host ready all the same")
    on_all(both, lambda host: {LARGER, NEW} <= destinations(host), "both aggregates")
    on_all(both, lambda host: f"-s {LARGER}" in rules(host), "rules for the old")
    on_all(both, lambda host: f"-s {NEW}" in rules(host), "rules for the new")
    for host in mesh.hosts.values():
        wait_until(lambda: "2 still hold" in host.conditions()["mesh-moving"]["cause"], 10, "it")  # noqa: B023 - waited for at once
    assert "still there: host" in one.agentctl("leases").stdout
    finish = one.agentctl("config", "set", "--finish", check=False)
    assert finish.returncode == Refused.exit_code
    assert is_new(three.start_container("fresh", options=_STAYS))
    fresh = three.container_address("fresh")
    wait_until(partial(one.ping, fresh, container="web"), 10, "old to reach new")
    wait_until(partial(three.ping, web, container="fresh"), 10, "new to reach old")
    ping.stop()
    assert ping.missed() == []


@pytest.mark.full
def test_promise_7_a_host_moves_by_word_and_keeps_what_docker_networks_need(mesh: Lab) -> None:
    if NEW not in destinations(mesh.hosts["host1"]):
        test_promise_3_a_move_begins_and_cuts_nobody_off(mesh)
    one, two, three = (mesh.hosts[f"host{n}"] for n in (1, 2, 3))
    ping = Pinger(three, one.container_address("web"), every_s=0.05)
    ping.wait_reply(10, "host1")
    two.agentctl("docker", "restart", "--now", "--yes", timeout_s=180)
    wait_until(lambda: is_new(docker0(two)), 60, "host2's docker0 in the new")
    assert "app (" in two.wait_condition("host-not-moved")["cause"]
    assert len(held(two)) == 2, "a network is still in the old one"
    wait_until(lambda: three.ping(two.container_address("inner")), 30, "which is still reached")
    two.remove_container("inner")
    two.docker("network", "rm", "app")
    wait_until(lambda: len(held(two)) == 1, 40, "host2 to give the old subnet back")
    two.docker("network", "create", "app")
    assert is_new(two.start_container("inner", network="app"))
    wait_until(partial(one.ping, two.container_address("inner")), 20, "it to be reached there")
    ping.stop()
    assert ping.missed() == []


@pytest.mark.full
def test_promise_6_the_last_host_is_killed_in_the_middle_and_the_old_cidr_ends(mesh: Lab) -> None:
    if not is_new(docker0(mesh.hosts["host2"])):
        test_promise_7_a_host_moves_by_word_and_keeps_what_docker_networks_need(mesh)
    one, two, three = (mesh.hosts[f"host{n}"] for n in (1, 2, 3))
    ping = Pinger(three, two.container_address("inner"), every_s=0.05)
    ping.wait_reply(10, "host2")
    before = held(one)
    one.kill_agent()
    wait_until(one.ready, 30, "the agent to be back")
    assert held(one) == before
    one.agentctl("docker", "restart", "--now", "--yes", timeout_s=180)
    wait_until(lambda: len(held(one)) == 1, 60, "host1 to have moved")
    web = wait_until(lambda: one.container_address("web"), 30, "its container to be back")
    assert is_new(web)
    wait_until(partial(three.ping, web, container="fresh"), 20, "host1's container there")
    assert "still there: no host" in one.agentctl("leases").stdout
    one.agentctl("config", "set", "--finish")
    every = mesh.hosts.values()
    on_all(every, lambda host: LARGER not in destinations(host), "the old aggregate gone")
    on_all(every, lambda host: "10.64." not in rules(host), "the old gone from the rules")
    for host in every:
        assert all(map(is_new, destinations(host)))
    ping.stop()
    assert ping.missed() == []
    mesh.wait_ready(60)
