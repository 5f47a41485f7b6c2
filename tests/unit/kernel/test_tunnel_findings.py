"""From the packets of a probe to why a tunnel is silent, and where to look."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from agent.kernel.diagnose.frames import Carried, Frame, read_wireguard
from agent.kernel.diagnose.tunnel import Tunnel
from agent.kernel.diagnose.tunnel_findings import published_difference, reason_of
from agent.kernel.diagnose.tunnel_probe import Seen, TunnelEnd
from agent.model import LinkSpec, VxlanOptions

pytestmark = pytest.mark.unit

KEY, OTHERS = (base64.b64encode(bytes([number] * 32)).decode() for number in (1, 2))


def end(number: int, **published: object) -> TunnelEnd:
    return TunnelEnd(
        name=f"host{number}",
        subnet=IPv4Network(f"10.{64 + number}.0.0/16"),
        node_address=IPv4Address(f"192.0.2.{number}"),
        published=published,
    )


HERE, THERE = end(1, VNI=1), end(2, VNI=1)
WG_HERE, WG_THERE = end(1, PublicKey=KEY, Port=51820), end(2, PublicKey=OTHERS, Port=51820)
VXLAN = Tunnel(
    link=LinkSpec(name="hm-vxlan", kind="vxlan", options=VxlanOptions(vni=1, port=8472)),
    port=8472,
    far=THERE.node_address,
    far_port=8472,
)
WIREGUARD = Tunnel(
    link=LinkSpec(name="hm-wg", kind="wireguard"),
    port=51820,
    far=THERE.node_address,
    far_port=51820,
    public_key=OTHERS,
    own_key=KEY,
)


def frame(source: str = "192.0.2.2", port: int = 8472, **values: Any) -> Frame:  # noqa: ANN401 - fields
    made = Frame(
        link="eth0",
        at_s=0.0,
        ttl=64,
        source=IPv4Address(source),
        destination=HERE.node_address,
        source_mac="",
        destination_mac="",
        protocol="udp",
        what="udp",
        source_port=port,
        port=port,
        carried=Carried("VXLAN", vni=1),
    )
    return replace(made, **values)


def seen(*arrived: Frame, **values: Any) -> Seen:  # noqa: ANN401 - fields
    return Seen("eth0", **{"left": True, "arrived": list(arrived), **values})


def initiation(key: str) -> Frame:
    """A handshake for the owner of a key, as far as its first code."""
    message = b"\x01\0\0\0" + bytes(112)
    secret = hashlib.blake2s(b"mac1----" + base64.b64decode(key)).digest()
    code = hashlib.blake2s(message, key=secret, digest_size=16).digest()
    made = frame(port=51820, payload=message + code + bytes(16))
    return replace(made, carried=read_wireguard(made))


REFUSED = frame(code=3, is_error=True)


@pytest.mark.parametrize(
    ("found", "text", "look"),
    [
        (seen(frame()), "this host's do not reach host2", "UDP port 8472 inbound on host2"),
        (seen(past=True), "its packets do not arrive here", "UDP port 8472 inbound on this host"),
        (seen(), "none of host2 arrives", "agentctl doctor on host2"),
        (seen(frame(), past=True), "do not come out of hm-vxlan", "iptables -nvL INPUT"),
        (seen(left=False), "no packet of hm-vxlan leaves by eth0", "ip -d link show hm-vxlan"),
        (seen(frame(port=8999)), "host2 sends to UDP port 8999", "look at host2"),
        (seen(frame(carried=Carried("VXLAN", vni=7))), "host2 sends VNI 7", "look at host2"),
        (seen(refusals=[REFUSED]), "refuses UDP port 8472", "look at host2"),
        (
            seen(refusals=[replace(REFUSED, source=IPv4Address("198.51.100.1"))]),
            "198.51.100.1 refuses packets to UDP port 8472 of host2",
            "at 198.51.100.1",
        ),
        (seen(answered=True), "answers now", "again"),
    ],
)
def test_why_vxlan_is_silent(found: Seen, text: str, look: str) -> None:
    reason = reason_of(VXLAN, HERE, THERE, found)
    assert text in reason.text
    assert look in reason.hint


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (seen(initiation(KEY), accepted=148), "this host's do not reach host2"),
        (seen(initiation(KEY), accepted=0), "host2 uses another key than its lease says"),
        (seen(initiation(OTHERS), accepted=0), f"made for another key than this host's {KEY}"),
        (seen(replace(initiation(KEY), source_port=4), accepted=148), "sends from UDP port 4, its"),
        (seen(), "none of host2 arrives"),
    ],
)
def test_why_wireguard_is_silent(found: Seen, text: str) -> None:
    reason = reason_of(WIREGUARD, WG_HERE, WG_THERE, found)
    assert text in reason.text
    assert "host2" in reason.hint


def test_behind_nat_any_port_is_right_and_without_an_endpoint_it_has_to_send_first() -> None:
    nat = end(2, PublicKey=OTHERS, Port=51820, NAT=True)
    arrived = seen(replace(initiation(KEY), source_port=4), accepted=148)
    assert "do not reach" in reason_of(WIREGUARD, WG_HERE, nat, arrived).text
    unknown = replace(WIREGUARD, far=None, far_port=0)
    assert "has to send first" in reason_of(unknown, WG_HERE, nat, seen(left=False)).text


@pytest.mark.parametrize(
    ("tunnel", "own", "text"),
    [
        (VXLAN, end(1, VNI=9), "host2 publishes VNI 1, this host 9"),
        (
            replace(VXLAN, link=replace(VXLAN.link, options=VxlanOptions(vni=4, port=8472))),
            HERE,
            "hm-vxlan of this host has VNI 4, its lease says 1",
        ),
        (replace(WIREGUARD, port=5), WG_HERE, "has Port 5, its lease says 51820"),
        (replace(WIREGUARD, own_key=OTHERS), WG_HERE, f"has PublicKey {OTHERS}, its lease says"),
    ],
)
def test_what_leases_and_the_own_device_say_comes_first(
    tunnel: Tunnel, own: TunnelEnd, text: str
) -> None:
    peer = WG_THERE if tunnel.encrypted else THERE
    assert text in reason_of(tunnel, own, peer, seen(past=True)).text


def test_what_need_not_be_equal_is_no_difference() -> None:
    assert published_difference(WG_HERE, end(2, PublicKey=OTHERS, Port=4)) is None
    assert published_difference(HERE, end(2)) is None
