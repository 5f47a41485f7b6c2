"""ICMP echo: the request as bytes, and the answer read (RFC 791, RFC 792). Pure."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from agent.model.family import Address

__all__ = [
    "HEADERS_BYTES",
    "LEAST_MTU",
    "PROBE_MTU",
    "EchoError",
    "echo_error",
    "echo_packet",
    "echo_reply",
    "echo_request",
]

HEADERS_BYTES: Final = 28
"""IPv4 without options, and ICMP."""
LEAST_MTU: Final = 576
"""RFC 791: every host takes that. A smaller figure is made up."""
PROBE_MTU: Final = (10, 3)
"""IP_MTU_DISCOVER and IP_PMTUDISC_PROBE (ip(7)): nothing is divided, no cached MTU counts."""

_ECHO: Final = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
_REQUEST: Final = 8
_REPLY: Final = 0
_IP: Final = struct.Struct("!BBHHHBBH4s4s")
_VERSION_AND_LENGTH: Final = 0x45
_DONT_FRAGMENT: Final = 0x4000
_ICMP: Final = 1
_TTL: Final = 64
_UNREACHABLE, _TIME_EXCEEDED = 3, 11
_ERROR: Final = struct.Struct("!BB2x2xH")


def echo_request(identifier: int, number: int = 0, body: bytes = b"") -> bytes:
    """Return an echo request with its checksum, for a raw socket (raw(7) fills in none of it)."""
    blank = _ECHO.pack(_REQUEST, 0, 0, identifier, number)
    return _ECHO.pack(_REQUEST, 0, _checksum(blank + body), identifier, number) + body


def echo_packet(
    source: Address,
    destination: Address,
    identifier: int,
    number: int = 0,
    *,
    ttl: int = _TTL,
) -> bytes:
    """Return a whole IPv4 packet with an echo request, as it is on the wire."""
    echo = echo_request(identifier, number)
    start = (_VERSION_AND_LENGTH, 0, _IP.size + len(echo), 0, _DONT_FRAGMENT, ttl, _ICMP)
    ends = (source.packed, destination.packed)
    return _IP.pack(*start, _checksum(_IP.pack(*start, 0, *ends)), *ends) + echo


def echo_reply(packet: bytes, offset: int) -> tuple[int, int] | None:
    """Read an echo reply.

    Args:
        offset: Where ICMP begins: behind the header of IPv4, if the packet has one.

    Returns:
        Identifier and number; None when it is something else, or cut off.
    """
    if len(packet) < offset + _ECHO.size:
        return None
    kind, _code, _sum, identifier, number = _ECHO.unpack_from(packet, offset)
    return (identifier, number) if kind == _REPLY else None


class EchoError(NamedTuple):
    """A router or host said that an echo request did not arrive.

    Attributes:
        kind, code: ICMP's.
        mtu: With "fragmentation needed": the largest packet that passes (RFC 1191), else 0.
        source: Of the request.
        identifier, number: Of the request.
    """

    kind: int
    code: int
    mtu: int
    source: Address
    identifier: int
    number: int


def echo_error(packet: bytes, offset: int) -> EchoError | None:
    """Read "unreachable" or "time exceeded" about an echo request.

    Args:
        offset: Where ICMP begins.

    Returns:
        None when it is something else, or cut off.
    """
    about = offset + _ERROR.size
    if len(packet) < about + _IP.size:
        return None
    kind, code, mtu = _ERROR.unpack_from(packet, offset)
    header = _IP.unpack_from(packet, about)
    inner = about + (header[0] & 0x0F) * 4
    if (
        kind not in (_UNREACHABLE, _TIME_EXCEEDED)
        or header[6] != _ICMP
        or len(packet) < inner + _ECHO.size
    ):
        return None
    asked, _code, _sum, identifier, number = _ECHO.unpack_from(packet, inner)
    if asked != _REQUEST:
        return None
    return EchoError(kind, code, mtu, IPv4Address(header[8]), identifier, number)


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF
