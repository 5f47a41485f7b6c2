"""wireguard between real agents on two LANs: encrypted, repaired, and closed while it is down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from tests.netns.backends.wireguard import (
    EXTRA,
    LINK,
    end_wireguard,
    missing_programs,
    peers_of,
    public_key,
    with_own_run,
)
from tests.netns.mesh.stage import Node, all_reached, container_of, inner, reaches
from tests.netns.mesh.twolans import (
    TwoLans,
    captured,
    check_promise_3_asked_through_the_tunnel,
)
from tests.netns.netlab import Pinger
from tests.waiting import eventually

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(bool(missing_programs()), reason=f"not here: {missing_programs()}"),
]

CIDR = IPv4Network("10.64.0.0/10")


@pytest.fixture(scope="module")
def stage() -> Iterator[TwoLans]:
    stage = TwoLans(2, beyond=1, extra=f"{EXTRA}[lease]\nheartbeat_ttl_s = 5\n")
    try:
        stage.create_mesh("wireguard")
        for node in stage.nodes:
            with_own_run(node)
            node.start()
        for node in stage.nodes:
            eventually(node.subnet, 30)
            container_of(node)
        eventually(lambda: all_reached(stage), 60)
        yield stage
    finally:
        end_wireguard(stage)
        stage.close()


def record_of(stage: TwoLans, node: Node) -> Any:  # noqa: ANN401 - JSON
    key = node.subnet().replace("/", "-")
    text = stage.etcdctl("get", f"/hostmesh/subnets/{key}", "--print-value-only").stdout
    return json.loads(text)


def in_mesh(packet: bytes) -> bool:
    return any(IPv4Address(packet[at : at + 4]) in CIDR for at in (12, 16))


def test_each_host_is_a_peer_with_its_subnet_and_a_key_in_flannels_form(stage: TwoLans) -> None:
    one, two, far = stage.nodes
    assert peers_of(one) == {
        public_key(two): (f"{two.address}:51820", two.subnet()),
        public_key(far): (f"{far.address}:51820", far.subnet()),
    }
    record = record_of(stage, one)
    assert record["BackendType"] == "wireguard"
    assert record["BackendData"] == {"PublicKey": public_key(one), "Port": 51820}
    key = one.folder / "state" / "wireguard.key"
    assert key.stat().st_mode & 0o777 == 0o600
    link = json.loads(one.inside(["ip", "-j", "link", "show", LINK]).stdout)[0]
    assert link["mtu"] == 1420


def test_promise_8_the_router_sees_no_packet_of_a_container(stage: TwoLans) -> None:
    one, _, far = stage.nodes
    with captured(stage.router, "eth1") as packets:
        assert reaches(one, far)
        assert reaches(far, one)
    assert len(packets) >= 4
    assert not any(map(in_mesh, packets))
    assert not any(b"\x10\x11\x12\x13\x14\x15" in each for each in packets), "ping's own pattern"


@pytest.mark.parametrize(
    "disturbance",
    [
        "wg set {link} peer {key} remove",
        "wg set {link} peer {key} allowed-ips 10.66.66.0/24",
        "wg set {link} listen-port 12345",
        "ip addr flush dev {link}",
        "ip link del {link}",
    ],
)
def test_promise_6_everything_is_repaired(stage: TwoLans, disturbance: str) -> None:
    one, two, far = stage.nodes
    before = peers_of(one)
    words = disturbance.format(link=LINK, key=public_key(two)).split()
    assert one.inside(words).returncode == 0
    # wg sends no notification of a change: the next full comparison finds it.
    eventually(lambda: peers_of(one).keys() == before.keys() and reaches(one, two), 60)
    eventually(lambda: reaches(one, far), 20)
    assert {each[1] for each in peers_of(one).values()} == {each[1] for each in before.values()}


def test_promise_6_a_device_that_is_made_again_shakes_hands_before_it_is_needed(
    stage: TwoLans,
) -> None:
    """Or what peers send is lost for 15 seconds, by sessions that it does not know."""
    one, two, far = stage.nodes
    assert reaches(two, one)
    assert reaches(far, one)
    assert one.inside(["ip", "link", "del", LINK]).returncode == 0

    def shaken() -> set[str]:
        lines = one.inside(["wg", "show", LINK, "latest-handshakes"]).stdout.splitlines()
        return {line.split()[0] for line in lines if line.split()[1] != "0"}

    eventually(lambda: shaken() == {public_key(two), public_key(far)}, 30)
    eventually(lambda: reaches(two, one) and reaches(far, one), 30)


def test_promises_3_and_6_a_killed_agent_loses_nothing_and_keeps_the_key(stage: TwoLans) -> None:
    one, _, far = stage.nodes
    key = public_key(one)
    pinger = Pinger(far.host, inner(one), 0.01)
    one.stop(signal.SIGKILL)
    one.start()
    eventually(lambda: one.document("status")["state"] == "ready" or reaches(one, far), 30)
    seen = pinger.stop()
    assert not seen.lost
    assert public_key(one) == key


def test_nothing_leaves_in_the_clear_while_the_device_is_down(stage: TwoLans) -> None:
    one, two, far = stage.nodes
    pinger = Pinger(one.host, inner(far), 0.005)
    with captured(two.host, "eth0") as seen_by_neighbour, captured(stage.router, "eth0") as packets:
        os.kill(one.agent_pid, signal.SIGSTOP)
        one.inside(["ip", "link", "del", LINK])
        eventually(lambda: pinger.sent > 100, 10)
        os.kill(one.agent_pid, signal.SIGCONT)
        eventually(lambda: reaches(one, far), 60)
    pinger.stop()
    assert not any(map(in_mesh, packets))
    assert not any(map(in_mesh, seen_by_neighbour))


def test_a_trace_and_the_map_follow_the_packet_into_the_tunnel(stage: TwoLans) -> None:
    """The inner headers are on the device, the outer ones on the uplink."""
    one, _, far = stage.nodes
    found = one.document("trace", "--capture", inner(one), inner(far))
    steps = {each["step"]: each for each in found["steps"]}
    text = steps["tunnel"]["text"]
    assert f"for peer {public_key(far)} to {far.address}, UDP port 51820" in text
    assert text.endswith("via 192.0.2.254 by eth0")
    assert (steps["host"]["result"], found["passes"]) == ("ok", True)
    assert far.name in steps["host"]["text"]
    frames = found["capture"]["frames"]
    ends = (one.address, far.address)
    headers = {(each["link"], each["source"], each["destination"]) for each in frames}
    assert headers == {
        (LINK, inner(one), inner(far)),
        (LINK, inner(far), inner(one)),
        ("eth0", *ends),
        ("eth0", *reversed(ends)),
    }
    request = next(each for each in frames if each["link"] == "eth0")
    assert request["what"] == "WireGuard data, 156 bytes"
    assert request["tunnel"]["port"] == request["tunnel"]["source_port"] == 51820
    assert request["tunnel"]["inner"] is None
    drawn = one.ctl("map").stdout
    behind = drawn[drawn.index(f"{LINK}, tunnel (wireguard)") :]
    assert far.address in behind
    devices = {(each["device"], each["mtu"]) for each in one.document("leases")["leases"]}
    assert devices == {(LINK, 1420)}


def test_a_key_that_is_no_key_costs_that_peer_only(stage: TwoLans) -> None:
    one, two, _ = stage.nodes
    record = {
        "PublicIP": "192.0.2.77",
        "BackendType": "wireguard",
        "BackendData": {"PublicKey": "x"},
    }
    assert (
        stage.etcdctl("put", "/hostmesh/subnets/10.99.0.0-24", json.dumps(record)).returncode == 0
    )

    def named() -> bool:
        found = one.document("status")["conditions"]
        return any(each["name"] == "peer-data-unusable" for each in found)

    eventually(named, 20)
    assert reaches(one, two)
    stage.etcdctl("del", "/hostmesh/subnets/10.99.0.0-24")


def test_one_side_behind_nat_is_reached_as_long_as_it_can_send(stage: TwoLans) -> None:
    """The router masquerades the far host, as a home router does, and forwards nothing to it."""
    one, two, far = stage.nodes
    text = far.settings.read_text()
    far.settings.write_text(text.replace("[host]\n", '[host]\npublic_endpoint = "none"\n'))
    with behind_nat(stage):
        for node in stage.nodes:
            node.inside(["ip", "link", "del", LINK])  # no session of before
        assert far.ctl("reload").returncode == 0
        eventually(lambda: record_of(stage, far)["BackendData"].get("NAT") is True, 20)
        eventually(lambda: reaches(one, far) and reaches(two, far), 90)
        endpoint, _ = peers_of(one)[public_key(far)]
        assert endpoint.startswith("192.0.2.254:"), "the router's address, and a port of its own"
        pinger = Pinger(one.host, inner(far), 0.01)
        eventually(lambda: pinger.sent > 1000, 60)  # over two full comparisons
        assert not pinger.stop().lost, "an endpoint that moved and shakes hands is kept"
    far.settings.write_text(text)
    assert far.ctl("reload").returncode == 0
    eventually(lambda: all_reached(stage), 90)


@pytest.mark.full
def test_a_host_behind_nat_without_an_agent_is_asked_through_the_tunnel(stage: TwoLans) -> None:
    one, _, far = stage.nodes
    text = far.settings.read_text()
    far.settings.write_text(text.replace("[host]\n", '[host]\npublic_endpoint = "none"\n'))
    with behind_nat(stage):
        assert far.ctl("reload").returncode == 0
        eventually(lambda: record_of(stage, far)["BackendData"].get("NAT") is True, 20)
        eventually(lambda: reaches(one, far), 90)
        check_promise_3_asked_through_the_tunnel(stage)
    far.settings.write_text(text)
    assert far.ctl("reload").returncode == 0
    eventually(lambda: all_reached(stage), 90)


@pytest.mark.full
def test_promise_3_an_off_link_host_without_an_agent_is_asked_through_the_tunnel(
    stage: TwoLans,
) -> None:
    check_promise_3_asked_through_the_tunnel(stage)


@contextmanager
def behind_nat(stage: TwoLans) -> Iterator[None]:
    masquerade = "-o eth0 -p udp -s 198.51.100.0/24 -j MASQUERADE --to-ports 20000-29999"
    unasked = "-i eth0 -o eth1 -m conntrack --ctstate NEW -j DROP"
    rules = [f"-t nat {{}} POSTROUTING {masquerade}", f"{{}} FORWARD {unasked}"]

    def each(action: str) -> None:
        for rule in rules:
            words = ["iptables", *rule.format(action).split()]
            assert stage.router.call(subprocess.run, words, check=False).returncode == 0

    each("-A")
    try:
        yield
    finally:
        each("-D")


@pytest.mark.full
def test_promise_9_doctor_and_ping_say_what_the_way_takes(stage: TwoLans) -> None:
    one, _, far = stage.nodes

    def step() -> str:
        steps = one.document("ping", far.name)["steps"]
        return next(str(each["text"]) for each in steps if each["step"] == "tunnel")

    assert step() == f"{LINK} passes 1420 bytes whole"
    large = ["FORWARD", "-m", "length", "--length", "1401:", "-j", "DROP"]
    stage.router.call(subprocess.run, ["iptables", "-I", *large], check=True)
    try:
        # WireGuard pads to 16 bytes: 1400 with its headers and IPv4's are 1340 at most.
        assert step() == f"of 1420 bytes {LINK} passes 1328 only"
        found = [each for each in one.document("doctor")["checks"] if each["check"] == "tunnel"]
        (smaller,) = (each for each in found if each["state"] == "warn")
        assert "--backend-options MTU=1408" in smaller["hint"]
    finally:
        stage.router.call(subprocess.run, ["iptables", "-D", *large], check=True)


def test_a_change_to_vxlan_and_back_loses_no_packet(stage: TwoLans) -> None:
    one, two, far = stage.nodes
    pingers = [Pinger(one.host, inner(two), 0.01), Pinger(far.host, inner(one), 0.01)]
    for backend in ("vxlan", "wireguard"):
        done = one.ctl("config", "set", "--backend", backend)
        assert done.returncode == 0, done.stderr
    seen = [each.stop() for each in pingers]
    assert all(len(each.lost) <= 2 and not each.refused for each in seen), seen
    assert one.inside(["ip", "link", "show", "hm-vxlan"]).returncode != 0
    assert all_reached(stage)
