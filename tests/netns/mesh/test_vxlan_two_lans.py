"""vxlan between two LANs: the router sees VXLAN only, and node addresses may change."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from tests.netns.mesh.stage import Node, all_reached, container_of, inner, reaches
from tests.netns.mesh.twolans import (
    TwoLans,
    captured,
    check_promise_3_asked_through_the_tunnel,
    is_vxlan,
)
from tests.netns.netlab import Pinger
from tests.waiting import eventually

pytestmark = pytest.mark.netns

CIDR = IPv4Network("10.64.0.0/10")


@pytest.fixture(scope="module")
def stage() -> Iterator[TwoLans]:
    stage = TwoLans(2, beyond=1, extra="[lease]\nheartbeat_ttl_s = 5\n")
    try:
        stage.create_mesh("vxlan", DirectRouting=True)
        for node in stage.nodes:
            node.start()
        for node in stage.nodes:
            eventually(node.subnet, 30)
            container_of(node)
        eventually(lambda: all_reached(stage), 30)
        yield stage
    finally:
        stage.close()


def route_to(node: Node, other: Node) -> str:
    return node.inside(["ip", "route", "show", other.subnet()]).stdout


def leads_by(link: str, node: Node, other: Node) -> bool:
    return f"dev {link}" in route_to(node, other)


def forwarding(node: Node) -> str:
    return node.inside(["bridge", "fdb", "show", "dev", "hm-vxlan"]).stdout


def index_of_device(node: Node) -> str:
    return node.inside(["ip", "-o", "link", "show", "hm-vxlan"]).stdout.partition(":")[0]


def in_mesh(packet: bytes) -> bool:
    return any(IPv4Address(packet[at : at + 4]) in CIDR for at in (12, 16))


def test_the_router_sees_vxlan_and_no_container(stage: TwoLans) -> None:
    one, _, far = stage.nodes
    with captured(stage.router, "eth1") as packets:
        assert reaches(one, far)
        assert reaches(far, one)
    assert len(list(filter(is_vxlan, packets))) >= 4
    assert not any(map(in_mesh, packets))


def test_direct_routing_is_decided_for_each_peer(stage: TwoLans) -> None:
    one, two, far = stage.nodes
    assert f"via {two.address} dev eth0" in route_to(one, two)
    assert "dev hm-vxlan" in route_to(one, far)
    assert "dev hm-vxlan" in route_to(far, two)


def test_promise_6_direct_routing_is_switched_under_a_ping(stage: TwoLans) -> None:
    one, two, _ = stage.nodes
    pinger = Pinger(one.host, inner(two), 0.01)
    for direct in (False, True):
        stage.create_mesh("vxlan", DirectRouting=direct)
        link = "eth0" if direct else "hm-vxlan"
        eventually(partial(leads_by, link, one, two), 20)
        eventually(partial(leads_by, link, two, one), 20)
    seen = pinger.stop()
    assert seen.sent > 10
    assert len(seen.lost) <= 2, "one for each change"


def test_the_doctor_asks_the_underlay_only_where_it_carries_containers(stage: TwoLans) -> None:
    one, two, _ = stage.nodes
    for direct in (False, True):
        stage.create_mesh("vxlan", DirectRouting=direct)
        eventually(partial(leads_by, "eth0" if direct else "hm-vxlan", one, two), 20)
        eventually(partial(leads_by, "eth0" if direct else "hm-vxlan", two, one), 20)
        checks = {each["check"]: each for each in one.document("doctor")["checks"]}
        assert ("underlay" in checks) is direct
        assert checks["tunnel"]["state"] == "ok"
        assert "fail" not in {each["state"] for each in checks.values()}


@pytest.mark.full
def test_promise_6_another_name_of_the_link_is_followed_under_a_ping(stage: TwoLans) -> None:
    one, two, _ = stage.nodes
    pingers = [Pinger(one.host, inner(two), 0.01), Pinger(two.host, inner(one), 0.01)]
    texts = {node: node.settings.read_text() for node in (one, two)}
    for node, link in ((one, "hm-vxlan"), (two, "eth0")):
        named = texts[node].replace("[host]\n", '[host]\nlink = "rack1"\n')
        node.settings.write_text(named)
        assert node.ctl("reload").returncode == 0
        eventually(partial(leads_by, link, one, two), 20)
        eventually(partial(leads_by, link, two, one), 20)
    for node, text in texts.items():
        node.settings.write_text(text)
        assert node.ctl("reload").returncode == 0
    eventually(partial(leads_by, "eth0", one, two), 20)
    for pinger in pingers:
        seen = pinger.stop()
        assert seen.sent > 10
        assert len(seen.lost) <= 4, "one for each change"


def test_peers_follow_a_flannel_hosts_new_mac(stage: TwoLans) -> None:
    """flannel's device that is made anew has another MAC."""
    one = stage.nodes[0]
    key = "/hostmesh/subnets/10.99.0.0-24"
    for mac in ("82:4b:b6:2f:54:4e", "82:4b:b6:2f:54:4f"):
        record = {
            "PublicIP": "198.51.100.77",
            "BackendType": "vxlan",
            "BackendData": {"VNI": 1, "VtepMAC": mac},
        }
        assert stage.etcdctl("put", key, json.dumps(record)).returncode == 0

        def followed(mac: str = mac) -> bool:
            neighbours = one.inside(["ip", "neigh", "show", "10.99.0.0"]).stdout
            return f"{mac} dst 198.51.100.77" in forwarding(one) and mac in neighbours

        eventually(followed, 20)
    stage.etcdctl("del", key)


