"""Containers write any source they like (NET_RAW): what of it leaves their host. And etcd."""

import json
from typing import Any

import pytest

from tests.netns.firewall.rig.probing import Probe
from tests.netns.firewall.rig.rig import (
    A1,
    C0,
    HOST,
    LEASE,
    PEER,
    PEER_CONTAINER,
    PEER_SUBNET,
    STRANGER,
    WANTS,
    Rig,
)
from tests.netns.firewall.test_packets import ALL

pytestmark = pytest.mark.netns

ELSEWHERE = "10.67.0.9"
"""A container of a host that is not here."""
THIRD = "192.168.9.4"
"""The node address of another peer."""
GATEWAY = "10.65.0.1"
"""docker0's own address."""
TO_PEER = {"to": PEER_CONTAINER, "at": "peer"}
TO_NODE = {"to": PEER, "at": "peer"}
TO_HOST = {"to": GATEWAY, "at": "host"}
FORGED_FROM = 4321
"""The port that forged packets are sent from."""
FORGED = (
    ("c0", ELSEWHERE, TO_PEER),
    ("c0", "10.65.128.77", TO_PEER),
    ("c0", "203.0.113.9", TO_PEER),
    ("c0", ELSEWHERE, TO_NODE),
    ("c0", THIRD, TO_NODE),
    ("c0", ELSEWHERE, TO_HOST),
    ("a1", C0, TO_PEER),
    ("o1", ELSEWHERE, TO_PEER),
    ("o1", "10.65.128.77", TO_PEER),
    ("a1", ELSEWHERE, TO_HOST),
    ("i1", ELSEWHERE, TO_HOST),
    ("i1", "10.65.0.77", TO_HOST),
    ("i1", THIRD, TO_HOST),
)
FRAMES: tuple[dict[str, Any], ...] = (
    {},
    {"fragments": True},
    {"tags": [0]},
    {"tags": [0xE000, 0]},
    {"tags": [0], "fragments": True},
)
"""VLAN 0 is none: the kernel takes such a tag off (IEEE 802.1Q, priority tagging)."""


def arrived(rig: Rig, by: str, source: str, where: dict[str, str], **how: object) -> bool:
    """Whether a packet with that source gets there; a true one behind it says that it had time."""
    rig.at[where["at"]].seen("udp")
    number = rig.at[by].ask("forge", to=where["to"], port=81, source=source, **how)
    assert rig.at[by].answers(1)[number] == "sent"
    assert rig.reach(Probe(by, where["to"], "udp81"), timeout_s=5) != [None]
    return source in rig.at[where["at"]].seen("udp")


def test_promise_5_a_container_sends_to_the_mesh_from_its_bridges_subnet_only(docked: Rig) -> None:
    docked.firewall("apply", networks=[])
    assert [each for each in FORGED if not arrived(docked, *each)] == [], "the rig is worth a test"
    docked.firewall("apply", ingress={"eth0": [PEER, THIRD, PEER_SUBNET]})
    assert [each for each in FORGED if arrived(docked, *each)] == []
    docked.expect(*ALL)


def test_promise_5_frames_to_a_bridge_are_held_too(docked: Rig) -> None:
    """No route is needed for them, as in an internal network. Tagged, in fragments, or both."""
    shown = json.loads(docked.host.run("ip", "-j", "link", "show", "type", "bridge"))
    macs = {each["ifname"]: each["address"] for each in shown}
    docked.at["i1"].ip("route del default")
    docked.at["i1"].ip("route add 10.65.0.1/32 via 10.65.129.1")
    ways = [
        (by, source, where, {"mac": macs[bridge], **frame})
        for by, bridge, source, where in (
            ("c0", "docker0", ELSEWHERE, TO_PEER),
            ("i1", "br-int", ELSEWHERE, TO_HOST),
            ("i1", "br-int", "10.65.0.77", TO_HOST),
        )
        for frame in FRAMES
    ]
    try:
        docked.firewall("apply", networks=[])
        lost = [each for each in ways if not arrived(docked, *each[:3], **each[3])]
        assert lost == [], "the rig is worth a test"
        docked.firewall("apply")
        assert [each for each in ways if arrived(docked, *each[:3], **each[3])] == []
    finally:
        docked.at["i1"].ip("route del 10.65.0.1/32", "route add default via 10.65.129.1")


def test_promise_5_another_nic_brings_no_packet_into_a_containers_flow(docked: Rig) -> None:
    """Docker's FORWARD drops all that no rule lets pass; no rule knows the second NIC."""
    neighbour, flow = docked.at["stranger"], {"to": PEER_CONTAINER, "port": 81, "source": C0}
    docked.host.ip(f"link add back type veth peer name eth1 netns {neighbour.pid}")
    docked.host.ip("link set back up")
    neighbour.ip("link set eth1 up")
    shown = json.loads(docked.host.run("ip", "-j", "link", "show", "back"))
    docked.iptables("-P", "FORWARD", "DROP")

    def injected() -> bool:
        c0 = docked.at["c0"]
        number = c0.ask("udp", **flow, from_port=FORGED_FROM, timeout_s=5)
        assert c0.answers(1)[number] == C0
        docked.at["peer"].seen("udp")
        number = neighbour.ask("forge", **flow, mac=shown[0]["address"], link="eth1")
        assert neighbour.answers(1)[number] == "sent"
        assert docked.reach(Probe("a1", PEER_CONTAINER, "udp81"), timeout_s=5) == [A1]
        return C0 in docked.at["peer"].seen("udp")

    rule = ["HOSTMESH-FORWARD", "-s", LEASE, "-o", "eth0"]
    rule += ["-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"]
    try:
        docked.firewall("apply")
        docked.iptables("-I", *rule)
        assert injected(), "the rig is worth a test"
        docked.iptables("-D", *rule)
        assert not injected()
    finally:
        docked.iptables("-P", "FORWARD", "ACCEPT")
        docked.host.ip("link del back")


