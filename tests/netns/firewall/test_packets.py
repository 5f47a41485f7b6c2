"""Check with real packets which hosts reach which, on each engine's rules and each iptables."""

from typing import Any

import pytest

from tests.netns.firewall.rig.docker_rules import docker_text
from tests.netns.firewall.rig.probing import Probe
from tests.netns.firewall.rig.rig import (
    A1,
    C0,
    HOST,
    I1,
    O1,
    PEER,
    PEER_CONTAINER,
    PEER_SUBNET,
    STRANGER,
    Rig,
)

pytestmark = pytest.mark.netns

Expected = tuple[Probe, str | None]

GATEWAY = "10.65.0.1"
"""docker0's own address."""

MESH_REACHES: tuple[Expected, ...] = (
    *(
        (Probe("peer", C0, how, PEER_CONTAINER), PEER_CONTAINER)
        for how in ("tcp80", "tcp81", "udp81")
    ),
    (Probe("peer", C0, "icmp", PEER_CONTAINER), "yes"),
    *((Probe("peer", C0, how, PEER), PEER) for how in ("tcp80", "tcp81", "udp80", "udp81")),
    (Probe("peer", C0, "icmp", PEER), "yes"),
    (Probe("c0", PEER_CONTAINER, "tcp81"), C0),
    (Probe("c0", PEER_CONTAINER, "udp81"), C0),
    (Probe("c0", PEER_CONTAINER, "icmp"), "yes"),
    (Probe("a1", PEER_CONTAINER, "tcp81"), A1),
    (Probe("a1", PEER_CONTAINER, "udp81"), A1),
)
PUBLISHED: tuple[Expected, ...] = (
    (Probe("peer", A1, "tcp80", PEER_CONTAINER), PEER_CONTAINER),
    (Probe("peer", A1, "icmp", PEER_CONTAINER), "yes"),
    (Probe("peer", A1, "tcp80", PEER), PEER),
    (Probe("peer", A1, "icmp", PEER), "yes"),
    *(
        (Probe("peer", A1, how, source), None)
        for how in ("tcp81", "udp80", "udp81")
        for source in (PEER, PEER_CONTAINER)
    ),
)
WORLD: tuple[Expected, ...] = (
    (Probe("c0", STRANGER, "tcp81"), HOST),
    (Probe("a1", STRANGER, "udp81"), HOST),
    (Probe("o1", PEER_CONTAINER, "tcp81"), HOST),
    (Probe("c0", STRANGER, "icmp"), "yes"),
    (Probe("c0", PEER, "tcp81"), HOST),
)
HOST_PORTS: tuple[Expected, ...] = (
    (Probe("stranger", HOST, "tcp8080"), STRANGER),
    (Probe("stranger", HOST, "udp8080"), STRANGER),
    (Probe("stranger", HOST, "tcp8081"), STRANGER),
    (Probe("peer", HOST, "tcp8081", PEER_CONTAINER), PEER_CONTAINER),
)
STRANGERS: tuple[Expected, ...] = tuple(
    (Probe("stranger", to, how), None)
    for to in (C0, A1, I1)
    for how in ("icmp", "tcp80", "tcp81", "udp81")
)
ISOLATED: tuple[Expected, ...] = (
    *((Probe("c0", to, how), None) for to in (A1, I1, O1) for how in ("icmp", "tcp81", "udp81")),
    *((Probe(by, C0, how), None) for by in ("a1", "i1", "o1") for how in ("icmp", "tcp81")),
)
INTERNAL: tuple[Expected, ...] = (
    *((Probe("peer", I1, how, PEER_CONTAINER), None) for how in ("icmp", "tcp80", "udp81")),
    *((Probe("peer", I1, how, PEER), None) for how in ("icmp", "tcp80")),
    *((Probe("i1", to, "tcp81"), None) for to in (PEER_CONTAINER, PEER, STRANGER)),
    (Probe("i1", PEER_CONTAINER, "icmp"), None),
)
ALL = (*MESH_REACHES, *PUBLISHED, *WORLD, *HOST_PORTS, *STRANGERS, *ISOLATED, *INTERNAL)


