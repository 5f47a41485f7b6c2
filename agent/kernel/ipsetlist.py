"""Listing one ipset, fast enough to do it every few seconds: 10,000 members in a few milliseconds.

The library makes objects of each attribute of each member, which takes most of a second for as
many. Sources: linux/netfilter/ipset/ip_set.h, net/netfilter/ipset/ip_set_hash_gen.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.kernel.codec import attribute, attributes
from agent.kernel.netlink import NetlinkError, NetlinkSocket

__all__ = ["SetListing", "dump_set", "listing_of"]

_NETLINK_NETFILTER: Final = 12
_LIST: Final = 6 << 8 | 7
"""NFNL_SUBSYS_IPSET and IPSET_CMD_LIST."""
_PROTOCOL: Final = 6
_MESSAGE: Final = struct.Struct("!BBH")
"""struct nfgenmsg: family, version, resource id."""
_A_PROTOCOL, _A_SETNAME, _A_TYPENAME, _A_ADT = 1, 2, 3, 8
_A_DATA, _A_IP, _A_IPV4 = 7, 1, 1
_A_CIDR, _A_PORT, _A_PROTO, _A_IFACE = 3, 4, 7, 23
_NESTED: Final = 0x8000
_NET_BYTEORDER: Final = 0x4000
_MEMBER: Final = struct.Struct("=12s4s")
_PLAIN_HEADS: Final = frozenset(
    struct.pack("=HHHHHH", 16, _A_DATA | _NESTED, 12, _A_IP | _NESTED, 8, _A_IPV4 | flag)
    for flag in (0, _NET_BYTEORDER)
)
"""What stands before the address of a member that has nothing but an address; the flag says
what holds without it too."""


@dataclass(frozen=True, slots=True)
class SetListing:
    """A set as the kernel has it: its type, and its members.

    A member is the IPv4 address in network order, and behind it what the set's type has more:
    the number of the protocol and the port, or the prefix's length and the interface.
    """

    kind: str
    members: frozenset[bytes]


def dump_set(name: str) -> list[bytes]:
    """The whole set as the kernel tells it, nothing when there is none of that name.

    Told twice in the same bytes it is the same set. Opens its own socket.

    Raises:
        KernelError: The kernel refused, or the list was not complete.
    """
    body = _MESSAGE.pack(socket.AF_INET, 0, 0)
    body += attribute(_A_PROTOCOL, bytes([_PROTOCOL])) + attribute(
        _A_SETNAME, name.encode("ascii") + b"\0"
    )
    try:
        with NetlinkSocket(family=_NETLINK_NETFILTER) as connection:
            return connection.dump(_LIST, body, f"listing ipset {name}")
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return []
        raise


def listing_of(payloads: list[bytes]) -> SetListing | None:
    """What :func:`dump_set` was told; None when there is no such set."""
    kind = ""
    members: list[bytes] = []
    for payload in payloads:
        for number, value in attributes(payload, _MESSAGE.size):
            if number == _A_TYPENAME:
                kind = value.rstrip(b"\0").decode("ascii", "replace")
            elif number == _A_ADT:
                members += _members(value)
    return SetListing(kind, frozenset(members)) if payloads else None


def _members(entries: bytes) -> Iterator[bytes]:
    if len(entries) % _MEMBER.size == 0:
        found = tuple(zip(*_MEMBER.iter_unpack(entries), strict=True))
        if found and _PLAIN_HEADS.issuperset(found[0]):
            return iter(found[1])
    return _odd_members(entries)


def _odd_members(entries: bytes) -> Iterator[bytes]:
    """Members with more than an address: by the set's type, or a timeout, counters, a comment."""
    for number, entry in attributes(entries, 0):
        if number == _A_DATA:
            found = dict(attributes(entry, 0))
            address = dict(attributes(found.get(_A_IP, b""), 0)).get(_A_IPV4)
            if address is not None:
                yield address + _more(found)


def _more(found: dict[int, bytes]) -> bytes:
    if _A_PORT in found:
        return found.get(_A_PROTO, b"\0") + found[_A_PORT]
    if _A_IFACE in found:
        return found.get(_A_CIDR, b"\0") + found[_A_IFACE].rstrip(b"\0")
    return b""
