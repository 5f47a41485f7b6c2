"""Tells the daemon within a moment that somebody changed iptables-nft's rules.

nftables announces every committed transaction with a message that names the process
(NFT_MSG_NEWGEN, linux/netfilter/nf_tables.h). Legacy rules and ipsets announce nothing: they
need a timer, :data:`CHECK_EVERY_S`.

What is posted says only "look": a look that finds nothing changes nothing, so that telling our
own transactions apart saves work and is not needed for correctness. It fails inside a PID
namespace, where the kernel names processes by other numbers.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from agent.errors import FirewallError

__all__ = ["CHECK_EVERY_S", "RuleMonitor", "RulesChanged", "changes_in"]

CHECK_EVERY_S: Final = 5.0
"""How often rules and the set are to be looked at without being told."""

_NETLINK_NETFILTER: Final = 12
_GROUP: Final = 1 << (7 - 1)
"""NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h, as a bit."""
_NEWGEN: Final = 10 << 8 | 15
"""NFNL_SUBSYS_NFTABLES and NFT_MSG_NEWGEN."""
_GEN_PID: Final = 2
_GEN_NAME: Final = 3
_HEADER: Final = struct.Struct("=IHHII")
_GENERIC_BYTES: Final = 4
_ATTRIBUTE: Final = struct.Struct("=HH")
_TYPE_MASK: Final = 0x3FFF
_RECEIVE_BYTES: Final = 4 << 20
_SO_RCVBUFFORCE: Final = 33
_DATAGRAM_BYTES: Final = 1 << 16
_COALESCE_S: Final = 0.05
_REOPEN_S: Final = 1.0
_STOP_S: Final = 2.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RulesChanged:
    """Somebody else changed rules since the last event.

    Attributes:
        by: "name (pid)" of each program, sorted; empty when messages were lost.
    """

    by: tuple[str, ...] = ()


class RuleMonitor:
    """Watches the network namespace of the thread that calls :meth:`start`.

    Args:
        on_event: Called on the monitor's thread; must be quick and must not raise.
        own_pids: Processes of ours, whose transactions are not reported.
    """

    def __init__(
        self,
        on_event: Callable[[RulesChanged], None],
        *,
        own_pids: Callable[[], frozenset[int]] = frozenset,
    ) -> None:
        self._on_event = on_event
        self._own_pids = own_pids
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._wake_out, self._wake_in = socket.socketpair()

    def start(self) -> None:
        """Subscribe, then start the thread.

        Raises:
            FirewallError: The kernel has no nf_tables to listen to.
        """
        try:
            self._socket = _subscribed()
        except OSError as error:
            raise FirewallError(f"rules cannot be watched: {error.strerror}") from error
        self._thread = threading.Thread(target=self._run, name="rule-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, within two seconds. Harmless when it does not run."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._wake_in.send(b"\0")
        if self._thread is not None:
            self._thread.join(_STOP_S)
        for end in (self._wake_in, self._wake_out, self._socket):
            if end is not None:
                end.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                event = self._wait()
            except OSError as error:
                if self._stopping.is_set():
                    return
                _log.warning("firewall-monitor-overrun", problem=str(error))
                self._reopen()
                event = RulesChanged()
            if event is not None:
                self._on_event(event)
                self._stopping.wait(_COALESCE_S)

    def _wait(self) -> RulesChanged | None:
        """The next event; None when only we wrote.

        Raises:
            OSError: Messages were lost (ENOBUFS): the socket stays in error.
        """
        current = self._socket
        if current is None:
            raise OSError(errno.EBADF, "no socket")
        readable, _, _ = select.select([current, self._wake_out], [], [])
        if current not in readable:
            return None
        own = self._own_pids()
        by: set[str] = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                data = current.recv(_DATAGRAM_BYTES)
                by.update(f"{name} ({pid})" for pid, name in changes_in(data) if pid not in own)
        return RulesChanged(tuple(sorted(by))) if by else None

    def _reopen(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        while not self._stopping.is_set():
            try:
                self._socket = _subscribed()
            except OSError as error:
                _log.warning("firewall-monitor-reopen-failed", problem=str(error))
                self._stopping.wait(_REOPEN_S)
            else:
                return


def _subscribed() -> socket.socket:
    """A socket on which the kernel announces transactions.

    Raises:
        OSError: It does not.
    """
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    made = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
    try:
        with contextlib.suppress(OSError):  # needs CAP_NET_ADMIN; the default is smaller, no more
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
        made.bind((0, _GROUP))
    except OSError:
        made.close()
        raise
    return made


def changes_in(data: bytes) -> Iterator[tuple[int, str]]:
    """(pid, program) of each transaction announced in one datagram. Nonsense ends it."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        if kind == _NEWGEN:
            yield _generation(data[at + _HEADER.size + _GENERIC_BYTES : at + length])
        at += (length + 3) & ~3


def _generation(attributes: bytes) -> tuple[int, str]:
    pid, name, at = 0, "unknown", 0
    while at + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if length < _ATTRIBUTE.size:
            break
        value = attributes[at + _ATTRIBUTE.size : at + length]
        if kind & _TYPE_MASK == _GEN_PID and len(value) == struct.calcsize("!I"):
            (pid,) = struct.unpack("!I", value)
        elif kind & _TYPE_MASK == _GEN_NAME:
            name = value.rstrip(b"\0").decode(errors="replace")
        at += (length + 3) & ~3
    return pid, name
