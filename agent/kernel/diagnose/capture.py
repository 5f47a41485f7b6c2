"""Packets between two addresses, seen as they pass several links. Looks only, and only for a while.

One AF_PACKET socket for all links, so that frames come in the order in which the kernel handled
them, with a filter in the kernel so that a busy link costs nothing.
Sources: packet(7), linux/filter.h, linux/if_ether.h, RFC 791, RFC 792.
"""

from __future__ import annotations

import ctypes
import math
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from types import TracebackType
from typing import Final, Self

from agent.errors import KernelError, NotRoot
from agent.model.family import Address

__all__ = ["Capture", "Frame", "parse_frame"]

_ETH_P_ALL: Final = 3  # outgoing frames are shown to taps of every protocol only
_ETH_P_IP: Final = b"\x08\x00"
_ETHERNET_BYTES: Final = 14
_IP_BYTES: Final = 20
_ICMP_BYTES: Final = 8
_SNAP_BYTES: Final = 128
_SO_ATTACH_FILTER: Final = 26
_SO_TIMESTAMPNS: Final = 35
_SOL_PACKET: Final = 263
_ADD_MEMBERSHIP: Final = 1
_PROMISC: Final = 1
_MEMBERSHIP: Final = struct.Struct("=iHH8x")  # struct packet_mreq
_TIMESPEC: Final = struct.Struct("=qq")
_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp"}
_ICMP: Final = {0: "echo reply", 3: "unreachable", 8: "echo request", 11: "time exceeded"}
_ICMP_ERRORS: Final = frozenset({3, 11})
_MIN_HEADER_WORDS: Final = 5

# linux/bpf_common.h: load a half word or word at an offset, jump if equal, return.
_LD_H, _LD_W, _JEQ, _RET = 0x28, 0x20, 0x15, 0x06
_LINK_INDEX: Final = 0xFFFF_F008  # SKF_AD_OFF + SKF_AD_IFINDEX
_TYPE_AT, _SOURCE_AT, _DESTINATION_AT = 12, 26, 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One packet on one link.

    Attributes:
        link: The link's name.
        at_s: When the kernel saw it (Unix time).
        what: "echo request", "echo reply", another ICMP message, or the protocol.
        identifier: An echo's, else None.
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
    identifier: int | None = None
    is_error: bool = False


class Capture:
    """Listens from its making on; close it, or use it as a context manager.

    Args:
        links: Names of Ethernet links: bridges, the uplink.
        source, destination: Packets between the two count, and ICMP errors to ``source``.
        passed_on: Also what a bridge among ``links`` hands from one port to another by itself: it
            shows its own taps only what is for the host, unless one asks for everything.

    Raises:
        NotRoot: This user may not capture.
        KernelError: A link cannot be captured on.
    """

    def __init__(
        self,
        links: Sequence[str],
        source: Address,
        destination: Address,
        *,
        passed_on: bool = False,
    ) -> None:
        self._links = frozenset(links)
        self._source = source
        self._destination = destination
        self._socket = _open(sorted(self._links), source, destination, everything=passed_on)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def collect(
        self, *, most: int, timeout_s: float, identifier: int | None = None
    ) -> tuple[Frame, ...]:
        """What passed, in that order: until there are ``most``, or the time is over.

        Args:
            most: So many frames at most.
            timeout_s: Wait this long at most.
            identifier: Count echoes with this identifier, too, whatever address they have on
                a link: one that is translated on the way is the same packet.
        """
        found: list[Frame] = []
        deadline_s = time.monotonic() + timeout_s
        while len(found) < most and (left_s := deadline_s - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            frame = self._receive()
            if frame is not None and self._counts(frame, identifier):
                found.append(frame)
        return tuple(_in_time(found))

    def _receive(self) -> Frame | None:
        try:
            data, extra, _, address = self._socket.recvmsg(
                _SNAP_BYTES, socket.CMSG_SPACE(_TIMESPEC.size)
            )
        except OSError:  # nothing came, or a link went down
            return None
        if address[0] not in self._links:  # from before the filter was there
            return None
        at_s = time.time()
        for level, kind, value in extra:
            stamped = (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS)
            if stamped and len(value) == _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack(value)
                at_s = seconds + nanoseconds / 1e9
        return parse_frame(data, address[0], at_s)

    def _counts(self, frame: Frame, identifier: int | None) -> bool:
        ends = {frame.source, frame.destination}
        if identifier is not None and frame.identifier is not None:
            return frame.identifier == identifier
        return ends == {self._source, self._destination} or (
            frame.is_error and frame.destination == self._source
        )


def _in_time(frames: Sequence[Frame]) -> Iterator[Frame]:
    """The frames with times in their order.

    The kernel begins to stamp a moment after it was asked to (net_enable_timestamp); what came
    before is stamped when it is read, which is too late.
    """
    latest_s = math.inf
    times = []
    for frame in reversed(frames):
        latest_s = min(latest_s, frame.at_s)
        times.append(latest_s)
    for frame, at_s in zip(frames, reversed(times), strict=True):
        yield replace(frame, at_s=at_s)


def _open(
    links: Sequence[str], source: Address, destination: Address, *, everything: bool
) -> socket.socket:
    try:
        indexes = [socket.if_nametoindex(link) for link in links]
    except OSError as error:
        raise KernelError(f"cannot capture on {', '.join(links)}: {error.strerror}") from error
    try:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    except PermissionError as error:
        raise NotRoot("only root may capture packets", hint="run it with sudo") from error
    except OSError as error:
        raise KernelError(f"cannot open a socket to capture with: {error}") from error
    try:
        _attach(opened, _filter(indexes, source, destination))
        opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        for index in indexes if everything else ():  # ends with the socket
            opened.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, _MEMBERSHIP.pack(index, _PROMISC, 0))
    except OSError as error:
        opened.close()
        raise KernelError(f"cannot set up a capture: {error.strerror}") from error
    return opened


