"""The port of a tunnel: open to hosts of the mesh, closed to all else, and no container's."""

import re
from typing import Any

import pytest

from tests.netns.firewall.rig.probing import Probe
from tests.netns.firewall.rig.rig import C0, HOST, PEER, PEER_CONTAINER, STRANGER, Rig
from tests.netns.firewall.test_packets import ALL

pytestmark = pytest.mark.netns

TUNNEL = {"tunnels": [(81, "eth0")]}
"""The port at which the rig's hosts answer, and the link whose set has the peer's addresses."""
AUTHENTICATED = {"tunnels": [(81, "eth0", True)]}
FROM_PEER = Probe("peer", HOST, "udp81", PEER)
FROM_PEERS_CONTAINER = Probe("peer", HOST, "udp81", PEER_CONTAINER)
FROM_STRANGER = Probe("stranger", HOST, "udp81")
GATEWAY = "10.65.0.1"
"""docker0's own address."""


def test_the_port_is_open_to_node_addresses_of_peers_only(docked: Rig) -> None:
    """As beside ufw: INPUT drops what no rule lets in."""
    docked.iptables("-P", "INPUT", "DROP")
    try:
        docked.firewall("apply")
        docked.expect((FROM_PEER, None), (FROM_STRANGER, None))
        docked.firewall("apply", **TUNNEL)
        docked.expect(
            (FROM_PEER, PEER),
            (FROM_STRANGER, None),
            (FROM_PEERS_CONTAINER, None),
            (Probe("peer", HOST, "udp80", PEER), None),
        )
        docked.firewall("apply", **AUTHENTICATED)
        docked.expect((FROM_PEER, PEER), (FROM_STRANGER, STRANGER))
    finally:
        docked.iptables("-P", "INPUT", "ACCEPT")


def test_what_no_peer_sends_is_dropped_where_input_is_open(docked: Rig) -> None:
    docked.firewall("apply")
    docked.expect((FROM_STRANGER, STRANGER))
    docked.firewall("apply", **TUNNEL)
    docked.expect((FROM_PEER, PEER), (FROM_STRANGER, None), (Probe("c0", HOST, "udp81"), None))
    docked.expect(*ALL)


@pytest.mark.parametrize("tunnel", [TUNNEL, AUTHENTICATED], ids=["vxlan", "wireguard"])
def test_promise_11_containers_send_no_packets_of_the_tunnel(
    docked: Rig, tunnel: dict[str, Any]
) -> None:
    """Docker masquerades them: to the peer they would come from this host.

    Its own ports elsewhere and other machines' tunnels are left alone.
    """
    to_peer = [Probe(by, PEER, "udp81") for by in ("c0", "a1", "o1")]
    here = [Probe(by, to, "udp81") for by, to in (("c0", HOST), ("c0", GATEWAY), ("o1", HOST))]
    docked.firewall("apply")
    docked.expect(*((each, HOST) for each in to_peer))
    assert None not in docked.reach(*here, FROM_PEERS_CONTAINER)
    docked.firewall("apply", **tunnel)
    docked.expect(
        *((each, None) for each in (*to_peer, *here)),
        (Probe("c0", PEER, "udp80"), HOST),
        (Probe("c0", HOST, "udp80"), C0),
        (Probe("c0", PEER_CONTAINER, "udp81"), C0),
        (Probe("c0", STRANGER, "udp81"), HOST),
        (FROM_PEERS_CONTAINER, None),
        (FROM_PEER, PEER),
    )


def test_segments_are_clamped_while_there_is_a_tunnel(docked: Rig) -> None:
    docked.firewall("apply", **TUNNEL)
    clamped = [line for line in docked.save() if "--clamp-mss-to-pmtu" in line]
    assert ["-i eth0" in line for line in clamped] == [True, False]
    docked.expect(*ALL)


def test_the_chain_goes_with_the_tunnel(docked: Rig) -> None:
    before = docked.foreign()
    docked.firewall("apply", **TUNNEL)
    docked.firewall("apply", **TUNNEL)
    assert docked.firewall("check", **TUNNEL)["differs"] is False
    docked.iptables("-D", "INPUT", "1")
    docked.firewall("apply", **TUNNEL)
    docked.expect((FROM_STRANGER, None))
    docked.firewall("apply")
    assert not [line for line in docked.save() if re.search("HOSTMESH-(INPUT|TUNNELS|CLAMP)", line)]
    docked.firewall("remove")
    rules = [line for line in docked.foreign() if line.startswith("-A")]
    assert rules == [line for line in before if line.startswith("-A")]
