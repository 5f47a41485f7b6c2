"""The backend of a running mesh is changed step by step, under a ping of 10 ms."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from typing import Any

import pytest

from tests.netns.mesh.stage import Node, Stage
from tests.netns.netlab import Pinger
from tests.waiting import eventually

pytestmark = pytest.mark.netns


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage(3).running() as stage:
        for node in stage.nodes:
            node.host.ip(f"address add {inner(node)}/32 dev lo")
        yield stage


def inner(node: Node) -> str:
    """An address in the node's subnet that no backend has."""
    return str(IPv4Network(node.subnet())[200])


def gateway_link(node: Node, other: Node) -> str:
    """The link by which a node sends to another one's subnet."""
    found = node.inside(["ip", "-j", "route", "get", inner(other)])
    return str(json.loads(found.stdout)[0]["dev"])


@contextmanager
def pinged(stage: Stage, most_lost: int) -> Iterator[None]:
    one, *others = stage.nodes
    pingers = [Pinger(one.host, inner(other), 0.01) for other in others]
    pingers += [Pinger(other.host, inner(one), 0.01) for other in others]
    eventually(lambda: all(each.sent > 20 for each in pingers), 20)
    yield
    sent = [each.sent for each in pingers]
    eventually(lambda: all(p.sent > n + 20 for p, n in zip(pingers, sent, strict=True)), 20)
    found = [each.stop() for each in pingers]
    assert all(len(each.lost) <= most_lost and not each.refused for each in found), found


def change(stage: Stage, *words: str) -> Any:  # noqa: ANN401 - a completed process
    return stage.nodes[0].ctl("config", "set", "--backend", *words)


def test_each_step_loses_at_most_one_packet_and_every_host_says_where_it_is(stage: Stage) -> None:
    one, two, _ = stage.nodes
    with pinged(stage, 1):
        done = change(stage, "vxlan", "--backend-options", "VNI=9", "--prepare")
        assert done.returncode == 0, done.stderr
        eventually(lambda: accepted(stage) == {"vxlan"}, 20)
    assert gateway_link(one, two) != "hm-vxlan"
    names = {each["name"] for each in two.document("status")["conditions"]}
    assert "mesh-backend-changing" in names
    with pinged(stage, 1):
        assert change(stage, "vxlan", "--switch").returncode == 0
        eventually(lambda: sends_by(stage) == {"vxlan"}, 20)
        assert gateway_link(one, two) == "hm-vxlan"
    assert accepted(stage) == {"host-gw"}
    with pinged(stage, 1):
        assert change(stage, "vxlan", "--finish").returncode == 0
        eventually(lambda: accepted(stage) == {None}, 20)
    config = one.document("config", "show")
    assert (config["backend"], config["backend_options"]) == ("vxlan", {"VNI": 9})
    with pinged(stage, 2):  # both changes of what packets take
        done = change(stage, "host-gw")
        assert done.returncode == 0, done.stderr
    assert "finish: every host has given up the previous backend" in done.stderr
    assert sends_by(stage) == {"host-gw"}
    assert one.inside(["ip", "link", "show", "dev", "hm-vxlan"]).returncode != 0


def test_hosts_that_cannot_follow_are_named_and_cut_off_only_when_forced(stage: Stage) -> None:
    flannel = {"PublicIP": "192.0.2.77", "PublicIPv6": None, "BackendType": "host-gw"}
    assert not stage.etcdctl(
        "put", "/hostmesh/subnets/10.99.9.0-24", json.dumps(flannel)
    ).returncode
    done = change(stage, "vxlan")
    assert done.returncode == 24, done.stderr
    assert "192.0.2.77" in done.stderr
    assert stage.nodes[0].document("config", "show")["accepted_backend"] is None
    one, two, three = stage.nodes
    three.stop()  # it has a heartbeat for a while, and does not follow
    refused = change(stage, "vxlan", "--switch")
    assert "not prepared" in refused.stderr
    done = change(stage, "vxlan", "--force", "--timeout", "2s")
    assert done.returncode == 1
    assert "node3 did not follow within 2 s" in done.stderr
    three.start()
    done = change(stage, "vxlan", "--force")
    assert done.returncode == 0, done.stderr
    assert gateway_link(one, two) == "hm-vxlan"


