"""Does the underlay carry packets of containers? Asked with an echo from a container's address.

Clouds, and switches with port security, drop what a host sends from an address that is not its
own. Nothing on the host shows that; the mesh then simply does not work. So a peer is asked twice:
from the node address, which must work, and from an address of this host's subnet.

Sources: RFC 792 (echo), raw(7) (IP_HDRINCL), packet(7).
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
from agent.kernel.icmp import echo_reply, echo_request
from agent.model import Uplink

__all__ = ["Passage", "passage"]

_ETHERTYPE_IP: Final = 0x0800
_IP: Final = struct.Struct("!BBHHHBBH4s4s")
_VERSION_AND_LENGTH: Final = 0x45
_TTL: Final = 64


class Passage(enum.Enum):
    """What a peer's answers say of the underlay."""

    OPEN = "open"  # a container's packets arrive, and so do answers to them
    FILTERED = "filtered"  # only those of the node address do
    UNKNOWN = "unknown"  # the peer answers neither


def passage(
    uplink: Uplink,
    peer: IPv4Address,
    source: IPv4Address,
    *,
    attempts: int = 6,
    wait_s: float = 0.5,
) -> Passage:
    """Ask a peer from the node address and from ``source``; takes up to ``attempts * wait_s``.

    Args:
        uplink: Where to send.
        peer: A peer's node address, on the link. Its routes must lead ``source``'s subnet here.
        source: An address in this host's subnet; no interface need have it.

    Raises:
        KernelError: Nothing can be sent or heard (not root, interface down).
    """
    identifier = int.from_bytes(os.urandom(2))
    sources = {source, uplink.node_address}
    heard: set[IPv4Address] = set()
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as out,
            socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETHERTYPE_IP)) as back,
        ):
            out.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, uplink.name.encode())
            back.bind((uplink.name, _ETHERTYPE_IP))
            for sequence in range(attempts):
                for each in sources - heard:
                    out.sendto(_request(each, peer, identifier, sequence), (str(peer), 0))
                heard |= _listen(back, peer, identifier, sources - heard, wait_s)
                if heard == sources:
                    return Passage.OPEN
    except OSError as error:
        raise KernelError(f"cannot probe {peer} by {uplink.name}: {error}") from error
    return Passage.FILTERED if uplink.node_address in heard else Passage.UNKNOWN


def _request(source: IPv4Address, peer: IPv4Address, identifier: int, sequence: int) -> bytes:
    echo = echo_request(identifier, sequence)
    header = _IP.pack(
        _VERSION_AND_LENGTH, 0, _IP.size + len(echo), 0, 0, _TTL, socket.IPPROTO_ICMP, 0,
        source.packed, peer.packed,
    )  # fmt: skip
    return header + echo  # the kernel fills in the header's checksum (raw(7))


def _listen(
    back: socket.socket,
    peer: IPv4Address,
    identifier: int,
    awaited: set[IPv4Address],
    wait_s: float,
) -> set[IPv4Address]:
    """Return which of ``awaited`` got their echo, at the latest after ``wait_s``."""
    until_s, heard = time.monotonic() + wait_s, set[IPv4Address]()
    while awaited - heard and (left_s := until_s - time.monotonic()) > 0:
        if not select.select([back], [], [], left_s)[0]:
            break
        packet, about = back.recvfrom(2048)
        target = _reply_to(packet, peer, identifier)
        if target in awaited and about[2] != socket.PACKET_OUTGOING:
            heard.add(target)
    return heard


def _reply_to(packet: bytes, peer: IPv4Address, identifier: int) -> IPv4Address | None:
    if len(packet) < _IP.size:
        return None
    header = _IP.unpack_from(packet)
    if header[6] != socket.IPPROTO_ICMP or header[8] != peer.packed:
        return None
    answer = echo_reply(packet, (header[0] & 0x0F) * 4)
    if answer is None or answer[0] != identifier:
        return None
    return IPv4Address(header[9])