def test_a_trace_follows_the_packet_into_the_tunnel(stage: TwoLans) -> None:
    one, _, far = stage.nodes
    found = one.document("trace", "--capture", inner(one), inner(far))
    steps = {each["step"]: each for each in found["steps"]}
    assert steps["tunnel"]["result"] == "ok"
    assert f"in VXLAN to {far.address} via 192.0.2.254 by eth0" in steps["tunnel"]["text"]
    assert steps["host"]["result"] == "ok"
    assert far.name in steps["host"]["text"]
    capture = found["capture"]
    assert capture["answered"] == capture["sent"] > 0
    request, *_ = (each for each in capture["frames"] if each["link"] == "eth0")
    assert (request["source"], request["destination"]) == (one.address, far.address)
    assert request["what"] == f"VXLAN with echo request {inner(one)} > {inner(far)} ttl 64"
    assert (request["tunnel"]["vni"], request["tunnel"]["port"]) == (1, 8472)
    assert request["tunnel"]["inner"] == {
        "ttl": 64,
        "source": inner(one),
        "destination": inner(far),
        "what": "echo request",
    }
    assert {each["link"] for each in capture["frames"]} == {"hm-vxlan", "eth0"}
    assert found["passes"]


def drop(stage: TwoLans, *packets: str) -> Callable[[], None]:
    """Have the router drop some packets; return what ends that."""

    def rule(how: str) -> None:
        command = ["iptables", "-w", how, "FORWARD", *packets, "-j", "DROP"]
        stage.router.call(subprocess.run, command, check=True)

    rule("-A")
    return partial(rule, "-D")


def step(node: Node, peer: Node, name: str) -> dict[str, str]:
    found = node.document("ping", peer.name)["steps"]
    return next(each for each in found if each["step"] == name)


def check(node: Node, name: str) -> list[dict[str, str]]:
    return [each for each in node.document("doctor")["checks"] if each["check"] == name]


@pytest.mark.full
def test_promise_9_doctor_and_ping_say_what_the_way_takes(stage: TwoLans) -> None:
    one, _, far = stage.nodes
    assert step(one, far, "tunnel")["text"] == "hm-vxlan passes 1450 bytes whole"
    assert check(one, "tunnel")[0]["state"] == "ok"
    again = drop(stage, "-m", "length", "--length", "1401:")
    try:
        text = step(one, far, "tunnel")["text"]
        assert text == "of 1450 bytes hm-vxlan passes 1350 only"
        (found,) = check(one, "tunnel")
        assert found["state"] == "warn"
        assert "--backend-options MTU=1400" in found["hint"]
    finally:
        again()


def test_promise_3_an_off_link_host_without_an_agent_is_asked_through_the_tunnel(
    stage: TwoLans,
) -> None:
    check_promise_3_asked_through_the_tunnel(stage)


def test_the_map_shows_who_is_behind_the_tunnel(stage: TwoLans) -> None:
    one, two, far = stage.nodes
    drawn = one.ctl("map").stdout
    direct, tunnel = drawn.index("eth0 "), drawn.index("hm-vxlan, tunnel (vxlan)")
    assert direct < drawn.index(two.address) < tunnel < drawn.index(far.address)
    leases = {each["host_name"]: each for each in one.document("leases")["leases"]}
    keys = ("device", "direct", "mtu")
    assert {name: tuple(each[key] for key in keys) for name, each in leases.items()} == {
        one.name: ("hm-vxlan", None, 1450),
        two.name: ("eth0", True, 1500),
        far.name: ("hm-vxlan", False, 1450),
    }
    assert "device  hm-vxlan, MTU 1450; containers 1450" in one.ctl("status", "-o", "wide").stdout


def test_promise_2_a_new_node_address_rebuilds_nothing(stage: TwoLans) -> None:
    one, _, far = stage.nodes
    promote = Path("/proc/sys/net/ipv4/conf/eth0/promote_secondaries")
    far.host.call(promote.write_text, "1")
    index = index_of_device(far)
    far.host.ip("addr add 198.51.100.99/24 dev eth0")
    far.host.ip(f"addr del {far.address}/24 dev eth0")
    far.address = "198.51.100.99"

    def followed() -> bool:
        return f"dst {far.address}" in forwarding(one)

    eventually(followed, 20)
    eventually(lambda: reaches(one, far), 20)
    assert "local 198.51.100.99" in far.inside(["ip", "-d", "link", "show", "hm-vxlan"]).stdout
    assert index_of_device(far) == index
