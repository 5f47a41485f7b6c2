"""A host that changes from flannel (docs/flannel.md, "Moving host by host"), on a real etcd.

Given flannel's leases of two hosts and its routes in the kernel, start the agent on one, and expect
its subnet to stay, flannel's route to be left and named, and ours in its place once it is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.netns.mesh.stage import Node, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.netns

OWN, PEERS = "10.64.5.0/24", "10.64.9.0/24"


@pytest.fixture
def node() -> Iterator[Node]:
    stage = Stage(1)
    try:
        stage.create_mesh()
        for subnet, address in ((OWN, "192.0.2.1"), (PEERS, "192.0.2.9")):
            value = json.dumps({"PublicIP": address, "BackendType": "host-gw"})
            key = f"/hostmesh/subnets/{subnet.replace('/', '-')}"
            assert stage.etcdctl("put", key, value).returncode == 0
        yield stage.nodes[0]
    finally:
        stage.close()


def route(node: Node) -> str:
    return node.inside(["ip", "route", "show", PEERS]).stdout


def conditions(node: Node) -> set[str]:
    return {each["name"] for each in node.document("status")["conditions"]}


def test_a_host_keeps_its_subnet_and_the_route_that_flannel_left_is_not_in_its_way(
    node: Node,
) -> None:
    node.inside(["ip", "route", "add", PEERS, "via", "192.0.2.9"])
    node.start()
    eventually(lambda: node.subnet() == OWN, 20)
    eventually(lambda: "route-conflict" in conditions(node), 20)
    assert "cidr-overlaps-host" not in conditions(node)
    assert "proto" not in route(node)
    node.inside(["ip", "route", "del", PEERS])
    eventually(
        lambda: "via 192.0.2.9 dev eth0 proto 140" in route(node).replace("hostmesh", "140"), 10
    )
    eventually(lambda: "route-conflict" not in conditions(node), 10)
