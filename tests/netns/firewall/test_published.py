"""Which of a container's ports the mesh reaches: those that are published to everybody."""

from typing import Any

import pytest

from tests.netns.firewall.rig.docker_rules import docker_text
from tests.netns.firewall.rig.probing import Probe
from tests.netns.firewall.rig.rig import A1, C0, CONTAINERS, HOST, PEER, PEER_CONTAINER, Rig

pytestmark = pytest.mark.netns

TO_A1 = tuple(Probe("peer", A1, "tcp80", source) for source in (PEER, PEER_CONTAINER))


def a1(*published: tuple[str, int, str], address: str = A1) -> tuple[dict[str, Any], ...]:
    """The rig's containers with another a1."""
    others = tuple(each for each in CONTAINERS if each["name"] != "a1")
    return (*others, {"name": "a1", "networks": {"br-app": address}, "published": published})


@pytest.mark.parametrize(
    ("shown_at", "opens"),
    [
        ("0.0.0.0", True),  # noqa: S104
        ("::", True),
        (HOST, True),
        ("127.0.0.1", False),
        ("::1", False),
        ("192.168.77.1", False),
        ("10.65.128.1", False),
    ],
)
def test_promise_5_a_port_published_at_one_address_of_the_host_only_stays_there(
    docked: Rig, shown_at: str, opens: bool
) -> None:
    """Docker's own chain accepts it in every case: it does not tell where it is published."""
    docked.firewall("apply", containers=a1(("tcp", 80, shown_at)))
    seen = (PEER, PEER_CONTAINER) if opens else (None, None)
    docked.expect(*zip(TO_A1, seen, strict=True))
    docked.expect(
        (Probe("peer", A1, "icmp", PEER_CONTAINER), "yes"),
        (Probe("peer", A1, "tcp81", PEER_CONTAINER), None),
        (Probe("peer", A1, "udp80", PEER_CONTAINER), None),
        (Probe("peer", C0, "tcp81", PEER_CONTAINER), PEER_CONTAINER),
        (Probe("stranger", A1, "tcp80"), None),
    )


def test_the_set_follows_containers_and_no_rule_is_written(docked: Rig) -> None:
    docked.firewall("apply", containers=())
    docked.expect((TO_A1[0], None))
    rules = docked.save()
    everywhere = "0.0.0.0"  # noqa: S104
    docked.firewall("apply", containers=a1(("tcp", 80, everywhere)))
    docked.expect((TO_A1[0], PEER))
    ports = tuple(("tcp", port, everywhere) for port in range(1000, 3000))
    docked.firewall("apply", containers=a1(*ports, ("sctp", 81, "::"), ("udp", 81, everywhere)))
    docked.expect((TO_A1[0], None), (Probe("peer", A1, "udp81", PEER), PEER))
    docked.host.run("ipset", "test", "hostmesh-published", f"{A1},sctp:81")
    assert docked.save() == rules
    assert docked.firewall("check", containers=a1(*ports))["differs"] is True
    docked.firewall("apply", containers=a1(("tcp", 80, everywhere), address="10.65.128.9"))
    docked.expect((TO_A1[0], None))
    text = docked.firewall("show")
    assert "10.65.128.9 tcp 80" in text
    assert docked.firewall("remove")["differs"] is True
    assert docked.host.run("ipset", "list", "-n") == ""


def test_published_ports_need_no_chain_of_dockers(bare: Rig) -> None:
    """As after ``iptables -F``, or with "iptables": false."""
    bare.restore(docker_text("20.10"))
    bare.firewall("apply")
    bare.iptables("-F")
    bare.iptables("-P", "FORWARD", "DROP")
    bare.firewall("apply")
    bare.expect((TO_A1[0], PEER), (TO_A1[1], PEER_CONTAINER))
    bare.expect((Probe("peer", A1, "tcp81", PEER), None))
