"""`agentctl doctor --probe` asks a real member across a real link, without an agent of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns.mesh.stage import Node, Stage
from tests.waiting import eventually, remarks

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage(2)
    try:
        made.create_mesh()
        node = made.nodes[0]
        node.start()
        eventually(node.subnet, 30)
        yield made
    finally:
        made.close()


def finding(node: Node, *flags: str, check: str = "underlay") -> tuple[int, dict[str, Any]]:
    done = node.ctl("doctor", "-o", "json", *flags)
    assert done.returncode in {0, 1}, done.stderr
    document = json.loads(done.stdout)
    return done.returncode, next(each for each in document["checks"] if each["check"] == check)


def leases(stage: Stage) -> int:
    return stage.etcdctl("get", "--prefix", "/hostmesh/subnets/", "--keys-only").stdout.count(
        "/10."
    )


def memories(stage: Stage) -> int:
    return len(stage.etcdctl("get", "--prefix", "/hostmesh/memory/", "--keys-only").stdout.split())


def test_a_stranger_is_told_how_to_ask_and_a_probe_gives_its_subnet_back(stage: Stage) -> None:
    node = stage.nodes[1]
    _, found = finding(node)
    assert found["state"] == "unknown"
    assert "agentctl doctor --probe" in found["hint"]
    status, found = finding(node, "--probe")
    assert (status, found["state"]) == (0, "ok"), found
    assert "192.0.2.1 answers to 10." in found["found"]
    assert leases(stage) == 1
    assert node.host.ip("route show proto 140") == ""
    assert memories(stage) == 1  # nothing is left of it in etcd, not for 30 days either


def test_a_probe_changes_nothing_of_what_is_known_of_a_host(stage: Stage) -> None:
    """Promise 2: one that has left is remembered as long as before, with the same subnet."""
    node = stage.nodes[1]
    node.start()
    eventually(node.subnet, 30)
    assert node.ctl("leave").returncode == 0
    node.stop()
    before = stage.etcdctl("get", "--prefix", "/hostmesh/memory/", "-w", "json").stdout
    assert memories(stage) == 2
    _, found = finding(node, "--probe")
    assert found["state"] == "ok", found
    assert leases(stage) == 1
    after = stage.etcdctl("get", "--prefix", "/hostmesh/memory/", "-w", "json").stdout
    assert json.loads(after)["kvs"] == json.loads(before)["kvs"]


def test_beside_an_agent_nothing_is_claimed(stage: Stage) -> None:
    """It may claim at any moment; what is given back here would be its own."""
    node = stage.nodes[1]
    node.start()  # it has left, so it has no subnet
    try:
        _, found = finding(node, "--probe")
    finally:
        node.stop()
    assert found["state"] == "unknown"
    assert "an agent runs here" in found["found"]


def test_promise_5_the_lease_of_a_flannel_on_this_host_is_used_and_not_given_back(
    stage: Stage,
) -> None:
    key, value = "/hostmesh/subnets/10.99.7.0-24", {"PublicIP": stage.nodes[1].address,
                                                    "BackendType": "host-gw"}  # fmt: skip
    assert stage.etcdctl("put", key, json.dumps(value)).returncode == 0
    try:
        _, found = finding(stage.nodes[1], "--probe")
        there = stage.etcdctl("get", key).stdout
    finally:
        stage.etcdctl("del", key)
    assert json.loads(there.splitlines()[1]) == value
    assert found["state"] == "ok", found
    assert "answers to 10.99.7.2" in found["found"]


def test_without_root_it_says_what_it_cannot_ask_and_claims_nothing(stage: Stage) -> None:
    revision = stage.etcdctl("get", "/hostmesh/config", "-w", "json").stdout
    done = stage.nodes[1].ctl("doctor", "--probe", "-o", "json", user=65534)
    assert (done.returncode, remarks(done.stderr)) == (0, "")
    found = {each["check"]: each for each in json.loads(done.stdout)["checks"]}
    for check in ("root", "underlay"):
        assert found[check]["state"] == "unknown"
        assert found[check]["found"].startswith("needs root:")
        assert "not tested" in found[check]["found"]
    assert found["peers"]["state"] == found["subnet"]["state"] == "ok"
    after = stage.etcdctl("get", "/hostmesh/config", "-w", "json").stdout
    assert json.loads(after)["header"]["revision"] == json.loads(revision)["header"]["revision"]


def test_an_underlay_that_drops_foreign_sources_keeps_the_host_out(stage: Stage) -> None:
    member = stage.nodes[0].host
    rule = ["PREROUTING", "-p", "icmp", "!", "-s", "192.0.2.0/24", "-j", "DROP"]
    member.call(subprocess.run, ["iptables", "-t", "raw", "-I", *rule], check=True)
    try:
        status, found = finding(stage.nodes[1], "--probe")
    finally:
        member.call(subprocess.run, ["iptables", "-t", "raw", "-D", *rule], check=True)
    assert (status, found["state"]) == (1, "fail")
    assert "dropped on the way" in found["found"]
    assert "source check" in found["hint"]
    assert leases(stage) == 1


def test_the_text_fits_the_terminal_and_ends_with_what_joining_would_do(stage: Stage) -> None:
    done = stage.nodes[1].ctl("doctor", environ={"COLUMNS": "80"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    summary = done.stdout.partition("\n\n")[2].splitlines()
    assert summary[:2] == ["this host can join; not tested: underlay", "joining would:"]
    assert "claim 10." in summary[2] or any("claim 10." in line for line in summary)
