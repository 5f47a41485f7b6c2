"""ARP for IPv4 on Ethernet: the request as bytes, and any message read (RFC 826). Pure."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final

from agent.model.family import Address

__all__ = ["BROADCAST", "ETHERNET", "ETHERTYPE_ARP", "arp_request", "arp_sender"]

ETHERNET: Final = 1
"""ARPHRD_ETHER: other links have no ARP."""
ETHERTYPE_ARP: Final = 0x0806
BROADCAST: Final = b"\xff" * 6
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST, _REPLY = 1, 2
_ETHERTYPE_IP: Final = 0x0800


def arp_request(own_mac: bytes, own: Address, wanted: Address) -> bytes:
    """Ask which hardware address ``wanted`` has."""
    return _ARP.pack(
        ETHERNET, _ETHERTYPE_IP, 6, 4, _REQUEST, own_mac, own.packed, bytes(6), wanted.packed
    )


def arp_sender(packet: bytes) -> tuple[Address, bytes] | None:
    """Return the sender of a reply, or of a request (RFC 826 takes both), and its MAC."""
    try:
        _, _, _, _, operation, mac, sender, _, _ = _ARP.unpack_from(packet)
    except struct.error:
        return None
    if operation not in (_REQUEST, _REPLY):
        return None
    return IPv4Address(sender), mac
