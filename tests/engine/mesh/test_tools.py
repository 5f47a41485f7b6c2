"""Check what an operator's tools show of healthy hosts and of broken ones (promise 9)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

LAB = LabOptions(name="mesh", hosts=3, host=HostOptions(reject_forward=True))

OPEN = "etcd access"
"""The check that warns: the lab's etcd is in the clear."""


def hosts(mesh: Lab) -> list[Host]:
    return [mesh.hosts[f"host{n}"] for n in (1, 2, 3)]


@pytest.fixture(autouse=True)
def _ready_again(mesh: Lab) -> Iterator[None]:
    """Wait until the mesh has healed before the next test starts."""
    yield
    mesh.wait_ready(60)


def doctor(host: Host) -> tuple[int, dict[str, Any]]:
    done = host.agentctl("doctor", "-o", "json", check=False)
    return done.returncode, json.loads(done.stdout)


def test_promise_9_the_doctor_finds_nothing_wrong_with_a_healthy_member(mesh: Lab) -> None:
    first, second, _ = hosts(mesh)
    status, document = doctor(first)
    checks = [each for each in document["checks"] if each["check"] != OPEN]
    wrong = [each for each in checks if each["state"] != "ok"]
    assert (status, document["member"], wrong, document["would"]) == (0, True, [], [])
    shown = second.agentctl("doctor").stdout.splitlines()
    lines = [line for line in shown[:-2] if OPEN not in line and not line.startswith(" ")]
    assert {line.split()[0] for line in lines} == {"ok"}, shown
    assert shown[-1] == "this host is a member; no check fails"


def test_promise_9_the_doctor_names_a_source_check_on_a_members_port(mesh: Lab) -> None:
    host = hosts(mesh)[0]
    with host.source_check():
        done = host.agentctl("doctor", check=False)
    failed = [line for line in done.stdout.splitlines() if line.startswith("fail ")]
    assert (done.returncode, len(failed)) == (1, 1), done.stdout
    assert failed[0].split()[1] == "underlay"
    assert "packets with containers' addresses are dropped on the way" in failed[0]
    assert "hint: clouds: switch the source check off" in done.stdout
    assert "this host is a member; 1 of " in done.stdout


def test_promise_9_without_root_the_doctor_says_what_it_did_not_test(mesh: Lab) -> None:
    host = hosts(mesh)[0]
    as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = host.run([*as_user, "agentctl", "doctor", "-o", "json"], check=False)
    document = json.loads(done.stdout)
    by_state: dict[str, list[str]] = {}
    for each in document["checks"]:
        if each["check"] == OPEN:
            continue
        by_state.setdefault(each["state"], []).append(each["check"])
        if each["state"] != "ok":
            assert each["found"].startswith("needs root:"), each
    assert set(by_state) == {"ok", "unknown"}
    assert set(by_state["unknown"]) == {"root", "underlay", "docker"}
    assert done.returncode == 0


def ping(host: Host, peer: Host) -> tuple[int, dict[str, dict[str, str]]]:
    """Its exit status, and its steps by name."""
    done = host.agentctl("ping", peer.name, "-o", "json", check=False)
    return done.returncode, {each["step"]: each for each in json.loads(done.stdout)["steps"]}


def drawn(host: Host) -> dict[str, str]:
    """Return the state of each peer on the map, by its name."""
    peers = json.loads(host.agentctl("map", "-o", "json").stdout)["peers"]
    return {each["host_name"]: each["state"] for each in peers}


def results(steps: dict[str, dict[str, str]], result: str) -> set[str]:
    return {name for name, each in steps.items() if each["result"] == result}


def test_promise_9_without_a_container_ping_and_map_say_what_is_not_tested(mesh: Lab) -> None:
    host, other, _ = hosts(mesh)
    status, steps = ping(host, other)
    assert (status, results(steps, "failed")) == (0, set())
    assert results(steps, "unknown") == {"docker0", "container"}
    assert "FORWARD of this host is not tested" in steps["docker0"]["text"]
    assert "no container of host2 is known" in steps["container"]["text"]
    assert drawn(host) == {"host2": "untested", "host3": "untested"}
    shown = host.agentctl("map").stdout
    assert "not tested from a container: no container runs here" in shown
    assert "up, not tested: no container known" in shown


@pytest.fixture(scope="module")
def probes(mesh: Lab) -> Iterator[dict[str, str]]:
    """A container on each host that its heartbeat names: host name to address."""
    named = {host.name: str(host.start_container("probe")) for host in hosts(mesh)}
    first = hosts(mesh)[0]

    def known() -> bool:
        leases = json.loads(first.agentctl("leases", "-o", "json").stdout)["leases"]
        return {each["host_name"]: each["container"] for each in leases} == named

    wait_until(known, 45, "heartbeats to name the containers")
    yield named
    for host in hosts(mesh):
        host.remove_container("probe")


def test_promise_9_ping_and_map_are_green_when_containers_reach_containers(
    mesh: Lab, probes: dict[str, str]
) -> None:
    host, other, third = hosts(mesh)
    for peer in (other, third):
        status, steps = ping(host, peer)
        assert (status, results(steps, "ok")) == (0, set(steps)), steps
        assert (
            f"{probes[peer.name]} answers {probes[host.name]}, container probe"
            in (steps["container"]["text"])
        )
    assert drawn(host) == {"host2": "ok", "host3": "ok"}
    assert host.agentctl("map").stdout.count("● host") == 2


def test_promise_9_a_rule_that_drops_the_mesh_on_the_peer_is_red(
    mesh: Lab, probes: dict[str, str]
) -> None:
    host, other, _ = hosts(mesh)
    rule = ["-s", "10.64.0.0/10", "-j", "DROP"]
    other.run(["iptables", "-I", "DOCKER-USER", *rule])
    try:
        status, steps = ping(host, other)
        state = drawn(host)
    finally:
        other.run(["iptables", "-D", "DOCKER-USER", *rule])
    assert (status, results(steps, "failed")) == (1, {"container"}), steps
    trace = f"check the rules on host2: agentctl trace {probes['host1']} {probes['host2']}"
    assert trace in steps["container"]["text"]
    assert state == {"host2": "broken", "host3": "ok"}


@pytest.mark.usefixtures("probes")
def test_promise_9_a_rule_that_drops_the_mesh_here_is_red_and_quoted(mesh: Lab) -> None:
    host, other, _ = hosts(mesh)
    rule = ["-d", "10.64.0.0/10", "-j", "DROP"]
    host.run(["iptables", "-I", "DOCKER-USER", *rule])
    try:
        status, steps = ping(host, other)
        state = drawn(host)
    finally:
        host.run(["iptables", "-D", "DOCKER-USER", *rule])
    assert (status, results(steps, "failed")) == (1, {"rules", "docker0", "container"}), steps
    found = "a rule before Hostmesh's drops it: -A DOCKER-USER -d 10.64.0.0/10"
    assert found in steps["rules"]["text"]
    assert state == {"host2": "broken", "host3": "broken"}