def test_each_source_reaches_its_destinations_and_nothing_else(docked: Rig) -> None:
    docked.firewall("apply")
    docked.expect(*ALL)
    docked.iptables("-P", "FORWARD", "DROP")
    docked.expect(*ALL)


def test_it_would_not_be_so_without_us(docked: Rig, engine: str) -> None:
    """The rig is worth something: on the engines' own rules the opposite is the case."""
    reached = docked.reach(
        Probe("stranger", C0, "tcp81"),
        Probe("peer", C0, "tcp81", PEER_CONTAINER),
        Probe("c0", PEER_CONTAINER, "tcp81"),
    )
    open_router = STRANGER, PEER_CONTAINER, HOST
    assert reached == ([None, None, HOST] if engine == "28.5" else list(open_router))


def test_forward_ends_in_reject(docked: Rig) -> None:
    docked.iptables("-A", "FORWARD", "-j", "REJECT", "--reject-with", "icmp-host-prohibited")
    docked.firewall("apply")
    docked.expect(*ALL)


def test_forward_rejects_and_there_is_no_docker(bare: Rig) -> None:
    bare.iptables("-A", "FORWARD", "-j", "REJECT", "--reject-with", "icmp-host-prohibited")
    bare.firewall("apply")
    bare.expect(*MESH_REACHES, *STRANGERS, *INTERNAL)
    assert bare.firewall("check")["differs"] is False


def test_while_the_mesh_moves_both_ranges_are_the_mesh(docked: Rig) -> None:
    """The peer has its old subnet still and this host its new one; or the other way round."""
    docked.firewall("apply", cidr="172.31.0.0/16", previous=["10.64.0.0/10"])
    docked.expect(*ALL)
    other = {"eth0": [PEER]}
    docked.firewall("apply", cidr="172.31.0.0/16", previous=["10.65.0.0/16"], ingress=other)
    docked.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), None))


def test_promise_7_forged_own_addresses_are_not_forwarded_to_other_hosts(docked: Rig) -> None:
    """A tunnel would sign them: other hosts take them for packets of this host's containers."""
    forged = "10.65.0.78"
    docked.at["stranger"].ip(
        f"addr replace {forged}/32 dev lo", f"route replace {PEER_SUBNET} via {HOST}"
    )
    to_peer = Probe("stranger", PEER_CONTAINER, "udp81", forged)
    docked.reach(to_peer, timeout_s=0.2)
    assert docked.at["peer"].seen("udp"), "the rig is worth something"
    docked.firewall("apply")
    docked.reach(to_peer, timeout_s=0.2)
    assert not docked.at["peer"].seen("udp")
    docked.expect(*ALL)


def test_forged_own_addresses_reach_no_container(docked: Rig, engine: str) -> None:
    """Addresses of the lease as source, from outside: Docker's isolation trusts them."""
    forged = "10.65.129.77"
    docked.at["stranger"].ip(f"addr replace {forged}/32 dev lo")
    probes = [Probe("stranger", to, "udp80", forged) for to in (I1, A1)]
    docked.reach(*probes, timeout_s=0.2)
    assert docked.at["i1"].seen("udp") == {forged} or engine == "28.5"
    docked.at["a1"].seen("udp")
    docked.firewall("apply")
    docked.reach(*probes, timeout_s=0.2)
    assert docked.at["i1"].seen("udp") == docked.at["a1"].seen("udp") == set()


def test_a_peer_that_left_or_is_dead_is_a_stranger_its_running_flows_too(docked: Rig) -> None:
    """Its subnet and its node address go; a packet of a known flow is dropped as any other."""

    def goes() -> bool:
        number = docked.at["peer"].ask(
            "udp", to=C0, port=81, source=PEER_CONTAINER, from_port=4003, timeout_s=0.5
        )
        return bool(docked.at["peer"].answers(1)[number] == PEER_CONTAINER)

    docked.firewall("apply")
    assert goes()
    docked.firewall("apply", ingress={"eth0": []})
    assert not goes()
    docked.expect(
        *(
            (Probe("peer", C0, how, source), None)
            for how in ("tcp81", "icmp")
            for source in (PEER, PEER_CONTAINER)
        ),
        (Probe("peer", HOST, "tcp8081", PEER_CONTAINER), PEER_CONTAINER),
    )
    docked.firewall("apply")
    assert goes()


UNLEASED = "10.99.0.7"
"""In the mesh's range, and of no host's lease."""


def test_promise_5_a_source_in_no_lease_is_dropped(docked: Rig) -> None:
    """Forged by a neighbour on the LAN; answers would go nowhere, but packets came in."""
    docked.at["stranger"].ip(f"addr replace {UNLEASED}/32 dev lo")
    docked.at["c0"].seen("udp")
    ways = [Probe("stranger", to, "udp81", UNLEASED) for to in (C0, GATEWAY)]
    docked.firewall("apply", ingress={"eth0": [PEER, "10.99.0.0/16"]})
    docked.reach(*ways, timeout_s=0.2)
    assert (docked.at["c0"].seen("udp"), docked.host.seen("udp")) == ({UNLEASED}, {UNLEASED})
    docked.firewall("apply")
    docked.reach(*ways, timeout_s=0.2)
    assert (docked.at["c0"].seen("udp"), docked.host.seen("udp")) == (set(), set())


def test_promise_8_what_should_come_by_the_tunnel_is_dropped_on_the_uplink(docked: Rig) -> None:
    """As with an encrypted backend: the peer is reached by a link of its own, the LAN sees
    nothing of it, and a neighbour writes plaintext into the LAN, even into a running flow."""
    host, peer = docked.host, docked.at["peer"]
    made = f"link add tun0 type veth peer name tun0 netns {peer.pid}"
    host.ip(made, "addr add 192.168.77.1/24 dev tun0", "link set tun0 up")
    peer.ip("addr add 192.168.77.2/24 dev tun0", "link set tun0 up")
    for end in (host, peer):
        end.sysctl(conf__tun0__rp_filter=0)
    try:
        host.ip("route replace 10.66.0.0/16 via 192.168.77.2")
        peer.ip("route replace 10.65.0.0/16 via 192.168.77.1")
        docked.firewall("apply", ingress={"eth0": [], "tun0": [PEER, PEER_SUBNET]})
        docked.expect(
            (Probe("peer", C0, "tcp81", PEER_CONTAINER), PEER_CONTAINER),
            (Probe("peer", A1, "tcp80", PEER_CONTAINER), PEER_CONTAINER),
            (Probe("c0", PEER_CONTAINER, "tcp81"), C0),
            (Probe("stranger", C0, "tcp81"), None),
            (Probe("stranger", HOST, "tcp8080"), STRANGER),
        )
        flow = {"to": C0, "port": 81, "source": PEER_CONTAINER, "from_port": 4004}
        number = peer.ask("udp", **flow, timeout_s=2)
        assert peer.answers(1)[number] == PEER_CONTAINER
        docked.at["c0"].seen("udp")
        docked.at["stranger"].ip(f"addr replace {PEER_CONTAINER}/32 dev lo")
        number = docked.at["stranger"].ask("udp", **flow, timeout_s=0.2)
        assert docked.at["stranger"].answers(1)[number] is None
        assert docked.at["c0"].seen("udp") == set(), "plaintext in a flow of the tunnel's"
        docked.firewall("apply", ingress={"eth0": [PEER_SUBNET], "tun0": [PEER, PEER_SUBNET]})
        number = docked.at["stranger"].ask("udp", **flow, timeout_s=0.2)
        docked.at["stranger"].answers(1)
        assert docked.at["c0"].seen("udp") == {PEER_CONTAINER}, "the rig is worth a test"
    finally:
        docked.at["stranger"].ip(f"addr del {PEER_CONTAINER}/32 dev lo")
        host.ip("link del tun0", f"route replace 10.66.0.0/16 via {PEER}")
        peer.ip(f"route replace 10.65.0.0/16 via {HOST}")