def test_other_traffic_than_the_meshs_is_not_checked(docked: Rig) -> None:
    """A container may route for others: within its bridge, and to the world."""
    docked.firewall("apply")
    assert arrived(docked, "c0", "172.29.0.7", TO_HOST)
    assert arrived(docked, "c0", "172.29.0.7", TO_NODE)


def test_senders_follow_dockers_networks(docked: Rig) -> None:
    """docker0 on another subnet, a network that came, one that went."""
    networks = {each["bridge"]: each for each in WANTS["networks"]}
    docked.firewall("apply", networks=[networks["br-old"]])
    assert arrived(docked, "c0", ELSEWHERE, TO_PEER), "not known as Docker's"
    docked.firewall("apply", networks=list(networks.values()))
    assert not arrived(docked, "c0", ELSEWHERE, TO_PEER)
    moved = {**networks["docker0"], "subnet": "10.65.64.0/18"}
    docked.firewall("apply", networks=[moved, networks["br-app"]])
    docked.expect((Probe("c0", PEER_CONTAINER, "tcp81"), None))
    docked.expect((Probe("a1", PEER_CONTAINER, "tcp81"), A1))


def test_a_docker_network_on_the_uplinks_own_bridge_cuts_no_host_off(docked: Rig) -> None:
    lan = {"bridge": "eth0", "subnet": "192.168.9.0/24"}
    docked.firewall("apply", networks=[*WANTS["networks"], lan])
    docked.expect(
        (Probe("peer", C0, "tcp81", PEER_CONTAINER), PEER_CONTAINER),
        (Probe("c0", PEER_CONTAINER, "tcp81"), C0),
        (Probe("stranger", HOST, "tcp8080"), "192.168.9.3"),
    )


def test_a_container_with_several_networks_answers_by_any_of_them(docked: Rig) -> None:
    """Replies leave by the network with the default route, with the source that was addressed."""
    both = {"name": "c0", "networks": {"docker0": C0, "br-app": "10.65.128.9"}}
    inside = {"name": "i1", "networks": {"docker0": "10.65.0.9", "br-int": "10.65.129.9"}}
    docked.firewall("apply", containers=[both, inside])
    assert arrived(docked, "c0", "10.65.128.9", TO_PEER)
    assert arrived(docked, "a1", C0, TO_PEER)
    for forged in (
        ("c0", "10.65.128.10", TO_PEER),
        ("o1", "10.65.128.9", TO_PEER),
        ("c0", "10.65.129.9", TO_PEER),
    ):
        assert not arrived(docked, *forged), forged
    docked.firewall("apply", containers=[])
    assert not arrived(docked, "c0", "10.65.128.9", TO_PEER)


ETCD_ELSEWHERE = {"closed_endpoints": [(STRANGER, 80)]}
ETCD_HERE = {"closed_endpoints": [(HOST, 81)], "closed_ports": [81]}
AT_HOST = tuple(
    Probe(by, to, "tcp81")
    for by, to in (("c0", HOST), ("c0", GATEWAY), ("o1", GATEWAY), ("i1", "10.65.129.1"))
)
"""An etcd that listens on all addresses is at each of them."""
FROM_PEERS_CONTAINER = tuple(Probe("peer", to, "tcp81", PEER_CONTAINER) for to in (HOST, GATEWAY))


def test_promise_11_containers_are_kept_from_an_etcd_elsewhere(docked: Rig) -> None:
    ways = [Probe(by, STRANGER, "tcp80") for by in ("c0", "a1", "o1")]
    docked.firewall("apply")
    docked.expect(*((each, HOST) for each in ways))
    docked.firewall("apply", **ETCD_ELSEWHERE)
    docked.expect(
        *((each, None) for each in ways),
        (Probe("host", STRANGER, "tcp80"), HOST),
        (Probe("c0", PEER_CONTAINER, "tcp80"), C0),
        *ALL,
    )


def test_promise_11_containers_are_kept_from_an_etcd_of_this_host(docked: Rig) -> None:
    """At no address of the host, and those of other hosts neither."""
    docked.firewall("apply")
    assert None not in docked.reach(*AT_HOST, *FROM_PEERS_CONTAINER)
    docked.firewall("apply", **ETCD_HERE)
    assert docked.firewall("check", **ETCD_HERE)["differs"] is False
    docked.expect(
        *((each, None) for each in (*AT_HOST, *FROM_PEERS_CONTAINER)),
        (Probe("peer", HOST, "tcp81", PEER), PEER),
        (Probe("host", HOST, "tcp81"), HOST),
        (Probe("peer", C0, "tcp81", PEER_CONTAINER), PEER_CONTAINER),
        (Probe("c0", HOST, "tcp80"), C0),
        *ALL,
    )