def _filter(
    links: Sequence[int], source: Address, destination: Address
) -> list[tuple[int, int, int, int]]:
    """On one of these links: IPv4 from or to ``destination``, or to ``source``."""
    there, back = int(destination), int(source)
    return [
        (_LD_W, 0, 0, _LINK_INDEX),
        *((_JEQ, len(links) - at, 0, index) for at, index in enumerate(links)),
        (_RET, 0, 0, 0),
        (_LD_H, 0, 0, _TYPE_AT),
        (_JEQ, 0, 6, int.from_bytes(_ETH_P_IP)),
        (_LD_W, 0, 0, _SOURCE_AT),
        (_JEQ, 3, 0, there),
        (_LD_W, 0, 0, _DESTINATION_AT),
        (_JEQ, 1, 0, there),
        (_JEQ, 0, 1, back),
        (_RET, 0, 0, _SNAP_BYTES),
        (_RET, 0, 0, 0),
    ]


def _attach(opened: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    code = b"".join(struct.pack("=HBBI", *each) for each in program)
    held = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: how many instructions, and where they are.
    fprog = struct.pack("@HP", len(program), ctypes.addressof(held))
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def parse_frame(data: bytes, link: str, at_s: float) -> Frame | None:
    """The packet in an Ethernet frame, None when it has no whole IPv4 header."""
    if len(data) < _ETHERNET_BYTES + _IP_BYTES or data[12:14] != _ETH_P_IP:
        return None
    packet = data[_ETHERNET_BYTES:]
    words = packet[0] & 0xF
    if packet[0] >> 4 != 4 or words < _MIN_HEADER_WORDS:  # noqa: PLR2004 - IPv4
        return None
    protocol = _PROTOCOLS.get(packet[9], f"protocol {packet[9]}")
    what, identifier, is_error = protocol, None, False
    body = packet[words * 4 :]
    first = int.from_bytes(packet[6:8]) & 0x1FFF == 0
    if protocol == "icmp" and first and len(body) >= _ICMP_BYTES:
        what = _ICMP.get(body[0], f"icmp type {body[0]}")
        is_error = body[0] in _ICMP_ERRORS
        identifier = int.from_bytes(body[4:6]) if what.startswith("echo") else None
    return Frame(
        link=link,
        at_s=at_s,
        ttl=packet[8],
        source=IPv4Address(packet[12:16]),
        destination=IPv4Address(packet[16:20]),
        source_mac=data[6:12].hex(":"),
        destination_mac=data[0:6].hex(":"),
        protocol=protocol,
        what=what,
        identifier=identifier,
        is_error=is_error,
    )
