"""Addresses of links, neighbour entries and forwarding entries of vxlan devices, as bytes.

Sources: rtnetlink(7), linux/if_addr.h, linux/neighbour.h, drivers/net/vxlan/vxlan_core.c.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from agent.kernel.netlink.message import attribute, attributes, u32
from agent.model import FAMILIES, IPV4, Address, Family, Interface

__all__ = [
    "AF_BRIDGE",
    "NUD_NOARP",
    "NUD_PERMANENT",
    "RTM_DELADDR",
    "RTM_DELNEIGH",
    "RTM_GETADDR",
    "RTM_GETNEIGH",
    "RTM_NEWADDR",
    "RTM_NEWNEIGH",
    "RawAddress",
    "RawNeighbour",
    "address_body",
    "address_request",
    "decode_address",
    "decode_neighbour",
    "neighbour_body",
    "neighbour_request",
    "permanent_part",
]

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

AF_BRIDGE: Final = 7
NUD_NOARP: Final = 0x40
NUD_PERMANENT: Final = 0x80
_BY_AF: Final = {family.af: family for family in FAMILIES}
_BY_LENGTH: Final = {family.bits // 8: family for family in FAMILIES}
_NUD_FAILED: Final = 0x20
_NUD_VALID: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80
"""REACHABLE, STALE, DELAY, PROBE, NOARP, PERMANENT: there is an address to send to."""
_IFADDR: Final = struct.Struct("=BBBBI")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_SECONDARY: Final = 0x01
_IFA_F_NODAD: Final = 0x02
"""IPv6 without duplicate address detection: nothing else is on the agent's links."""
_NDMSG: Final = struct.Struct("=BBHiHBB")
"""struct ndmsg: family, padding, index, state, flags, type."""
_NDA_DST, _NDA_LLADDR, _NDA_CACHEINFO, _NDA_IFINDEX = 1, 2, 3, 8


class RawAddress(NamedTuple):
    """An address of a link. ``secondary``: it goes when its primary goes."""

    link_index: int
    interface: Interface
    secondary: bool
    scope: int


def address_request(family: Family = IPV4, link_index: int = 0) -> bytes:
    """Body of RTM_GETADDR for all addresses, or for those of one link."""
    return _IFADDR.pack(family.af, 0, 0, 0, link_index)


def decode_address(payload: bytes) -> RawAddress | None:
    """Return the address in an ifaddrmsg, None when it has none.

    On a point-to-point link IFA_ADDRESS is the other end and IFA_LOCAL this one.
    """
    af, prefix_len, flags, scope, index = _IFADDR.unpack_from(payload)
    found = dict(attributes(payload, _IFADDR.size))
    value = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    family = _BY_AF.get(af)
    if family is None or value is None:
        return None
    interface = family.interface((int.from_bytes(value), prefix_len))
    return RawAddress(index, interface, bool(flags & _IFA_F_SECONDARY), scope)


def address_body(interface: Interface, link_index: int, family: Family) -> bytes:
    """Body of RTM_NEWADDR and RTM_DELADDR."""
    packed = interface.ip.packed
    flags = 0 if family is IPV4 else _IFA_F_NODAD
    return (
        _IFADDR.pack(family.af, interface.network.prefixlen, flags, 0, link_index)
        + attribute(_IFA_LOCAL, packed)
        + attribute(_IFA_ADDRESS, packed)
    )


class RawNeighbour(NamedTuple):
    """An entry of a neighbour table or, of AF_BRIDGE, of a forwarding table.

    Attributes:
        af: AF number of the table.
        address: The neighbour's; of a forwarding table the destination, None without one.
        flags: NTF_*.
    """

    af: int
    link_index: int
    address: Address | None
    mac: str
    state: int
    flags: int

    @property
    def failed(self) -> bool:
        """Whether nothing answered. Neither failed nor valid: the kernel is still asking."""
        return bool(self.state & _NUD_FAILED)

    @property
    def permanent(self) -> bool:
        """Whether a program wrote it, and the kernel keeps it as it is."""
        return bool(self.state & NUD_PERMANENT)

    @property
    def valid(self) -> bool:
        """Whether there is a MAC to send to."""
        return bool(self.state & _NUD_VALID)


def neighbour_request(af: int, link_index: int = 0) -> bytes:
    """Body of RTM_GETNEIGH for all entries of a table, or for those of one link."""
    if af == AF_BRIDGE:
        return _NDMSG.pack(af, 0, 0, link_index, 0, 0, 0)
    body = _NDMSG.pack(af, 0, 0, 0, 0, 0, 0)
    return body + u32(_NDA_IFINDEX, link_index) if link_index else body


def decode_neighbour(payload: bytes) -> RawNeighbour:
    """Return the entry in an ndmsg."""
    af, _, _, index, state, flags, _ = _NDMSG.unpack_from(payload)
    address, mac = None, ""
    for number, value in attributes(payload, _NDMSG.size):
        if number == _NDA_DST:
            family = _BY_LENGTH.get(len(value))
            address = None if family is None else family.address(value)
        elif number == _NDA_LLADDR:
            mac = value.hex(":")
    return RawNeighbour(af, index, address, mac, state, flags)


def permanent_part(payload: bytes, link_index: int) -> bytes | None:
    """Return what tells about a permanent entry of a link, None for another entry.

    That is all before NDA_CACHEINFO, which has ages. Kernels before 5.0 list all links' entries.
    """
    _, _, _, index, state, _, _ = _NDMSG.unpack_from(payload)
    if index != link_index or not state & NUD_PERMANENT:
        return None
    end = _NDMSG.size
    for number, value in attributes(payload, end):
        if number == _NDA_CACHEINFO:
            break
        end += (len(value) + 7) & ~3
    return payload[:end]


def neighbour_body(entry: RawNeighbour) -> bytes:
    """Body of RTM_NEWNEIGH and RTM_DELNEIGH."""
    body = _NDMSG.pack(entry.af, 0, 0, entry.link_index, entry.state, entry.flags, 0)
    if entry.address is not None:
        body += attribute(_NDA_DST, entry.address.packed)
    return body + attribute(_NDA_LLADDR, bytes.fromhex(entry.mac.replace(":", "")))
