"""Capture packets between two addresses on several links, for a limited time.

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

# linux/bpf_common.h: load a byte, half word or word at an offset, jump if equal, return.
_LD_B, _LD_H, _LD_W, _JEQ, _RET = 0x30, 0x28, 0x20, 0x15, 0x06
_LINK_INDEX: Final = 0xFFFF_F008  # SKF_AD_OFF + SKF_AD_IFINDEX
_TYPE_AT, _PROTOCOL_AT, _SOURCE_AT, _DESTINATION_AT, _PORT_AT = 12, 23, 26, 30, 36
_INNER_AT: Final = _ETHERNET_BYTES + _IP_BYTES + 8 + 8
"""Where the frame in a VXLAN packet begins, behind UDP's and VXLAN's header (RFC 7348)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One packet on one link.

    Attributes:
        link: The link's name.
        at_s: When the kernel saw it (Unix time).
        what: "echo request", "echo reply", another ICMP message, or the protocol.
        identifier: An echo's, else None.
        port: UDP's destination port, else 0.
        inner: The packet in a tunnel's packet.
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
    port: int = 0
    is_error: bool = False
    inner: Frame | None = None


class Capture:
    """Listens from its making on; close it, or use it as a context manager.

    Args:
        links: Names of Ethernet links: bridges, the uplink.
        source, destination: Packets between the two count, and ICMP errors to ``source``.
        passed_on: Also frames that a bridge among ``links`` forwards from port to port: by
            default its taps see only frames for the host.
        vxlan_port: UDP port of tunnels: packets in their packets count, too; 0: none.

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
        vxlan_port: int = 0,
    ) -> None:
        self._links = frozenset(links)
        self._source = source
        self._destination = destination
        self._vxlan_port = vxlan_port
        program = _Program(source, destination, vxlan_port)
        self._socket = _open(sorted(self._links), program, everything=passed_on)

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
        """Return frames in the order they passed: until there are ``most``, or time is over.

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
        frame = parse_frame(data, address[0], at_s)
        if frame is None or frame.port != self._vxlan_port or not self._vxlan_port:
            return frame
        inner = parse_frame(data[_INNER_AT:], address[0], at_s)
        return frame if inner is None else replace(frame, inner=inner)

    def _counts(self, frame: Frame, identifier: int | None) -> bool:
        frame = frame.inner or frame
        ends = {frame.source, frame.destination}
        if identifier is not None and frame.identifier is not None:
            return frame.identifier == identifier
        return ends == {self._source, self._destination} or (
            frame.is_error and frame.destination == self._source
        )


def _in_time(frames: Sequence[Frame]) -> Iterator[Frame]:
    """Yield the frames with times in their order.

    The kernel begins to stamp a moment after it was asked to (net_enable_timestamp); earlier frames
    are stamped when they are read, which is too late.
    """
    latest_s = math.inf
    times = []
    for frame in reversed(frames):
        latest_s = min(latest_s, frame.at_s)
        times.append(latest_s)
    for frame, at_s in zip(frames, reversed(times), strict=True):
        yield replace(frame, at_s=at_s)


def _open(links: Sequence[str], program: _Program, *, everything: bool) -> socket.socket:
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
        _attach(opened, program.of(indexes))
        opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        for index in indexes if everything else ():  # ends with the socket
            opened.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, _MEMBERSHIP.pack(index, _PROMISC, 0))
    except OSError as error:
        opened.close()
        raise KernelError(f"cannot set up a capture: {error.strerror}") from error
    return opened


@dataclass(frozen=True, slots=True)
class _Program:
    """Packets that a capture's filter in the kernel takes."""

    source: Address
    destination: Address
    vxlan_port: int

    def of(self, links: Sequence[int]) -> list[tuple[int, int, int, int]]:
        """Return instructions: IPv4 on one of these links, or in a VXLAN packet there.

        Its source is the destination of the question, or its destination is one of the two ends.
        """
        there, back = int(self.destination), int(self.source)
        parts = [
            *_load(_LD_W, _LINK_INDEX, links),
            *_load(_LD_H, _TYPE_AT, [int.from_bytes(_ETH_P_IP)]),
        ]
        accepting = [
            *_accept(_SOURCE_AT, [there]),
            *_accept(_DESTINATION_AT, [there, back]),
        ]
        if self.vxlan_port:
            accepting += [
                *_load(_LD_B, _PROTOCOL_AT, [socket.IPPROTO_UDP]),
                *_load(_LD_H, _PORT_AT, [self.vxlan_port]),
                *_accept(_INNER_AT + _SOURCE_AT, [there]),
                *_accept(_INNER_AT + _DESTINATION_AT, [there, back]),
            ]
        return [*parts, *accepting, (_RET, 0, 0, 0)]


def _load(how: int, at: int, values: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Go on where a field has one of these values, else take nothing."""
    tests = ((_JEQ, len(values) - number, 0, value) for number, value in enumerate(values))
    return [(how, 0, 0, at), *tests, (_RET, 0, 0, 0)]


def _accept(at: int, values: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Take the packet where a word has one of these values, else go on."""
    tests = [(_JEQ, 0, 1, value) for value in values]
    take = (_RET, 0, 0, _SNAP_BYTES)
    return [(_LD_W, 0, 0, at), *(each for test in tests for each in (test, take))]


def _attach(opened: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    code = b"".join(struct.pack("=HBBI", *each) for each in program)
    held = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: how many instructions, and where they are.
    fprog = struct.pack("@HP", len(program), ctypes.addressof(held))
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def parse_frame(data: bytes, link: str, at_s: float) -> Frame | None:
    """Return the packet in an Ethernet frame, None when it has no whole IPv4 header."""
    if len(data) < _ETHERNET_BYTES + _IP_BYTES or data[12:14] != _ETH_P_IP:
        return None
    packet = data[_ETHERNET_BYTES:]
    words = packet[0] & 0xF
    if packet[0] >> 4 != 4 or words < _MIN_HEADER_WORDS:  # noqa: PLR2004 - IPv4
        return None
    protocol = _PROTOCOLS.get(packet[9], f"protocol {packet[9]}")
    what, identifier, port, is_error = protocol, None, 0, False
    body = packet[words * 4 :]
    first = int.from_bytes(packet[6:8]) & 0x1FFF == 0
    if protocol == "icmp" and first and len(body) >= _ICMP_BYTES:
        what = _ICMP.get(body[0], f"icmp type {body[0]}")
        is_error = body[0] in _ICMP_ERRORS
        identifier = int.from_bytes(body[4:6]) if what.startswith("echo") else None
    if protocol == "udp" and first:
        port = int.from_bytes(body[2:4])
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
        port=port,
        is_error=is_error,
    )
