"""A netlink socket that never mistakes a failure for an answer.

Sources: netlink(7), linux/netlink.h, net/netlink/af_netlink.c.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from agent.errors import KernelError
from agent.kernel.netlink.message import HEADER, attributes, frame, messages, text_of

__all__ = [
    "GROUP_ADDRESSES",
    "GROUP_LINKS",
    "GROUP_NEIGHBOURS",
    "GROUP_ROUTES",
    "NetlinkError",
    "NetlinkSocket",
    "NotAnswered",
]

GROUP_LINKS: Final = 0x1
GROUP_NEIGHBOURS: Final = 0x4
GROUP_ADDRESSES: Final = 0x10
GROUP_ROUTES: Final = 0x40
"""RTMGRP_LINK, RTMGRP_NEIGH, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE."""

_ERROR: Final = 2  # NLMSG_ERROR
_DONE: Final = 3  # NLMSG_DONE
_OVERRUN: Final = 4  # NLMSG_OVERRUN
_DUMP: Final = 0x300
_DUMP_INTERRUPTED: Final = 0x10
_CAPPED: Final = 0x100
_ACK_TLVS: Final = 0x200

_SOL_NETLINK: Final = 270
_CAP_ACK: Final = 10
_EXT_ACK: Final = 11
_STRICT_CHECK: Final = 12
_SO_RCVBUFFORCE: Final = 33

_RECEIVE_BYTES: Final = 4 << 20
_DATAGRAM_BYTES: Final = 1 << 16
_DUMP_ATTEMPTS: Final = 10
_ATTRIBUTE_MESSAGE: Final = 1  # NLMSGERR_ATTR_MSG
_SEQUENCE_LIMIT: Final = 0xFFFF_0000
_INTEGER: Final = struct.Struct("=i")


class NetlinkError(KernelError):
    """The kernel answered a request with an error.

    Args:
        what: What was asked, for the message.
        number: The error number (positive).
        detail: The kernel's own message (extended acknowledgement), or "".
    """

    def __init__(self, what: str, number: int, detail: str = "") -> None:
        hint = ""
        if number in (errno.EPERM, errno.EACCES):
            hint = "the agent needs root, that is CAP_NET_ADMIN, in its network namespace"
        super().__init__(f"{what}: {detail or os.strerror(number)}", hint=hint)
        self.errno = number
        self.detail = detail or os.strerror(number)


class NotAnswered(KernelError):
    """No complete answer: the deadline passed, or a dump kept being interrupted."""


class NetlinkSocket:
    """One netlink socket in the network namespace of the thread that opens it.

    Not for use by two threads at once. After any error but :class:`NetlinkError` close it and
    open another: unread answers may be queued.

    Args:
        groups: Multicast groups to receive.
        receive_bytes: Receive buffer asked for; forced past rmem_max when allowed to.
        timeout_s: Longest wait for one answer.
        family: Which part of the kernel answers (netlink(7)); rtnetlink by default.
    """

    def __init__(
        self,
        *,
        groups: int = 0,
        receive_bytes: int = _RECEIVE_BYTES,
        timeout_s: float = 5.0,
        family: int = socket.NETLINK_ROUTE,
    ) -> None:
        self._timeout_s = timeout_s
        self._sequence = 0
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family
            )
        except OSError as error:
            raise KernelError(f"cannot open a netlink socket: {error}") from error
        try:
            self._prepare(groups, receive_bytes)
        except OSError as error:
            self._socket.close()
            raise KernelError(f"cannot set up a netlink socket: {error}") from error

    def _prepare(self, groups: int, receive_bytes: int) -> None:
        for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHECK):
            # Kernels before 4.20 lack the last: then they do not filter, and we do.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_bytes)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._socket.bind((0, groups))
        self.port_id = int(self._socket.getsockname()[0])

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
        """Close the socket. Harmless when closed."""
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor, for poll(2)."""
        return self._socket.fileno()

    @property
    def receive_bytes(self) -> int:
        """The receive buffer the kernel granted (socket(7): twice what was asked)."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def receive_now(self) -> bytes:
        """Return one queued datagram.

        Raises:
            BlockingIOError: Nothing is queued.
            OSError: ENOBUFS when the kernel dropped messages.
        """
        return self._socket.recv(_DATAGRAM_BYTES, socket.MSG_DONTWAIT)

    def next_sequences(self, count: int) -> int:
        """Reserve ``count`` sequence numbers and return the first."""
        first = self._sequence + 1
        self._sequence += count
        if self._sequence > _SEQUENCE_LIMIT:
            self._sequence = 0
        return first

    def request(self, message_type: int, body: bytes, what: str, *, flags: int = 0) -> bytes:
        """Send one request and return its answer's payload (b"" for a mere acknowledgement).

        Raises:
            NetlinkError: The kernel refused.
            NotAnswered: No answer before the deadline.
        """
        sequence = self.next_sequences(1)
        self._send(frame(message_type, flags, sequence, body), what)
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            for kind, got_flags, got, _, payload in messages(self._receive(deadline_s, what)):
                if got != sequence:
                    continue
                if kind == _ERROR:
                    number, detail = _read_error(got_flags, payload)
                    if number:
                        raise NetlinkError(what, number, detail)
                    return b""
                return payload

    def dump(
        self,
        message_type: int,
        body: bytes,
        what: str,
        *,
        pick: Callable[[bytes], bytes | None] | None = None,
    ) -> list[bytes]:
        """Return every object of a kind, as payloads behind the header; complete, or an error.

        Args:
            message_type, body: The request.
            what: The action, for messages.
            pick: What to keep of each payload as it comes, None for nothing of it: of very many
                objects only those that matter are held.

        A dump during which the objects changed carries NLM_F_DUMP_INTR and may lack some that
        were there all the time: it is thrown away and asked for again, a bounded number of times.

        Raises:
            NetlinkError: The kernel refused, at the start or at the end of the dump.
            NotAnswered: Deadline passed, messages were lost, or interrupted every time.
        """
        for _ in range(_DUMP_ATTEMPTS):
            found = self._dump_once(message_type, body, what, pick)
            if found is not None:
                return found
        raise NotAnswered(
            f"{what}: changed during each of {_DUMP_ATTEMPTS} attempts to list it",
            hint="something changes it without pause: ip monitor shows what",
        )

    def _dump_once(
        self,
        message_type: int,
        body: bytes,
        what: str,
        pick: Callable[[bytes], bytes | None] | None,
    ) -> list[bytes] | None:
        """Return all payloads, or None when the dump was interrupted."""
        sequence = self.next_sequences(1)
        self._send(frame(message_type, _DUMP, sequence, body), what)
        found: list[bytes] = []
        interrupted = False
        deadline_s = time.monotonic() + self._timeout_s
        unpack, header_size = HEADER.unpack_from, HEADER.size
        while True:
            data = self._receive(deadline_s, what)
            # The hot loop of a full comparison: no generator, no view, one slice a message.
            offset, end = 0, len(data)
            while offset + header_size <= end:
                length, kind, flags, got, _ = unpack(data, offset)
                if got == sequence:
                    if flags & _DUMP_INTERRUPTED:
                        interrupted = True
                    if kind > _OVERRUN:
                        kept = data[offset + header_size : offset + length]
                        if pick is None:
                            found.append(kept)
                        elif (picked := pick(kept)) is not None:
                            found.append(picked)
                    else:
                        payload = data[offset + header_size : offset + length]
                        _finish_dump(kind, flags, payload, what)
                        return None if interrupted else found
                offset += (length + 3) & ~3

    def batch(self, frames: Sequence[bytes], what: str) -> dict[int, tuple[int, str]]:
        """Send many requests in one call of the kernel and collect their errors.

        Only the last asks for an acknowledgement; the kernel reports errors unasked
        (netlink_rcv_skb), so silence up to the last one's answer means success.

        Args:
            frames: Complete messages with ascending sequence numbers from
                :meth:`next_sequences`; the last must carry NLM_F_ACK.
            what: What is being done, for messages.

        Returns:
            Error number and message by sequence number, of those that failed.

        Raises:
            NotAnswered: Some outcome is unknown.
        """
        last = HEADER.unpack_from(frames[-1])[3]
        first = HEADER.unpack_from(frames[0])[3]
        self._send(b"".join(frames), what)
        failed: dict[int, tuple[int, str]] = {}
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            for kind, flags, got, _, payload in messages(self._receive(deadline_s, what)):
                if kind != _ERROR or not first <= got <= last:
                    continue
                number, detail = _read_error(flags, payload)
                if number:
                    failed[got] = (number, detail or os.strerror(number))
                if got == last:
                    return failed

    def _send(self, data: bytes, what: str) -> None:
        self._socket.settimeout(self._timeout_s)
        try:
            self._socket.sendto(data, (0, 0))
        except OSError as error:
            raise NotAnswered(f"{what}: sending to the kernel failed: {error}") from error

    def _receive(self, deadline_s: float, what: str) -> bytes:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise NotAnswered(f"{what}: no answer from the kernel within {self._timeout_s:g} s")
        self._socket.settimeout(left_s)
        try:
            return self._socket.recv(_DATAGRAM_BYTES)
        except TimeoutError:
            raise NotAnswered(
                f"{what}: no answer from the kernel within {self._timeout_s:g} s"
            ) from None
        except OSError as error:
            raise NotAnswered(f"{what}: the kernel's answer was lost: {error}") from error


def _finish_dump(kind: int, flags: int, payload: bytes, what: str) -> None:
    """Raise unless the dump ended well. NLMSG_DONE carries the dump's own result."""
    if kind == _DONE:
        number = -_INTEGER.unpack_from(payload)[0] if len(payload) >= _INTEGER.size else 0
        if number > 0:
            raise NetlinkError(what, number)
        return
    if kind == _ERROR:
        number, detail = _read_error(flags, payload)
        raise NetlinkError(what, number or errno.EIO, detail)
    raise NotAnswered(f"{what}: the kernel lost part of its answer")


def _read_error(flags: int, payload: bytes) -> tuple[int, str]:
    """Return error number and message (or "") of a struct nlmsgerr; 0 is success."""
    number = -_INTEGER.unpack_from(payload)[0]
    if not flags & _ACK_TLVS:
        return number, ""
    offset = _INTEGER.size + HEADER.size
    if not flags & _CAPPED:
        inner = HEADER.unpack_from(payload, _INTEGER.size)[0]
        offset = _INTEGER.size + ((inner + 3) & ~3)
    for kind, value in attributes(payload, offset):
        if kind == _ATTRIBUTE_MESSAGE:
            return number, text_of(value)
    return number, ""
