"""``agentctl check`` on real hosts: green where all is well, and each fault with what to type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

from tests.unit.ctl.schemas import check as check_schema

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

LAB = LabOptions(
    name="check", hosts=3, host=HostOptions(reject_forward=True), backend={"Type": "vxlan"}
)
LAB_LAST = True  # the mesh's level stays

SIGNALS = ("-STOP", "-CONT")
TESTS = {"heartbeat", "host", "path", "mtu", "names", "networks"}


def check(host: Host, *words: str) -> tuple[int, dict[str, Any]]:
    done = host.agentctl("check", *words, "-o", "json", check=False)
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    check_schema("checks" if "--all" in words else "check", document)
    return done.returncode, document


def of_peer(document: dict[str, Any], name: str) -> dict[str, Any]:
    peer = next(each for each in document["peers"] if each["host_name"] == name)
    return {"state": peer["state"], **{each["test"]: each for each in peer["tests"]}}


@pytest.fixture(scope="module")
def with_names(mesh: Lab) -> list[Host]:
    """Every test of a check has something to test: names are on, and network web is there."""
    hosts = list(mesh.hosts.values())
    hosts[0].agentctl("config", "set", "--level", "3")
    hosts[0].agentctl("config", "set", "--names", "on")
    served = "169.254.20.53"
    wait_until(
        lambda: all(served in each.read_file("/etc/docker/daemon.json") for each in hosts),
        120,
        "every daemon.json to have the name servers",
    )
    # Each Docker restarts once for them, one after the other.
    wait_until(
        lambda: not any("docker-restart-pending" in each.conditions() for each in hosts),
        120,
        "every Docker to use them",
    )
    mesh.wait_ready(60)
    hosts[0].agentctl("network", "create", "web")
    wait_until(
        lambda: all("web" in each.docker("network", "ls").stdout.split() for each in hosts),
        60,
        "every host to have network web",
    )
    return hosts


@pytest.fixture(scope="module")
def hosts(with_names: list[Host]) -> list[Host]:
    """Each host has a container on docker0 and one on web, and finds those of the others."""
    for host in with_names:
        host.start_container(f"c-{host.name}")
        host.start_container(f"w-{host.name}", network="web")
    wait_until(
        lambda: all(check(each)[1]["state"] == "ok" for each in with_names),
        60,
        "three hosts without a fault: names take a moment to spread",
    )
    return with_names


def test_promise_9_without_containers_nothing_fails_and_nothing_is_green(
    with_names: list[Host],
) -> None:
    status, document = check(with_names[0])
    assert (status, document["state"], document["counts"]["untested"]) == (0, "untested", 2)
    assert document["untested"] == "no container runs here"
    assert "FORWARD there is not tested" in of_peer(document, "host2")["path"]["text"]


def test_a_healthy_mesh_is_green_in_every_test(hosts: list[Host]) -> None:
    one, two, three = hosts
    _, document = check(one)
    for name in ("host2", "host3"):
        tests = of_peer(document, name)
        assert {test: tests[test]["result"] for test in TESTS} == dict.fromkeys(TESTS, "ok")
        assert "container c-host1" in tests["path"]["text"]
        assert tests["mtu"]["text"].startswith("1450 bytes")
        assert tests["names"]["text"].startswith(f"{name}.host.hostmesh.internal, c-{name}.")
        assert tests["networks"]["text"].startswith("web: ")
    assert [each["result"] for each in document["own"]] == ["ok"]

    status, document = check(two, "--all")
    assert (status, [each["state"] for each in document["hosts"]]) == (0, ["ok"] * 3)
    status, last = check(three, "--last")
    assert (status, last["state"]) == (0, "ok")


def test_a_rule_that_only_containers_meet_is_named(hosts: list[Host]) -> None:
    one, two, three = hosts
    three.run(["iptables", "-I", "DOCKER-USER", "-p", "icmp", "-j", "DROP"])
    status, document = check(one)
    tests = of_peer(document, "host3")
    assert (status, tests["state"], tests["host"]["result"]) == (1, "failed", "ok")
    assert "a rule of host3, or the container, drops it" in tests["path"]["text"]
    assert tests["path"]["hint"].startswith("agentctl trace 10.")
    assert of_peer(document, "host2")["state"] == "ok"
    wait_until(lambda: check(two, "--all")[0] == 1, 30, "host1's check to be published")
    (published,) = (e for e in check(two, "--all")[1]["hosts"] if e["host_name"] == "host1")
    worst = [(each["host_name"], each["failed"]) for each in published["worst"][:1]]
    assert worst == [("host3", ["path", "networks"])]
    three.run(["iptables", "-D", "DOCKER-USER", "-p", "icmp", "-j", "DROP"])


def test_a_name_server_that_hangs_is_named(hosts: list[Host]) -> None:
    one = hosts[0]
    hang, go_on = (["pkill", each, "-f", "--", "--listen 169.254.20.53"] for each in SIGNALS)
    one.run(hang)
    status, document = check(one)
    (own,) = document["own"]
    assert (status, own["result"], document["counts"]["ok"]) == (1, "failed", 2)
    assert own["text"].startswith("the name server at 169.254.20.53 does not answer container c-")
    assert own["hint"].endswith("; systemctl restart hostmesh-dns@169.254.20.53")
    one.run(go_on)


def test_a_host_that_lost_its_power_is_down(mesh: Lab, hosts: list[Host]) -> None:
    one, _, three = hosts
    three.kill()
    status, document = check(one)
    assert (status, of_peer(document, "host3")["state"]) == (1, "down")
    assert of_peer(document, "host2")["state"] == "ok"
    assert document["took_s"] < 10
    three.boot()
    mesh.wait_ready(90)
