"""A running mesh comes to owner records host by host, and back: real agents, etcd and kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import pytest

from tests.netns.mesh.stage import Node, Stage
from tests.netns.records.routewatch import watching
from tests.waiting import eventually

pytestmark = pytest.mark.netns

_OLD = """
import agent.registry.own.keeper
from agent.model import MeshConfig, OwnerRecords
agent.registry.own.keeper.LEVEL = 1
MeshConfig.owner_records = property(lambda _: OwnerRecords.UNUSED)
"""
"""Code to run before an agent that is to know nothing of owner records, as 0.1 did."""


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage(3)
    try:
        made.create_mesh()
        for node in made.nodes:
            node.start(_OLD)
        made.wait_joined()
        yield made
    finally:
        made.close()


def routes(node: Node) -> bool:
    """Return whether it has routes to all others, and one for its own subnet's unused addresses."""
    return bool(node.document("status")["routes"]["installed"] == 3)


def owners(stage: Stage) -> set[str]:
    """The subnets that have an owner record."""
    found = stage.etcdctl("get", "--prefix", "--keys-only", "/hostmesh/owners/").stdout
    return {line.rpartition("/")[2].replace("-", "/") for line in found.split()}


def test_promise_12_no_route_is_lost_on_the_way_to_owner_records_and_back(stage: Stage) -> None:
    first, second, third = stage.nodes
    subnets = {node.subnet() for node in stage.nodes}
    with watching(stage.nodes) as watches:
        for node in stage.nodes:
            refused = first.ctl("config", "set", "--level", "2")
            assert refused.returncode == 24, refused.stderr
            node.stop()
            node.start()
            eventually(partial(routes, node), 30)
        assert owners(stage) == set()
        refused = first.ctl("config", "set", "--owners", "required")
        assert refused.returncode == 24, refused.stderr
        assert "agentctl config set --level 2" in refused.stderr
        eventually(lambda: first.ctl("config", "set", "--level", "2").returncode == 0, 30)
        eventually(lambda: owners(stage) == subnets, 20)
        eventually(lambda: first.ctl("config", "set", "--owners", "required").returncode == 0, 20)
        shown = first.document("config", "show")
        assert (shown["owners"], shown["flannel"]) == (True, False)
        _overwrite_and_repair(stage, second.subnet())
        third.stop()  # a downgrade: its owner record stays with its etcd lease
        third.start(_OLD)
        eventually(partial(routes, third), 30)
        third.stop()
        third.start()
        eventually(partial(routes, third), 30)
        assert first.ctl("config", "set", "--owners", "optional").returncode == 0
        assert not first.document("config", "show")["owners"]
        stage.wait_joined()
        assert {node.subnet() for node in stage.nodes} == subnets
        assert [watch.harmed() for watch in watches] == [[], [], []]


def _overwrite_and_repair(stage: Stage, subnet: str) -> None:
    """Another host's value is on a key, and the owner writes it again."""
    key = f"/hostmesh/subnets/{subnet.replace('/', '-')}"
    forged = json.dumps({"PublicIP": "192.0.2.66", "BackendType": "host-gw"})
    assert stage.etcdctl("put", key, forged).returncode == 0
    eventually(lambda: "HostID" in stage.etcdctl("get", key).stdout, 10)
