"""Capture packets between two addresses on several links, for a limited time.

One AF_PACKET socket for all links, so that frames come in the order in which the kernel handled
them, with a filter in the kernel so that a busy link costs nothing.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

from agent.kernel.diagnose.frames import (
    VXLAN_BYTES,
    Frame,
    parse_frame,
    parse_packet,
    read_vxlan,
    read_wireguard,
)
from agent.kernel.diagnose.packet_filter import (
    BARE,
    DESTINATION,
    ETHERNET_BYTES,
    PROTOCOL,
    SNAP_BYTES,
    SO_TIMESTAMPNS,
    SOURCE,
    UDP_PORT,
    Instruction,
    accept,
    go_on,
    open_tap,
)
from agent.model.family import Address, Family, family_of

__all__ = ["Capture", "Outer", "receive_frame"]

_TIMESPEC: Final = struct.Struct("=qq")
_INNER: Final = 20 + 8 + VXLAN_BYTES + ETHERNET_BYTES
"""Where the inner IPv4 header of a VXLAN packet begins, from that of the outer one."""


@dataclass(frozen=True, slots=True)
class Outer:
    """A tunnel's packets on the underlay.

    Attributes:
        port: UDP port of this host's device.
        far: The other end, where the content is encrypted; None for VXLAN, whose content decides.
    """

    port: int
    far: Address | None = None

    def is_of(self, family: Family) -> bool:
        """Whether its packets are of this family."""
        return self.far is None or family_of(self.far) is family


class Capture:
    """Listens from its making on; close it, or use it as a context manager.

    Args:
        links: Names of links: bridges, the uplink, a tunnel's device.
        source, destination: Packets between the two count, and ICMP errors to ``source``.
        passed_on: Also frames that a bridge among ``links`` forwards from port to port: by
            default its taps see only frames for the host.
        outer: The tunnel whose packets count, too, if they carry such a packet or may do so; not
            those of another family than the packet's.

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
        outer: Outer | None = None,
    ) -> None:
        self._links = frozenset(links)
        self._source = source
        self._destination = destination
        self._outer = outer if outer is None or outer.is_of(family_of(source)) else None
        self._socket = open_tap(sorted(self._links), self._packets, promiscuous=passed_on)

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
            frame = receive_frame(self._socket)
            if frame is None or frame.link not in self._links:  # from before the filter was there
                continue
            frame = self._opened(frame)
            if self._counts(frame, identifier):
                found.append(frame)
        return tuple(_in_time(found))

    def _packets(self, start: int) -> list[Instruction]:
        """Accept what has the destination as source, or one of both as destination.

        And a tunnel's packets: those that carry such a packet, or all between both ends.
        """
        there, back, outer = int(self._destination), int(self._source), self._outer
        found = [
            *accept(start, SOURCE, [there]),
            *accept(start, DESTINATION, [there, back]),
        ]
        if outer is not None:
            found += go_on(start, PROTOCOL, [socket.IPPROTO_UDP])
        if outer is not None and outer.far is None:
            found += [
                *go_on(start, UDP_PORT, [outer.port]),
                *accept(start + _INNER, SOURCE, [there]),
                *accept(start + _INNER, DESTINATION, [there, back]),
            ]
        elif outer is not None:
            far = [int(outer.far or 0)]
            found += [*accept(start, SOURCE, far), *accept(start, DESTINATION, far)]
        return found

    def _opened(self, frame: Frame) -> Frame:
        """Return the frame with its content, where it is a tunnel's packet."""
        outer = self._outer
        if outer is None or outer.port not in {frame.port, frame.source_port}:
            return frame
        carried = read_vxlan(frame) if outer.far is None else read_wireguard(frame)
        return replace(frame, carried=carried)

    def _counts(self, frame: Frame, identifier: int | None) -> bool:
        if frame.carried is not None:
            if frame.carried.inner is None:
                return self._outer is not None and self._outer.far is not None
            frame = frame.carried.inner
        ends = {frame.source, frame.destination}
        if identifier is not None and frame.identifier is not None:
            return frame.identifier == identifier
        return ends == {self._source, self._destination} or (
            frame.is_error and frame.destination == self._source
        )


def receive_frame(tap: socket.socket) -> Frame | None:
    """Return the next packet of a tap within its time-out; None without one, or for no IPv4."""
    try:
        data, extra, _, address = tap.recvmsg(SNAP_BYTES, socket.CMSG_SPACE(_TIMESPEC.size))
    except OSError:  # nothing came, or a link went down
        return None
    at_s = time.time()
    for level, kind, value in extra:
        stamped = (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS)
        if stamped and len(value) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(value)
            at_s = seconds + nanoseconds / 1e9
    link, _, packet_type, hardware = address[:4]
    read = parse_packet if hardware == BARE else parse_frame
    return read(data, link, at_s, out=packet_type == socket.PACKET_OUTGOING)


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
