"""A config in etcd that leaves what a host allows (``mesh.within``): real agents, etcd, kernel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns.mesh.stage import Node, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.netns

CIDR = "10.64.0.0/10"
OUTSIDE = "198.18.0.0/16"
FORGED = ("8.8.8.0/24", "169.254.169.0/24")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(2).running() as made:
        yield made


@pytest.fixture
def node(stage: Stage) -> Iterator[Node]:
    yield stage.nodes[0]
    config(stage)
    eventually(lambda: "mesh-config-unusable" not in conditions(stage.nodes[0]), 20)


def config(stage: Stage, cidr: str = CIDR, **ours: object) -> None:
    value = {"Network": cidr, "SubnetLen": 24, "Backend": {"Type": "host-gw"}}
    value |= {"Hostmesh": ours} if ours else {}
    assert stage.etcdctl("put", "/hostmesh/config", json.dumps(value)).returncode == 0


def forge(stage: Stage) -> None:
    """Have etcd say that two ranges of the world are subnets of an attacker's host."""
    for subnet in FORGED:
        lease = {"PublicIP": "192.0.2.66", "BackendType": "host-gw"}
        key = "/hostmesh/subnets/" + subnet.replace("/", "-")
        assert stage.etcdctl("put", key, json.dumps(lease)).returncode == 0
    config(stage, Previous=["8.0.0.0/8", "169.254.0.0/16"])


def raised(node: Node, name: str) -> dict[str, Any]:
    return eventually(lambda: conditions(node).get(name, {}), 20)


def conditions(node: Node) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in node.document("status")["conditions"]}


def routes(node: Node) -> set[str]:
    shown = node.host.ip("route show proto 140").splitlines()
    return {line.removeprefix("unreachable ").split()[0] for line in shown}


def test_promise_8_a_config_that_leaves_what_the_host_allows_moves_nothing(
    stage: Stage, node: Node
) -> None:
    """Forged ranges and leases route nothing, neither by the agent nor by --once; set ends it."""
    before = routes(node)
    forge(stage)
    found = raised(node, "mesh-config-unusable")
    assert "Previous 8.0.0.0/8 is outside mesh.within of this host" in found["cause"]
    assert "mesh.within" in found["hint"]
    assert routes(node) == before
    shown = node.ctl("config", "show")
    assert shown.returncode != 0
    assert "mesh.within" in shown.stderr
    doctor = node.document("doctor")
    assert [e["state"] for e in doctor["checks"] if e["check"] == "mesh"] == ["fail"]
    node.stop()
    node.agent("--once")
    assert not set(FORGED) & routes(node)
    node.start()
    raised(node, "mesh-config-unusable")
    eventually(lambda: routes(node) == before, 20)
    done = node.ctl("config", "set", "--finish")  # by an operator who sees nothing else
    assert done.returncode == 0, done.stderr
    eventually(lambda: "mesh-config-unusable" not in conditions(node), 20)
    assert routes(node) == before


@pytest.mark.parametrize("cidr", ["8.0.0.0/8", "198.18.0.0/16"])
def test_no_verb_makes_a_mesh_outside(node: Node, cidr: str) -> None:
    for verb in (("init", "--cidr", cidr, "--subnet-len", "24"), ("set", "--cidr", cidr, "--move")):
        done = node.ctl("config", *verb)
        assert done.returncode != 0
        assert f"{cidr} is outside mesh.within of this host" in done.stderr
        assert f'"{cidr}"] under [mesh]' in done.stderr


@pytest.mark.parametrize("cidr", ["169.254.0.0/16", "224.0.0.0/8", "127.0.0.0/8", "0.0.0.0/8"])
def test_some_ranges_are_no_meshs_whatever_the_host_allows(
    stage: Stage, node: Node, cidr: str
) -> None:
    done = node.ctl("--set", 'mesh.within=["0.0.0.0/0"]', "config", "set", "--cidr", cidr, "--move")
    assert done.returncode != 0
    assert "which no mesh may have; nothing was written" in done.stderr
    before = routes(node)
    value = {"Network": cidr, "SubnetLen": 24, "Backend": {"Type": "host-gw"}}
    stage.etcdctl("put", "/hostmesh/config", json.dumps(value))
    eventually(lambda: cidr in str(conditions(node).get("mesh-config-unusable")), 20)
    assert routes(node) == before


def test_promise_5_an_operators_route_in_a_changed_cidr_keeps_working(
    stage: Stage, node: Node
) -> None:
    """Of another metric than ours, and there before the range was the mesh's."""
    moved = "172.16.0.0/12"
    node.host.ip(f"route add {moved} via 192.0.2.100 metric 100")
    try:
        config(stage, cidr=moved, Previous=[CIDR])
        found = raised(node, "route-conflict")
        assert f"{moved} via 192.0.2.100" in found["cause"]
        assert moved not in routes(node)
        assert "192.0.2.100" in node.host.ip("route get 172.16.5.1")
    finally:
        config(stage)
        node.host.ip(f"route del {moved} metric 100")


def test_a_range_that_was_in_use_before_the_setting_stays_valid_and_no_other() -> None:
    """An upgrade: the copy of the version before does not say which ranges were kept."""
    stage = Stage(1, f'[mesh]\nwithin = ["{OUTSIDE}"]\n')
    node = stage.nodes[0]
    with_setting = node.settings.read_text()
    try:
        value = {"Network": OUTSIDE, "SubnetLen": 24, "Backend": {"Type": "host-gw"}}
        stage.etcdctl("put", "/hostmesh/config", json.dumps(value))
        node.start()
        subnet = eventually(node.subnet, 30)
        node.stop()
        node.settings.write_text(with_setting.partition("[mesh]")[0])

        node.start()  # of this version, and it never was without the setting
        found = raised(node, "mesh-config-unusable")
        assert f"Network {OUTSIDE} is outside mesh.within" in found["cause"]
        assert routes(node) == {OUTSIDE}  # fail static
        node.stop()

        _as_before_the_setting(node)
        for _ in ("upgrade", "the next start"):
            node.start()
            found = raised(node, "mesh-cidr-outside-within")
            assert f'"{OUTSIDE}"] under [mesh] in agent.toml' in found["hint"]
            assert "mesh-config-unusable" not in conditions(node)
            assert node.subnet() == subnet
            assert node.ctl("config", "set", "--access", "open").returncode == 0
            assert node.ctl("config", "set", "--access", "published").returncode == 0
            wider = node.ctl("config", "set", "--cidr", "198.18.0.0/15")
            assert "198.18.0.0/15 is outside mesh.within" in wider.stderr
            eventually(lambda: '"kept"' in _copied(node), 20)
            if _ == "upgrade":
                node.stop()

        node.settings.write_text(with_setting)
        assert node.ctl("reload").returncode == 0
        eventually(lambda: "mesh-cidr-outside-within" not in conditions(node), 20)
    finally:
        stage.close()


def _copied(node: Node) -> str:
    body: str = json.loads((node.folder / "state/copy.json").read_text())["body"]
    return body


def _as_before_the_setting(node: Node) -> None:
    """Put the copy as the version before this setting wrote it."""
    body = json.loads(_copied(node))
    del body["kept"]
    value = {"cidr": OUTSIDE, "subnet_len": 24, "subnet_min": "198.18.0.0",
             "subnet_max": "198.18.255.0", "backend": "host-gw", "previous": [],
             "access": "published", "mod_revision": 2}  # fmt: skip
    text = json.dumps({**body, "view": {**body["view"], "config": value}})
    envelope = {"version": 1, "body": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (node.folder / "state/copy.json").write_text(json.dumps(envelope))
