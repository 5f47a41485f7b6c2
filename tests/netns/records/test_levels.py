"""A mesh whose hosts read different levels: real agents, etcd, agentctl and kernel (promise 12)."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from agent.model import LEVEL
from tests.netns.mesh.stage import Node, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.netns

_OLD = "/hostmesh/hosts/" + "e" * 32
_OLD_BEAT = '{"HostName":"old","NodeAddress":"192.0.2.77","AgentVersion":"0.1.1","Docker":"ready"}'


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(2).running() as made:
        yield made


def cause(node: Node, name: str) -> str:
    found = node.document("status")["conditions"]
    return next((str(each["cause"]) for each in found if each["name"] == name), "")


def routes(node: Node) -> str:
    return node.host.ip("route show proto 140")


def test_promise_12_a_level_is_set_when_all_read_it_and_held_back_when_one_does_not(
    stage: Stage,
) -> None:
    node = stage.nodes[0]
    assert {each["level"] for each in node.document("leases")["leases"]} == {LEVEL}
    assert "LEVEL" in node.ctl("leases", "-o", "wide").stdout
    stage.etcdctl("put", _OLD, _OLD_BEAT)
    refused = node.ctl("config", "set", "--level", "2")
    assert refused.returncode == 24, refused.stderr
    assert "level 2 cannot be read by old (level 1)" in refused.stderr
    assert node.ctl("config", "set", "--level", str(LEVEL + 1)).returncode == 2
    stage.etcdctl("del", _OLD)
    done = node.ctl("config", "set", "--level", "2")
    assert done.returncode == 0, done.stderr
    assert node.document("config", "show")["level"] == 2
    eventually(lambda: node.document("status")["mesh"]["level"] == 2, 10)
    assert not any(cause(each, "level-held-back") for each in stage.nodes)
    stage.etcdctl("put", _OLD, _OLD_BEAT)
    eventually(lambda: all(cause(each, "level-held-back") for each in stage.nodes), 10)
    assert "old reads level 1 (hostmesh 0.1.1)" in cause(node, "level-held-back")
    stage.etcdctl("del", _OLD)
    eventually(lambda: not any(cause(each, "level-held-back") for each in stage.nodes), 10)


def test_promise_3_a_config_of_a_higher_level_costs_nothing_that_runs(stage: Stage) -> None:
    node, peer = stage.nodes
    subnet, before = node.subnet(), [routes(each) for each in stage.nodes]
    config = stage.etcdctl("get", "--print-value-only", "/hostmesh/config").stdout
    newer = {**json.loads(config), "Network": "10.0.0.0/8", "Hostmesh": {"Level": LEVEL + 1}}
    eventually((node.folder / "state" / "copy.json").exists, 20)
    stage.etcdctl("put", "/hostmesh/config", json.dumps(newer))
    eventually(lambda: all(cause(each, "mesh-config-unusable") for each in stage.nodes), 10)
    assert f"Hostmesh.Level is {LEVEL + 1} and this version reads up to {LEVEL}" in cause(
        node, "mesh-config-unusable"
    )
    key = "/hostmesh/subnets/" + subnet.replace("/", "-")

    def revision() -> int:
        return int(json.loads(stage.etcdctl("get", key, "-w", "json").stdout)["kvs"][0]["version"])

    written = revision()
    node.stop(signal.SIGKILL)
    stage.etcdctl("del", "/hostmesh/hosts/" + node.document("status")["host"]["id"])
    node.start()
    eventually(lambda: revision() > written, 20)
    eventually(lambda: all(each["alive"] for each in peer.document("leases")["leases"]), 20)
    assert node.subnet() == subnet
    assert [routes(each) for each in stage.nodes] == before
    changed = node.ctl("config", "set", "--subnet-len", "20")
    assert changed.returncode != 0
    stage.etcdctl("put", "/hostmesh/config", config)
    eventually(lambda: not any(cause(each, "mesh-config-unusable") for each in stage.nodes), 10)
    assert [routes(each) for each in stage.nodes] == before
