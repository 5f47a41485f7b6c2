"""A stolen account of one host gives no name to another host's address.

As test_forged_slices.py, of containers: real agents, an etcd with roles for each host, and an
attacker who has all that the third host has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Network
from typing import Any

import pytest

from agent.model import LEVEL
from tests.netns.mesh.stage import ETCD, Node
from tests.netns.records.routewatch import watching
from tests.netns.records.test_one_hosts_credentials import Attacker, Scene, ask, staged
from tests.waiting import eventually

pytestmark = pytest.mark.netns

_NET = "shop"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with staged(owners=True, level=LEVEL, names="hostmesh.internal") as stage:
        *honest, third = stage.nodes
        attacker = Attacker(stage, third, honest[0])
        third.stop()
        with watching(honest) as watches:
            yield Scene(stage, watches, attacker)


def endpoint(address: str, *, mesh_network: str = "", name: str = "db", **more: object) -> Any:  # noqa: ANN401 - JSON
    place = {"Name": "front", "Address": address, "Mesh": mesh_network, "Access": "open"}
    place["Aliases"] = ["api", "web"]  # type: ignore[assignment]
    return {"ID": "c" * 64, "Name": name, "Networks": [place], **more}


def inside(subnet: str, index: int = 5) -> str:
    return str(IPv4Network(subnet)[index])


def known(node: Node) -> str:
    """All that a node shows of containers and their names."""
    return json.dumps([ask(node, "containers"), ask(node, "names")])


def _shows(node: Node, name: str) -> bool:
    return name in known(node)


def test_nothing_of_another_host_can_be_published(scene: Scene) -> None:
    a = scene.attacker
    for key in (
        f"slices/{a.victim_id}/{_NET}",
        f"endpoints/{a.victim_id}/{'c' * 16}",
        f"slices/{a.id}x/{_NET}",
        f"networks/{_NET}",
    ):
        assert not a.put(key, {"Subnet": a.subnet}), key
        assert not a.delete(key), key
    assert not a.delete("slices/", "--prefix")
    assert not a.delete("endpoints/", "--prefix")
    scene.unharmed()


@pytest.mark.parametrize("network", ["", _NET])
def test_a_container_has_no_name_at_an_address_of_another_host(scene: Scene, network: str) -> None:
    a = scene.attacker
    half = next(IPv4Network(a.subnet).subnets(new_prefix=25))
    assert a.put(f"slices/{a.id}/{_NET}", {"Subnet": str(half)})
    key = f"endpoints/{a.id}/{'c' * 16}"
    outside = inside(a.subnet, 200) if network else inside(a.victim)
    for address in (outside, a.victim_address, ETCD, "127.0.0.1", "169.254.20.53"):
        assert a.put(key, endpoint(address, mesh_network=network, name="forged"))
        scene.unharmed()
        for watch in scene.watches:
            shown = known(watch.node)
            assert "forged" not in shown, address
    assert a.put(key, endpoint(inside(str(half)), mesh_network=network, name="rightful"))
    for watch in scene.watches:
        eventually(partial(_shows, watch.node, "rightful"), 20)
    assert a.delete(key)
    assert a.delete(f"slices/{a.id}/{_NET}")
    scene.unharmed()


def test_promise_10_a_flood_of_containers_costs_the_one_who_publishes_them(scene: Scene) -> None:
    a = scene.attacker
    for number in range(30):
        found = endpoint(inside(a.subnet), name="flood", ID=f"{number:016x}" + "c" * 48)
        assert a.put(f"endpoints/{a.id}/{number:016x}", found)
    for watch in scene.watches:
        eventually(partial(_shows, watch.node, "flood"), 20)
    for text in ("garbage", "{}", "x" * 5_000):
        assert a.put(f"endpoints/{a.id}/{'d' * 16}", text)
        assert a.put(f"endpoints/{a.id}/nonsense", text)
        scene.unharmed()
    for watch in scene.watches:
        found = ask(watch.node, "status")
        assert not [e for e in found["conditions"] if e["name"] == "agent-thread-failed"]
    assert a.delete(f"endpoints/{a.id}/", "--prefix")
    scene.unharmed()
