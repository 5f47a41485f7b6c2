"""A mesh whose other hosts were replaced: a real agent, a real etcd, the kernel's own routes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.registry.copy import CopyFile
from tests.netns.mesh.stage import Node, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.netns

SUBNETS = "/hostmesh/subnets/"
GRACE_S = 3


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(1, extra=f"[lease]\nempty_cluster_grace_s = {GRACE_S}\n").running() as made:
        yield made


@pytest.fixture
def node(stage: Stage) -> Iterator[Node]:
    """A member beside three flannel hosts, whose leases are in its copy."""
    found = stage.nodes[0]
    for number in (1, 2, 3):
        join(stage, number)
    eventually(lambda: routed(found) == {1, 2, 3}, 20)
    eventually(lambda: all(subnet(number) in copied(found) for number in (1, 2, 3)), 20)
    yield found
    for number in range(1, 10):
        leave(stage, number)
    found.stop()
    found.start()
    eventually(lambda: found.ctl("etcd", "accept").returncode == 0, 20)
    eventually(lambda: routed(found) == set(), 20)


def subnet(number: int) -> str:
    return f"10.126.{number}.0/24"


def join(stage: Stage, number: int) -> None:
    value = json.dumps({"PublicIP": f"192.0.2.{50 + number}", "BackendType": "host-gw"})
    stage.etcdctl("put", SUBNETS + subnet(number).replace("/", "-"), value)


def leave(stage: Stage, *numbers: int) -> None:
    for number in numbers:
        stage.etcdctl("del", SUBNETS + subnet(number).replace("/", "-"))


def routed(node: Node) -> set[int]:
    """The flannel hosts whose subnet is routed to them."""
    lines = node.host.ip("route show proto 140").splitlines()
    return {
        number
        for number in range(1, 10)
        if any(f"{subnet(number)} via 192.0.2.{50 + number} " in f"{line} " for line in lines)
    }


def copy_of(node: Node) -> Path:
    return node.folder / "state" / "copy.json"


def copied(node: Node) -> set[str]:
    found = CopyFile(copy_of(node)).peek()
    return {str(each.subnet) for each in found.view.leases} if found else set()


def conditions(node: Node) -> set[str]:
    return {each["name"] for each in node.document("status")["conditions"]}


def alarms(node: Node) -> int:
    return sum(
        '"etcd-alarm"' in line and "condition-raised" in line
        for line in node.log.read_text().splitlines()
    )


def test_promise_4_a_host_that_was_off_while_most_others_were_replaced_joins_them(
    stage: Stage, node: Node
) -> None:
    """Its own lease is there as it was granted, so this is no wiped etcd."""
    raised = alarms(node)
    node.stop()
    leave(stage, 1, 2, 3)
    for number in (4, 5, 6):
        join(stage, number)
    node.start()
    eventually(lambda: {4, 5, 6} <= routed(node), 10)
    assert {1, 2, 3} <= routed(node), "deletions wait for hosts that are about to come back"
    eventually(lambda: routed(node) == {4, 5, 6}, 20)
    assert "etcd-alarm" not in conditions(node)
    assert alarms(node) == raised


def test_a_copy_older_than_a_lease_lasts_delays_no_newer_view(stage: Stage, node: Node) -> None:
    """No lease in it is left, the own one included; it raises no alarm over that."""
    raised = alarms(node)
    node.stop()
    old = CopyFile(copy_of(node)).peek()
    assert old is not None
    two_days_ago = time.time() - 2 * 86_400
    CopyFile(copy_of(node), wall_clock=lambda: two_days_ago).save(view=old.view, lease=old.lease)
    stage.etcdctl("del", "--prefix", SUBNETS)
    for number in (4, 5, 6):
        join(stage, number)
    node.start()
    eventually(lambda: {4, 5, 6} <= routed(node), 10)
    eventually(lambda: routed(node) == {4, 5, 6}, 20)
    assert alarms(node) == raised


def test_promise_4_during_an_alarm_hosts_that_are_new_are_routed_and_none_is_deleted(
    stage: Stage, node: Node
) -> None:
    """The same for a host that was there: every lease goes at once, then new hosts come."""
    stage.etcdctl("del", "--prefix", SUBNETS)
    eventually(lambda: "etcd-alarm" in conditions(node), 10)
    join(stage, 7)
    join(stage, 8)
    eventually(lambda: routed(node) == {1, 2, 3, 7, 8}, 10)
    until_s = time.monotonic() + 2 * GRACE_S
    while time.monotonic() < until_s:
        assert routed(node) == {1, 2, 3, 7, 8}
    assert "etcd-alarm" in conditions(node)
    assert "10.126.7.0/24" not in copied(node), "a restart must not end the alarm"
    assert node.ctl("etcd", "accept").returncode == 0
    eventually(lambda: routed(node) == {7, 8}, 10)


def test_a_host_that_leaves_and_joins_again_has_repaired_nothing(node: Node) -> None:
    """Its routes went with its leave; that they are missing at the join is nothing to repair."""

    def repairs() -> tuple[int, int]:
        events = node.document("events")["events"]
        repaired = sum(each["kind"] == "route-repaired" for each in events)
        return node.document("status")["repairs"]["count"], repaired

    before = repairs()
    assert node.ctl("leave").returncode == 0
    eventually(lambda: routed(node) == set(), 10)
    assert node.ctl("join").returncode == 0
    eventually(lambda: routed(node) == {1, 2, 3}, 20)
    assert repairs() == before
    node.host.ip(f"route del {subnet(1)} proto 140")
    eventually(lambda: repairs() == (before[0] + 1, before[1] + 1), 10)
