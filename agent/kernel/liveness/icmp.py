"""ICMP echo: the request as bytes, and the answer read (RFC 791, RFC 792). Pure."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final

from agent.model.family import Address

__all__ = ["echo_packet", "echo_reply", "echo_request", "error_about"]

_ECHO: Final = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
_REQUEST: Final = 8
_REPLY: Final = 0
_IP: Final = struct.Struct("!BBHHHBBH4s4s")
_VERSION_AND_LENGTH: Final = 0x45
_DONT_FRAGMENT: Final = 0x4000
_ICMP: Final = 1
_TTL: Final = 64
_UNREACHABLE, _TIME_EXCEEDED = 3, 11
_ERROR_BYTES: Final = 8


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


def error_about(packet: bytes, offset: int) -> tuple[Address, int] | None:
    """Read "unreachable" or "time exceeded" about an echo request.

    Args:
        offset: Where ICMP begins.

    Returns:
        The request's source and identifier; None when it is something else, or cut off.
    """
    about = offset + _ERROR_BYTES
    if len(packet) < about + _IP.size or packet[offset] not in (_UNREACHABLE, _TIME_EXCEEDED):
        return None
    header = _IP.unpack_from(packet, about)
    inner = about + (header[0] & 0x0F) * 4
    if header[6] != _ICMP or len(packet) < inner + _ECHO.size:
        return None
    kind, _code, _sum, identifier, _number = _ECHO.unpack_from(packet, inner)
    return (IPv4Address(header[8]), identifier) if kind == _REQUEST else None


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF
