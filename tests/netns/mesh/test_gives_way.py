"""A route of another program with a worse metric is used instead of the agent's.

Real agent, etcd and kernel. Given a mesh of two hosts, add an operator's route with a metric where
the agent has one, before it or after it, with the agent alive or killed, and expect packets to
follow the operator's; delete it, and expect the agent's again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns.mesh.stage import Node, Stage
from tests.netns.netlab import Pinger
from tests.netns.routes.scene import shown
from tests.waiting import eventually

pytestmark = pytest.mark.netns

CIDR = "10.64.0.0/10"
FREE = "10.127.255.9"
"""An address of the CIDR that no host has: only the route to the CIDR leads there."""
OPERATORS = "192.0.2.77"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage(2)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def node(stage: Stage) -> Iterator[Node]:
    """The first host; afterwards only its own two routes are there."""
    one = stage.nodes[0]
    yield one
    for route in shown(one.host, f"root {CIDR} proto 186"):
        one.host.ip(f"route del {route} proto 186")
    eventually(lambda: len(shown(one.host)) == 2, 20)


@pytest.fixture
def place(request: pytest.FixtureRequest, stage: Stage) -> tuple[str, str]:
    """The destination of one of our routes, and an address that only this route leads to."""
    peers = stage.nodes[1].subnet()
    return (peers, peers.replace(".0/24", ".5")) if request.param == "peer" else (CIDR, FREE)


def add(node: Node, destination: str, how: str = "metric 100") -> None:
    node.host.ip(f"route add {destination} via {OPERATORS} proto 186 {how}")


def delete(node: Node, destination: str) -> None:
    node.host.ip(f"route del {destination} via {OPERATORS} proto 186")


def has_ours(node: Node, destination: str) -> bool:
    ours = (line.removeprefix("unreachable ") for line in shown(node.host))
    return destination in {line.split()[0] for line in ours}


def conflict(node: Node) -> dict[str, Any]:
    found = (e for e in node.document("status")["conditions"] if e["name"] == "route-conflict")
    return next(found, {})


def gave_way(node: Node, destination: str, address: str) -> None:
    """Ours is absent, packets follow the operator's route, and each page says so."""
    eventually(lambda: not has_ours(node, destination), 20)
    assert f"via {OPERATORS}" in node.host.ip(f"route get {address}")
    found = eventually(lambda: conflict(node), 20)
    assert f"{destination} via {OPERATORS}" in found["cause"]
    assert "bgp (186); it is left alone and used instead of Hostmesh's" in found["cause"]
    diff = node.document("diff")
    assert [each["destination"] for each in diff["conflicts"]] == [destination]
    assert diff["operations"] == []
    rows = {each["destination"]: each["state"] for each in node.document("routes")["routes"]}
    assert rows[destination] == "conflict"
    assert not has_ours(node, destination)


def is_equal(node: Node) -> bool:
    diff = node.document("diff")
    return diff["state"] != "unknown" and not (diff["operations"] or diff["conflicts"])


def is_back(node: Node, destination: str) -> None:
    eventually(lambda: has_ours(node, destination), 5)
    eventually(lambda: not conflict(node), 10)
    assert is_equal(node)


@pytest.mark.parametrize("place", ["peer", "cidr"], indirect=True)
def test_promise_5_a_route_that_comes_after_ours_is_used_instead(
    node: Node, place: tuple[str, str]
) -> None:
    add(node, place[0])
    gave_way(node, *place)
    delete(node, place[0])
    is_back(node, place[0])


@pytest.mark.parametrize(
    "place", ["peer", pytest.param("cidr", marks=pytest.mark.full)], indirect=True
)
def test_promise_6_killed_at_any_time_ours_gives_way_and_comes_back(
    node: Node, place: tuple[str, str]
) -> None:
    """The route comes while the agent is dead, stays over a kill, and goes while it is dead."""
    node.stop(signal.SIGKILL)
    add(node, place[0])
    assert has_ours(node, place[0])
    node.start()
    gave_way(node, *place)
    node.stop(signal.SIGKILL)
    node.start()  # the operator's is there first now
    gave_way(node, *place)
    node.stop(signal.SIGKILL)
    delete(node, place[0])
    node.start()
    eventually(lambda: has_ours(node, place[0]), 20)
    is_back(node, place[0])


def test_promise_5_without_etcd_ours_gives_way_too(stage: Stage, node: Node) -> None:
    """After a restart as well, when all that the agent knows of the mesh is its copy."""
    peers = stage.nodes[1].subnet()
    stage.stop_etcd()
    try:
        add(node, peers)
        eventually(lambda: not has_ours(node, peers), 20)
        delete(node, peers)
        eventually(lambda: has_ours(node, peers), 5)
        node.stop(signal.SIGKILL)
        add(node, peers)
        node.start()
        eventually(lambda: not has_ours(node, peers), 20)
        assert has_ours(node, CIDR)
        delete(node, peers)
        eventually(lambda: has_ours(node, peers), 5)
    finally:
        stage.start_etcd()


def test_promise_6_routes_that_are_used_anyway_or_behind_ours_leave_ours(
    stage: Stage, node: Node
) -> None:
    """A wider one, a narrower one, one for another TOS: no packet to the peer is lost."""
    peers = stage.nodes[1].subnet()
    inside = peers.replace(".0/24", ".5")
    stage.nodes[1].host.ip(f"addr add {inside}/32 dev lo")
    before = shown(node.host)
    beside = {
        "10.0.0.0/8": "metric 0",
        peers.replace(".0/24", ".128/25"): "metric 100",
        peers: "tos 0x10 metric 100",
    }
    node.host.ip("neigh get 192.0.2.2 dev eth0", check=False)
    ping = Pinger(node.host, inside)
    try:
        for destination, how in beside.items():
            add(node, destination, how)
        node.stop(signal.SIGKILL)
        node.start()
        eventually(lambda: is_equal(node), 20)
    finally:
        lost = ping.stop().lost
        for destination, how in beside.items():
            node.host.ip(f"route del {destination} proto 186 {how}")
        stage.nodes[1].host.ip(f"addr del {inside}/32 dev lo")
    assert lost == []
    assert shown(node.host) == before
