"""Netlink messages and attributes, written and read: the only place that knows their layout.

Sources: netlink(7), linux/netlink.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

__all__ = [
    "ACK",
    "APPEND",
    "CREATE",
    "EXCLUSIVE",
    "HEADER",
    "NESTED",
    "NET_BYTEORDER",
    "REPLACE",
    "REQUEST",
    "attribute",
    "attributes",
    "frame",
    "messages",
    "nested",
    "text_of",
    "u32",
    "u32_of",
]

HEADER: Final = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port id."""

REQUEST, ACK = 0x1, 0x4
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
"""NLM_F_*."""
NESTED, NET_BYTEORDER = 0x8000, 0x4000
"""NLA_F_*."""

_ATTRIBUTE: Final = struct.Struct("=HH")
_U32: Final = struct.Struct("=I")
_TYPE_MASK: Final = 0x3FFF  # NLA_TYPE_MASK: without NLA_F_NESTED and NLA_F_NET_BYTEORDER


def frame(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """Return a complete message."""
    return HEADER.pack(HEADER.size + len(body), kind, REQUEST | flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """Yield (type, flags, sequence, port id, payload) of each message; nonsense ends it."""
    offset, end = 0, len(data)
    while offset + HEADER.size <= end:
        length, kind, flags, sequence, port = HEADER.unpack_from(data, offset)
        if length < HEADER.size or offset + length > end:
            return
        yield kind, flags, sequence, port, data[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


def attribute(number: int, value: bytes) -> bytes:
    """Return one attribute, padded to four bytes (struct nlattr)."""
    raw = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), number) + value
    return raw + bytes(-len(raw) % 4)


def nested(number: int, *parts: bytes) -> bytes:
    """Return an attribute that consists of others."""
    return attribute(number | NESTED, b"".join(parts))


def u32(number: int, value: int) -> bytes:
    """Return an attribute of four bytes in the host's order."""
    return attribute(number, _U32.pack(value))


def attributes(payload: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield (type, value) of each attribute from ``offset`` on."""
    end = len(payload)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, payload[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def u32_of(value: bytes) -> int:
    """Return the number in an attribute of four bytes."""
    return int(_U32.unpack_from(value)[0])


def text_of(value: bytes) -> str:
    """Return the text in an attribute that ends with a zero byte."""
    return value.rstrip(b"\0").decode("utf-8", "replace")
