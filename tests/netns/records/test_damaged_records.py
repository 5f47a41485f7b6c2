"""A record of a live host is damaged in etcd: real agents, the kernel's routes, packets on the way.

One unreadable field used to cost the host every peer until an operator repaired the key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.netns.mesh.stage import Node, Stage
from tests.netns.netlab import Pinger
from tests.waiting import eventually

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(2).running() as made:
        yield made


def key(node: Node) -> str:
    return "/hostmesh/subnets/" + node.subnet().replace("/", "-")


def value(stage: Stage, node: Node) -> str:
    return stage.etcdctl("get", "--print-value-only", key(node)).stdout.strip()


def conditions(node: Node) -> set[str]:
    return {each["name"] for each in node.document("status")["conditions"]}


def _send_more(pinger: Pinger) -> None:
    until = pinger.sent + 50
    eventually(lambda: pinger.sent > until, 10)


def readable(stage: Stage, node: Node) -> bool:
    try:
        found = json.loads(value(stage, node))
    except ValueError:
        return False
    return bool(found["PublicIP"] == node.address)


@pytest.mark.parametrize(
    ("was", "damaged"), [('"TTL":', '"TTL":"x","was":'), ('"PublicIP":"', '"PublicIP":"300.')]
)
def test_promise_2_a_damaged_lease_is_repaired_at_once_and_peers_keep_its_route(
    stage: Stage, was: str, damaged: str
) -> None:
    hit, peer = stage.nodes
    subnet = hit.subnet()
    address = subnet.replace(".0/24", ".1")
    hit.host.ip("link add docker0 type bridge", check=False)
    hit.host.ip(f"addr replace {address}/24 dev docker0")
    hit.host.ip("link set docker0 up")
    before = value(stage, hit)
    assert was in before
    pinger = Pinger(peer.host, address, interval_s=0.01)
    _send_more(pinger)
    for _ in range(3):
        stage.etcdctl("put", key(hit), before.replace(was, damaged))
        eventually(lambda: readable(stage, hit), 10)
        _send_more(pinger)
    seen = pinger.stop()
    assert seen.sent > 200
    assert seen.sent - seen.answered <= 2, f"{seen.sent - seen.answered} of {seen.sent} pings lost"
    assert seen.refused == 0
    assert hit.subnet() == subnet
    eventually(lambda: "record-set-aside" not in conditions(peer), 10)
    assert "lease-taken" not in conditions(hit)


def test_a_lease_that_is_damaged_without_end_is_a_condition_and_costs_no_route(
    stage: Stage,
) -> None:
    hit, peer = stage.nodes
    subnet = hit.subnet()

    def contested() -> bool:
        stage.etcdctl("put", key(hit), "{")
        assert f"{subnet} via {hit.address}" in peer.host.ip("route show proto 140")
        return "own-lease-overwritten" in conditions(hit)

    eventually(contested, 30)
    eventually(lambda: readable(stage, hit), 30)
    eventually(lambda: "own-lease-overwritten" not in conditions(hit), 40)
    assert hit.subnet() == subnet
