"""A mesh CIDR over etcd, a resolver or the gateway: real agents, an etcd behind the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Any

import pytest

from tests.netns.mesh.stage import Node, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.netns

ETCD = "10.200.0.5"
CIDR, COVERS = "10.64.0.0/10", "10.0.0.0/8"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(2, etcd_behind_gateway=ETCD).running() as made:
        yield made


def write(stage: Stage, cidr: str, **ours: object) -> None:
    first = str(IPv4Network(cidr).network_address)
    value = {"Network": cidr, "SubnetLen": 24, "SubnetMin": first, "Hostmesh": ours}
    value["Backend"] = {"Type": "host-gw"}
    assert stage.etcdctl("put", "/hostmesh/config", json.dumps(value)).returncode == 0


def conditions(node: Node) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in node.document("status")["conditions"]}


def raised(node: Node, name: str) -> dict[str, Any]:
    return eventually(lambda: conditions(node).get(name, {}), 20)


def cleared(node: Node, name: str) -> None:
    eventually(lambda: name not in conditions(node), 20)


def routes(node: Node) -> str:
    return str(node.host.ip("route show proto 140"))


def reaches_etcd(node: Node) -> bool:
    return "192.0.2.100" in node.host.ip(f"route get {ETCD}")


def test_no_verb_lays_the_mesh_over_etcd_here_or_where_a_member_needs_it(stage: Stage) -> None:
    node, peer = stage.nodes
    for verb in (("init", "--cidr", COVERS), ("set", "--cidr", COVERS)):
        done = node.ctl("config", *verb)
        assert done.returncode != 0
        assert f"holds the etcd endpoint {ETCD}" in done.stderr
    # The heartbeat names addresses that only the other host needs.
    peer.resolv_conf.write_text("nameserver 127.0.0.53\nnameserver 172.20.0.53\n")
    peer.stop()
    peer.start()

    def refused() -> bool:
        done = node.ctl("config", "set", "--cidr", "172.16.0.0/12", "--move", "--dry-run")
        return "the resolver 172.20.0.53, which host node2 needs" in done.stderr

    eventually(refused, 20)
    bounds = ("--subnet-min", "192.168.0.0", "--subnet-max", "192.168.255.0")
    free = ("config", "set", "--cidr", "192.168.0.0/16", *bounds, "--move", "--dry-run")
    assert "would be: 192.168.0.0/16" in node.ctl(*free).stdout


def test_promise_8_a_config_that_covers_etcd_is_not_followed_and_can_be_set_back(
    stage: Stage,
) -> None:
    node, peer = stage.nodes
    before = routes(node)
    write(stage, COVERS, Previous=[CIDR])
    for each in stage.nodes:
        found = raised(each, "mesh-config-unusable")
        assert f"{COVERS} holds the etcd endpoint {ETCD}, which this host needs" in found["cause"]
        assert "route del" not in found["hint"]
    assert routes(node) == before
    done = node.document("doctor")
    assert [e["state"] for e in done["checks"] if e["check"] == "mesh"] == ["fail"]
    peer.stop()  # and at the next start, when etcd's view comes before the last good config's
    peer.start()
    raised(peer, "mesh-config-unusable")
    assert reaches_etcd(peer)
    done = node.ctl("config", "set", "--cidr", CIDR)
    assert done.returncode == 0, done.stderr
    for each in stage.nodes:
        cleared(each, "mesh-config-unusable")
    assert routes(node) == before


def test_promise_8_a_route_over_an_endpoint_in_use_goes_even_without_etcd(stage: Stage) -> None:
    """Records of the version before, of a mesh with such a CIDR, beside a forged lease."""
    node = stage.nodes[0]
    node.stop()
    text = node.settings.read_text()
    node.settings.write_text(text.replace(ETCD, "192.0.2.100"))
    write(stage, COVERS)
    lease = {"PublicIP": "192.0.2.66", "BackendType": "host-gw"}
    key = "/hostmesh/subnets/10.200.0.0-24"
    stage.etcdctl("put", key, json.dumps(lease))
    try:
        node.start()  # it uses etcd by another address and has no reason to refuse
        eventually(lambda: f"unreachable {COVERS}" in routes(node), 20)
        eventually(lambda: "10.200.0.0/24 via 192.0.2.66" in routes(node), 20)
        node.stop()
        assert not reaches_etcd(node)
        node.settings.write_text(text)  # now it is cut off, as an upgrade finds it
        node.start()
        eventually(lambda: reaches_etcd(node), 20)
        found = raised(node, "cidr-holds-needed-address")
        assert f"holds the etcd endpoint {ETCD}" in found["cause"]
        assert "10.200.0.0/24" in raised(node, "peer-refused")["cause"]
        assert "etcd-unreachable" not in conditions(node)
        stage.etcdctl("del", key)
        done = node.ctl("config", "set", "--cidr", CIDR)
        assert done.returncode == 0, done.stderr
        cleared(node, "cidr-holds-needed-address")
    finally:
        stage.etcdctl("del", key)
        node.settings.write_text(text)
        write(stage, CIDR)


def test_a_host_does_not_join_a_mesh_over_its_gateway_or_resolver(stage: Stage) -> None:
    node = stage.nodes[1]
    assert node.ctl("leave").returncode == 0
    node.stop()
    node.resolv_conf.write_text("nameserver 10.100.0.53\n")
    node.start()
    assert node.ctl("join").returncode == 0
    found = raised(node, "mesh-config-unusable")
    assert "holds the resolver 10.100.0.53" in found["cause"]
    assert not node.subnet()
    node.resolv_conf.write_text("nameserver 127.0.0.53\n")
    node.stop()
    node.start()
    eventually(node.subnet, 20)
