"""One packet on one link, read from its frame, and the packet that a tunnel's packet carries.

Sources: linux/if_ether.h, RFC 768, RFC 791, RFC 792, RFC 7348,
https://www.wireguard.com/protocol/ (messages).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from agent.kernel.diagnose.packet_filter import ETHERNET_BYTES
from agent.model.family import Address

__all__ = [
    "VXLAN_BYTES",
    "Carried",
    "Frame",
    "parse_frame",
    "parse_packet",
    "read_vxlan",
    "read_wireguard",
]

VXLAN_BYTES: Final = 8
"""VXLAN's header; the inner frame is behind it."""
_IP_BYTES: Final = 20
_UDP_BYTES: Final = 8
_ETH_P_IP: Final = b"\x08\x00"
_ICMP_BYTES: Final = 8
_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp"}
_ICMP: Final = {0: "echo reply", 3: "unreachable", 8: "echo request", 11: "time exceeded"}
_ICMP_ERRORS: Final = frozenset({3, 11})
_MIN_HEADER_WORDS: Final = 5
_VNI_IS_SET: Final = 0x08
_WIREGUARD: Final = {1: "handshake initiation", 2: "handshake response", 3: "cookie", 4: "data"}


@dataclass(frozen=True, slots=True)
class Carried:
    """The content of a tunnel's packet.

    Attributes:
        tunnel: "VXLAN" or "WireGuard".
        vni: VXLAN's network identifier.
        message: WireGuard's kind of message.
        inner: The packet inside; None where it is encrypted, or no IPv4.
    """

    tunnel: str
    vni: int | None = None
    message: str = ""
    inner: Frame | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One packet on one link.

    Attributes:
        link: The link's name.
        at_s: When the kernel saw it (Unix time).
        out: It left this host.
        source_mac, destination_mac: "" on a link without hardware addresses.
        what: "echo request", "echo reply", another ICMP message, or the protocol.
        identifier: An echo's, else None.
        source_port, port: UDP's source and destination port, else 0.
        payload: Of UDP, as far as it was captured; of an ICMP error the packet that it is about.
        code: ICMP's.
        carried: The content, where a tunnel's packet is expected.
    """

    link: str
    at_s: float
    ttl: int
    source: Address
    destination: Address
    source_mac: str
    destination_mac: str
    protocol: str
    what: str
    size: int = 0
    out: bool = False
    identifier: int | None = None
    source_port: int = 0
    port: int = 0
    payload: bytes = b""
    code: int = 0
    is_error: bool = False
    carried: Carried | None = None


def parse_frame(data: bytes, link: str, at_s: float, *, out: bool = False) -> Frame | None:
    """Return the packet in an Ethernet frame, None when it has no whole IPv4 header."""
    if len(data) < ETHERNET_BYTES or data[12:14] != _ETH_P_IP:
        return None
    packet, macs = data[ETHERNET_BYTES:], (data[6:12].hex(":"), data[0:6].hex(":"))
    return parse_packet(packet, link, at_s, macs=macs, out=out)


def parse_packet(
    packet: bytes,
    link: str,
    at_s: float,
    *,
    macs: tuple[str, str] = ("", ""),
    out: bool = False,
) -> Frame | None:
    """Return a packet without a frame, None when it has no whole IPv4 header."""
    if len(packet) < _IP_BYTES:
        return None
    words = packet[0] & 0xF
    if packet[0] >> 4 != 4 or words < _MIN_HEADER_WORDS:  # noqa: PLR2004 - IPv4
        return None
    protocol = _PROTOCOLS.get(packet[9], f"protocol {packet[9]}")
    what, identifier, ports, code = protocol, None, (0, 0), 0
    body, payload = packet[words * 4 :], b""
    first = int.from_bytes(packet[6:8]) & 0x1FFF == 0
    is_error = False
    if protocol == "icmp" and first and len(body) >= _ICMP_BYTES:
        what, code = _ICMP.get(body[0], f"icmp type {body[0]}"), body[1]
        is_error = body[0] in _ICMP_ERRORS
        identifier = int.from_bytes(body[4:6]) if what.startswith("echo") else None
        payload = body[_ICMP_BYTES:] if is_error else b""
    if protocol == "udp" and first:
        ports = int.from_bytes(body[0:2]), int.from_bytes(body[2:4])
        payload = body[_UDP_BYTES:]
    return Frame(
        link=link,
        at_s=at_s,
        ttl=packet[8],
        source=IPv4Address(packet[12:16]),
        destination=IPv4Address(packet[16:20]),
        source_mac=macs[0],
        destination_mac=macs[1],
        protocol=protocol,
        what=what,
        size=int.from_bytes(packet[2:4]),
        out=out,
        identifier=identifier,
        source_port=ports[0],
        port=ports[1],
        payload=payload,
        code=code,
        is_error=is_error,
    )


def read_vxlan(frame: Frame) -> Carried | None:
    """Return the content of a VXLAN packet, None where it is none."""
    header = frame.payload[:VXLAN_BYTES]
    if frame.protocol != "udp" or len(header) < VXLAN_BYTES or not header[0] & _VNI_IS_SET:
        return None
    inner = parse_frame(frame.payload[VXLAN_BYTES:], frame.link, frame.at_s)
    return Carried("VXLAN", vni=int.from_bytes(header[4:7]), inner=inner)


def read_wireguard(frame: Frame) -> Carried | None:
    """Return the kind of a WireGuard message, None where it is none."""
    kind = frame.payload[:4]
    if frame.protocol != "udp" or kind[1:] != b"\0\0\0" or kind[0] not in _WIREGUARD:
        return None
    return Carried("WireGuard", message=_WIREGUARD[kind[0]])
