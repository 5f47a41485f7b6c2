"""Test whether the underlay carries packets from containers' addresses.

Clouds, and switches with port security, drop packets of a host from addresses that are not its
own. Nothing on the host shows that, and the mesh does not work. So a peer is asked twice: from the
node address, which must work, and from an address of this host's subnet.

Both requests are frames built here, below this host's netfilter: there Docker's MASQUERADE would
give the second one the node address, and every host would look filtered. A peer's INPUT may be
closed to containers' addresses, which says nothing of the underlay. So the peer is also asked to
forward a packet whose TTL ends there: its kernel answers before any rule of FORWARD.

Sources: RFC 792 (echo), RFC 826 (ARP), packet(7).
"""

from __future__ import annotations

import enum
import os
import select
import socket
import struct
import time
from ipaddress import IPv4Address
from typing import Final

from agent.errors import KernelError
from agent.kernel.liveness.arp import BROADCAST, ETHERNET, ETHERTYPE_ARP, arp_request, arp_sender
from agent.kernel.liveness.icmp import echo_error, echo_packet, echo_reply
from agent.model import Uplink
from agent.model.family import Address

__all__ = ["ETHERTYPE_IP", "Passage", "hardware_address", "passage", "socket_on"]

ETHERTYPE_IP: Final = 0x0800
_IP: Final = struct.Struct("!BBHHHBBH4s4s")


class Passage(enum.Enum):
    """The result of asking a peer."""

    OPEN = "open"  # a container's packets arrive, and so do answers to them
    FILTERED = "filtered"  # only those of the node address do
    UNKNOWN = "unknown"  # the peer answers neither


def passage(
    uplink: Uplink,
    peer: Address,
    source: Address,
    *,
    beyond: Address | None = None,
    attempts: int = 6,
    wait_s: float = 0.5,
) -> Passage:
    """Ask a peer from the node address and from ``source``; takes up to ``attempts * wait_s``.

    Args:
        uplink: Where to send.
        peer: A peer's node address, on the link. Its routes must lead ``source``'s subnet here.
        source: An address in this host's subnet; no interface need have it.
        beyond: An address in the peer's subnet that is not the peer's own.

    Raises:
        KernelError: Nothing can be sent or heard (not root, interface down).
    """
    identifier = int.from_bytes(os.urandom(2))
    sources = {source, uplink.node_address}
    heard: set[Address] = set()
    try:
        with socket_on(uplink.name, ETHERTYPE_IP) as link:
            hop = hardware_address(uplink.name, uplink.node_address, peer, attempts, wait_s)
            if hop is None:
                return Passage.UNKNOWN
            to = (uplink.name, ETHERTYPE_IP, 0, 0, hop)
            for sequence in range(attempts):
                for each in sources - heard:
                    link.sendto(echo_packet(each, peer, identifier, sequence), to)
                if beyond is not None and source not in heard:
                    link.sendto(echo_packet(source, beyond, identifier, sequence, ttl=1), to)
                heard |= _listen(link, peer, identifier, sources - heard, wait_s)
                if heard == sources:
                    return Passage.OPEN
    except OSError as error:
        raise KernelError(f"cannot probe {peer} by {uplink.name}: {error}") from error
    return Passage.FILTERED if uplink.node_address in heard else Passage.UNKNOWN


def socket_on(link: str, protocol: int) -> socket.socket:
    """Return a socket that sends packets by a link, below this host's netfilter.

    Raises:
        OSError: Not root, or there is no such link.
    """
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(protocol))
    try:
        opened.bind((link, protocol))
    except OSError:
        opened.close()
        raise
    return opened


def hardware_address(
    link: str, own: Address, hop: Address, attempts: int, wait_s: float
) -> bytes | None:
    """Ask for the hardware address of a next hop: b"" on a link without any, None unanswered.

    Args:
        own: This host's address on the link.
    """
    with socket_on(link, ETHERTYPE_ARP) as asking:
        hardware, mac = asking.getsockname()[3:5]
        if hardware != ETHERNET:
            return b""
        request = arp_request(mac, own, hop)
        for _ in range(attempts):
            asking.sendto(request, (link, ETHERTYPE_ARP, 0, 0, BROADCAST))
            until_s = time.monotonic() + wait_s
            while (left_s := until_s - time.monotonic()) > 0:
                if not select.select([asking], [], [], left_s)[0]:
                    break
                found = arp_sender(asking.recv(2048))
                if found is not None and found[0] == hop:
                    return found[1]
    return None


def _listen(
    back: socket.socket,
    peer: Address,
    identifier: int,
    awaited: set[Address],
    wait_s: float,
) -> set[Address]:
    """Return which of ``awaited`` got their echo, at the latest after ``wait_s``."""
    until_s, heard = time.monotonic() + wait_s, set[Address]()
    while awaited - heard and (left_s := until_s - time.monotonic()) > 0:
        if not select.select([back], [], [], left_s)[0]:
            break
        packet, about = back.recvfrom(2048)
        target = _reply_to(packet, peer, identifier)
        if target in awaited and about[2] != socket.PACKET_OUTGOING:
            heard.add(target)
    return heard


def _reply_to(packet: bytes, peer: Address, identifier: int) -> Address | None:
    """Return the address whose request was answered, by an echo or by an error about it."""
    if len(packet) < _IP.size:
        return None
    header = _IP.unpack_from(packet)
    if header[6] != socket.IPPROTO_ICMP:
        return None
    begin = (header[0] & 0x0F) * 4
    answer, error = echo_reply(packet, begin), echo_error(packet, begin)
    if answer is not None and answer[0] == identifier and header[8] == peer.packed:
        return IPv4Address(header[9])
    if error is not None and error.identifier == identifier:
        return error.source
    return None
