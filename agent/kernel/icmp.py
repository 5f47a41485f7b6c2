"""ICMP echo: the request as bytes, and the answer read (RFC 792). Pure."""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["echo_reply", "echo_request"]

_ECHO: Final = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
_REQUEST: Final = 8
_REPLY: Final = 0


def echo_request(identifier: int, number: int = 0, body: bytes = b"") -> bytes:
    """Return an echo request with its checksum, for a raw socket (raw(7) fills in none of it)."""
    blank = _ECHO.pack(_REQUEST, 0, 0, identifier, number)
    return _ECHO.pack(_REQUEST, 0, _checksum(blank + body), identifier, number) + body


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


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF
