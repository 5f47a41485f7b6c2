"""Faults of tunnels between real agents: what is wrong, in which direction, on which host."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network

import pytest

from tests.netns.backends.wireguard import (
    EXTRA,
    end_wireguard,
    missing_programs,
    public_key,
    with_own_run,
)
from tests.netns.mesh.stage import Node, all_reached, container_of
from tests.netns.mesh.twolans import TwoLans
from tests.waiting import eventually

pytestmark = pytest.mark.netns

NEEDS_WIREGUARD = pytest.mark.skipif(
    bool(missing_programs()), reason=f"not here: {missing_programs()}"
)
VXLAN = pytest.mark.parametrize("stage", ["vxlan"], indirect=True, scope="module")
WIREGUARD = pytest.mark.parametrize(
    "stage", [pytest.param("wireguard", marks=NEEDS_WIREGUARD)], indirect=True, scope="module"
)
QUICK = pytest.mark.parametrize(
    "stage",
    ["vxlan", pytest.param("wireguard", marks=[NEEDS_WIREGUARD, pytest.mark.full])],
    indirect=True,
    scope="module",
)
"""WireGuard's handshakes are five seconds apart."""
PORTS = {"vxlan": 8472, "wireguard": 51820}
THERE, HERE = "look at UDP port {} inbound on node2", "look at UDP port {} inbound on this host"


class Faulty(TwoLans):
    """Two hosts with a router between them.

    Attributes:
        backend: By which they reach each other.
    """

    def __init__(self, backend: str) -> None:
        super().__init__(1, beyond=1, extra=EXTRA)
        self.backend = backend

    @property
    def port(self) -> int:
        return PORTS[self.backend]

    def repaired(self) -> None:
        eventually(lambda: all_reached(self), 90)


@pytest.fixture(scope="module", params=["vxlan", pytest.param("wireguard", marks=NEEDS_WIREGUARD)])
def stage(request: pytest.FixtureRequest) -> Iterator[Faulty]:
    stage = Faulty(request.param)
    try:
        stage.create_mesh(stage.backend)
        for node in stage.nodes:
            with_own_run(node)
            node.start()
        for node in stage.nodes:
            eventually(node.subnet, 30)
            container_of(node)
        stage.repaired()
        yield stage
    finally:
        if stage.backend == "wireguard":
            end_wireguard(stage)
        stage.close()


@contextmanager
def rules(stage: Faulty, *rules: str, node: Node | None = None) -> Iterator[None]:
    """Have the router, or a host, keep to other rules for a while."""
    host = stage.router if node is None else node.host

    def each(action: str) -> None:
        for rule in rules:
            command = ["iptables", "-w", *rule.format(action, port=stage.port).split()]
            host.call(subprocess.run, command, check=True)

    each("-I")
    try:
        yield
    finally:
        each("-D")


@contextmanager
def altered(stage: Faulty, *commands: str) -> Iterator[None]:
    """Change the second host while its agent is stopped; it repairs that afterwards."""
    node = stage.nodes[1]
    os.kill(node.agent_pid, signal.SIGSTOP)
    try:
        done = node.inside(["sh", "-ec", "\n".join(commands)])
        assert done.returncode == 0, done.stderr
        yield
    finally:
        os.kill(node.agent_pid, signal.SIGCONT)


def found(node: Node, peer: Node) -> str:
    """The step "tunnel" of a ping."""
    steps = node.document("ping", peer.name)["steps"]
    (step,) = (each for each in steps if each["step"] == "tunnel")
    assert step["result"] == "failed", step
    return str(step["text"])


def checked(node: Node) -> dict[str, str]:
    """The doctor's finding."""
    checks = node.document("doctor")["checks"]
    (check,) = (each for each in checks if each["check"] == "tunnel")
    return dict(check)


TO = "{} FORWARD -i eth0 -p udp --dport {port} -j DROP"
BACK = "{} FORWARD -i eth1 -p udp --dport {port} -j DROP"


def test_promise_9_packets_that_are_lost_to_the_peer(stage: Faulty) -> None:
    one, far = stage.nodes
    with rules(stage, TO):
        text = found(one, far)
        assert "packets of node2 arrive here, this host's do not reach node2" in text
        assert THERE.format(stage.port) in text
        if stage.backend == "vxlan":
            check = checked(one)
            assert check["state"] == "fail"
            assert "do not reach node2" in check["found"]
            assert check["hint"].startswith(THERE.format(stage.port))
    stage.repaired()


@QUICK
def test_promise_9_packets_that_are_lost_on_the_way_back(stage: Faulty) -> None:
    one, far = stage.nodes
    with rules(stage, BACK):
        text = found(one, far)
        if stage.backend == "vxlan":
            assert "this host's packets reach node2, its packets do not arrive here" in text
            assert HERE.format(stage.port) in text
        else:  # nothing that the other host decrypts makes it answer past the tunnel
            assert f"packets leave by eth0 to {far.address}, and none of node2 arrives" in text
            assert "agentctl doctor on node2 sees the other direction" in text
        assert "packets of node1 arrive here, this host's do not reach node1" in found(far, one)
    stage.repaired()


@pytest.mark.full
def test_promise_9_a_port_that_is_blocked_in_both_directions(stage: Faulty) -> None:
    one, far = stage.nodes
    with rules(stage, TO, BACK):
        text = found(one, far)
        assert f"packets leave by eth0 to {far.address}, and none of node2 arrives" in text
        assert text.index(THERE.format(stage.port)) < text.index("inbound on this host")
    stage.repaired()


@pytest.mark.full
def test_promise_9_a_router_that_refuses_is_named(stage: Faulty) -> None:
    one, far = stage.nodes
    with rules(stage, TO.replace("DROP", "REJECT --reject-with icmp-admin-prohibited"), BACK):
        assert f"192.0.2.254 refuses packets to UDP port {stage.port} of node2" in found(one, far)
    stage.repaired()


@pytest.mark.full
def test_promise_9_rules_of_this_host(stage: Faulty) -> None:
    one, far = stage.nodes
    with rules(stage, "-t mangle {} PREROUTING -p udp --dport {port} -j DROP", node=one):
        text = found(one, far)
        assert "iptables -nvL INPUT" in text
        assert f"UDP port {stage.port}" in text
    stage.repaired()


def remade(stage: Faulty, vni: int, port: int) -> list[str]:
    """The second host's device with another identifier or port."""
    one, far = stage.nodes
    shown = [each.inside(["ip", "-j", "link", "show", "hm-vxlan"]) for each in stage.nodes]
    macs = [json.loads(each.stdout)[0]["address"] for each in shown]
    ends = f"local {far.address} dev eth0 nolearning"
    subnets = [IPv4Network(each.subnet()) for each in stage.nodes]
    here, there = (each.network_address for each in subnets)
    return [
        "ip link del hm-vxlan",
        f"ip link add hm-vxlan address {macs[1]} type vxlan id {vni} dstport {port} {ends}",
        "ip link set hm-vxlan alias hostmesh mtu 1450 up",
        "sysctl -qw net.ipv4.conf.hm-vxlan.rp_filter=2",
        f"ip addr add {there}/32 dev hm-vxlan",
        f"ip neigh add {here} lladdr {macs[0]} dev hm-vxlan nud permanent",
        f"bridge fdb add {macs[0]} dev hm-vxlan dst {one.address}",
        f"ip route replace {subnets[0]} via {here} dev hm-vxlan onlink src {there} proto 140",
    ]  # fmt: skip


OTHER_VNI = "node2 sends VNI 2, hm-vxlan of this host has 1; look at node2"
OTHER_PORT = "node2 sends to UDP port 8999, hm-vxlan of this host uses 8472; look at node2"


@VXLAN
@pytest.mark.parametrize(
    ("vni", "port", "words"),
    [(2, 8472, OTHER_VNI), pytest.param(1, 8999, OTHER_PORT, marks=pytest.mark.full)],
)
def test_promise_9_another_vni_or_port_of_the_device_there(
    stage: Faulty, vni: int, port: int, words: str
) -> None:
    one, far = stage.nodes
    with altered(stage, *remade(stage, vni, port)):
        assert words in found(one, far)
    stage.repaired()


@VXLAN
@pytest.mark.full
def test_promise_9_another_vni_in_the_lease(stage: Faulty) -> None:
    """An agent that still has an earlier config, for example."""
    one, far = stage.nodes
    key = f"/hostmesh/subnets/{far.subnet().replace('/', '-')}"
    with altered(stage):
        record = stage.etcdctl("get", key, "--print-value-only").stdout
        value = json.loads(record)
        value["BackendData"]["VNI"] = 7
        put(stage, key, json.dumps(value))
        eventually(lambda: "unreachable" in str(one.document("routes")["routes"]), 20)
        assert "node2 publishes VNI 7, this host 1" in found(one, far)
        check = checked(one)
        assert (check["state"], check["found"]) == ("fail", "node2 publishes VNI 7, this host 1")
        put(stage, key, record)
    stage.repaired()


def put(stage: Faulty, key: str, value: str) -> None:
    """Write a record under the etcd lease that it has."""
    shown = json.loads(stage.etcdctl("get", key, "-w", "json").stdout)["kvs"][0]
    done = stage.etcdctl("put", key, value, f"--lease={shown.get('lease', 0):x}")
    assert done.returncode == 0, done.stderr


@WIREGUARD
@pytest.mark.full
def test_promise_9_another_port_than_the_lease_says(stage: Faulty) -> None:
    """The device there has moved; a handshake from it heals the tunnel, which stays odd."""
    one, far = stage.nodes
    with altered(stage, "wg set hm-wg listen-port 51999"):
        text = found(one, far)
        assert "node2 sends from UDP port 51999, its lease says 51820; look at node2" in text
    stage.repaired()


def new_key() -> str:
    raw = bytearray(os.urandom(32))
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    return base64.b64encode(bytes(raw)).decode()


def wrong_key_there(_stage: Faulty) -> str:
    return f"umask 077; echo {new_key()} > /run/key; wg set hm-wg private-key /run/key; rm /run/key"


def wrong_key_of_this_host(stage: Faulty) -> str:
    one, _ = stage.nodes
    public = subprocess.run(
        ["wg", "pubkey"], input=new_key(), capture_output=True, text=True, check=True
    ).stdout.strip()
    peer = f"peer {public} allowed-ips {one.subnet()} endpoint {one.address}:51820"
    return f"wg set hm-wg peer {public_key(one)} remove; wg set hm-wg {peer}"


OTHER_KEY = "node2 uses another key than its lease says"
FOR_ANOTHER_KEY = "packets of node2 arrive here, made for another key than this host's"


@WIREGUARD
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (wrong_key_there, OTHER_KEY),
        pytest.param(wrong_key_of_this_host, FOR_ANOTHER_KEY, marks=pytest.mark.full),
    ],
    ids=["there", "of this host"],
)
def test_promise_9_another_key(stage: Faulty, change: Callable[[Faulty], str], words: str) -> None:
    one, far = stage.nodes
    with altered(stage, change(stage)):
        text = found(one, far)
        assert words in text
        assert "look at node2: wg show hm-wg" in text
    stage.repaired()