def test_promise_9_a_host_whose_new_data_is_unusable_is_named_and_keeps_the_old_way(
    stage: Stage,
) -> None:
    one, _, three = stage.nodes
    assert change(stage, "vxlan", "--prepare").returncode == 0
    eventually(lambda: accepted(stage) == {"vxlan"}, 20)
    ping, subnet = Pinger(one.host, inner(three), 0.01), three.subnet()
    os.kill(three.agent_pid, signal.SIGSTOP)  # or it would write its record again
    with edited(stage, f"subnets/{subnet.replace('/', '-')}") as record:
        record["Hostmesh"]["Accepts"]["Data"]["VNI"] = 7
    refused = change(stage, "vxlan", "--switch")
    assert refused.returncode == 24, refused.stderr
    assert "the data that they publish for vxlan is not usable: node3" in refused.stderr
    assert change(stage, "vxlan", "--switch", "--force").returncode == 0
    eventually(lambda: "its VNI is 7" in cause_of(one, "peer-data-unusable"), 20)
    assert "node3 at 192.0.2.3" in cause_of(one, "peer-data-unusable")
    assert gateway_link(one, three) == "eth0"
    os.kill(three.agent_pid, signal.SIGCONT)
    eventually(lambda: gateway_link(one, three) == "hm-vxlan", 20)
    eventually(lambda: not cause_of(one, "peer-data-unusable"), 20)
    assert len(ping.stop().lost) <= 1


def test_promise_3_a_backend_that_cannot_be_set_up_any_more_loses_nothing(stage: Stage) -> None:
    one, two, _ = stage.nodes
    assert change(stage, "vxlan", "--prepare").returncode == 0
    eventually(lambda: accepted(stage) == {"vxlan"}, 20)
    eventually(lambda: tunnel_of(one).count("dst 192.0.2.") == 2, 20)
    before = tunnel_of(one)
    with edited(stage, "config") as config:
        config["Hostmesh"]["Accept"]["VNI"] = "seven"
    eventually(lambda: "VNI" in cause_of(one, "backend-options-unusable"), 20)
    one.inside(["ip", "route", "flush", "proto", "140"])
    eventually(lambda: gateway_link(one, two) == "eth0", 20)  # a whole pass since
    assert tunnel_of(one) == before
    with edited(stage, "config") as config:
        del config["Hostmesh"]["Accept"]["VNI"]
    eventually(lambda: not cause_of(one, "backend-options-unusable"), 20)
    done = change(stage, "vxlan")
    assert done.returncode == 0, done.stderr


@contextmanager
def edited(stage: Stage, name: str) -> Iterator[Any]:
    """Change a record in etcd as text."""
    key = f"/hostmesh/{name}"
    found = json.loads(stage.etcdctl("get", key, "--print-value-only").stdout)
    yield found
    assert stage.etcdctl("put", key, json.dumps(found)).returncode == 0


def cause_of(node: Node, name: str) -> str:
    """The cause of a condition, "" while there is none."""
    found = node.document("status")["conditions"]
    return next((str(each["cause"]) for each in found if each["name"] == name), "")


def tunnel_of(node: Node) -> str:
    """The device, its entries, and the sets of sources that may come in."""
    commands = ("ip -d -o link show hm-vxlan", "bridge fdb show dev hm-vxlan", "ipset list -o save")
    return "\n".join(node.inside(each.split()).stdout for each in commands)


def test_what_cannot_be_meant_is_refused_whole(stage: Stage) -> None:
    for words, expected in (
        (("vxlan", "--backend-options", "VNI=x"), "VNI"),
        (("vxlan", "--backend-options", "VNI"), "'VNI' is not an option"),
        (("vxlan", "--access", "open"), "cannot be changed together"),
        (("smoke",), "there is no backend"),
        (("vxlan", "--switch", "--backend-options", "VNI=9"), "change nothing with --switch"),
        (("vxlan", "--finish"), "hosts still send by host-gw"),
    ):
        done = change(stage, *words)
        assert done.returncode != 0, words
        assert expected in done.stderr, done.stderr
    done = stage.nodes[0].ctl("config", "set", "--prepare")
    assert done.returncode == 2, done.stderr
    assert sends_by(stage) == {"host-gw"}
    assert accepted(stage) == {None}


def leases_of(stage: Stage) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stage.nodes[1].document("leases")["leases"]
    return found


def accepted(stage: Stage) -> set[str | None]:
    return {each["accepted_backend"] for each in leases_of(stage)}


def sends_by(stage: Stage) -> set[str]:
    return {each["backend"] for each in leases_of(stage)}