@pytest.mark.parametrize("access", ["open", "published", "closed"])
def test_access_of_a_network_switches_live(docked: Rig, access: str) -> None:
    networks = [
        {"bridge": "docker0", "subnet": "10.65.0.0/17"},
        {"bridge": "br-app", "subnet": "10.65.128.0/24", "labels": {"hostmesh.access": access}},
    ]
    docked.firewall("apply")
    docked.firewall("apply", networks=networks)
    inward = PEER_CONTAINER if access != "closed" else None
    docked.expect(
        (Probe("peer", A1, "tcp80", PEER_CONTAINER), inward),
        (Probe("peer", A1, "tcp81", PEER_CONTAINER), inward if access == "open" else None),
        (Probe("peer", A1, "icmp", PEER_CONTAINER), "yes" if inward else None),
        (Probe("a1", PEER_CONTAINER, "tcp81"), A1 if inward else HOST),
        (Probe("peer", HOST, "tcp8081", PEER), PEER),
        (Probe("c0", A1, "tcp81"), None),
    )


@pytest.mark.parametrize("said", [{"default_access": "closed"}, {"host_limit": "closed"}])
def test_closing_a_network_cuts_running_flows_from_the_mesh_and_no_others(
    docked: Rig, said: dict[str, str]
) -> None:
    """The mesh's config and the host's own setting, switched live."""
    mesh: dict[str, Any] = {"to": A1, "ident": 78, "timeout_s": 0.5, "source": PEER_CONTAINER}
    world: dict[str, Any] = {"to": STRANGER, "ident": 79, "timeout_s": 0.5}

    def goes(by: str, flow: dict[str, Any]) -> bool:
        number = docked.at[by].ask("icmp", **flow)
        return bool(docked.at[by].answers(1)[number])

    docked.firewall("apply")
    assert goes("peer", mesh)
    assert goes("a1", world)
    docked.firewall("apply", **said)
    assert not goes("peer", mesh)
    assert goes("a1", world)
    docked.expect(
        (Probe("a1", PEER_CONTAINER, "tcp81"), HOST),
        (Probe("peer", HOST, "tcp8081", PEER), PEER),
        (Probe("peer", C0, "tcp81", PEER), PEER if "default_access" in said else None),
    )
    docked.firewall("apply")
    assert goes("peer", mesh)


def test_from_open_to_published_running_flows_go_on_and_new_ones_do_not(docked: Rig) -> None:
    """As docs/docker.md says: closing a network is what cuts what runs."""

    def goes(from_port: int) -> bool:
        number = docked.at["peer"].ask(
            "udp", to=A1, port=81, source=PEER_CONTAINER, from_port=from_port, timeout_s=0.5
        )
        return bool(docked.at["peer"].answers(1)[number] == PEER_CONTAINER)

    docked.firewall("apply", default_access="open")
    assert goes(4001)
    docked.firewall("apply", default_access="published")
    assert goes(4001)
    assert not goes(4002)
    docked.firewall("apply", default_access="closed")
    assert not goes(4001)


def test_between_networks_of_one_host_an_operators_word_counts(bare: Rig) -> None:
    """From a Docker network outside the lease to one inside: none of our business."""
    bare.restore(docker_text("20.10"))
    for there, back in (("br-old", "docker0"), ("docker0", "br-old")):
        bare.iptables("-I", "FORWARD", "2", "-i", there, "-o", back, "-j", "ACCEPT")
    bare.firewall("apply")
    bare.expect((Probe("o1", C0, "tcp81"), "10.65.0.1"), (Probe("stranger", C0, "tcp81"), None))
