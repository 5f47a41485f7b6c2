"""Asks hosts whose heartbeat has lapsed whether they are there at all: ARP, then ICMP echo.

Any answer counts, on either. Silence is concluded only from questions that were really sent:
an interface that is down or a full queue is no evidence against the other side. The rate is
bounded, whatever the number of hosts.

Sources: RFC 826 (ARP), RFC 792 (ICMP echo), packet(7), raw(7).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address
from typing import Final

import structlog

from agent import threads
from agent.errors import KernelError
from agent.kernel.icmp import echo_reply, echo_request
from agent.model import Uplink

__all__ = ["Prober", "nobody_answers"]

_log = structlog.get_logger(__name__)

_ETHERTYPE_ARP: Final = 0x0806
_ETHERNET: Final = 1
_BROADCAST: Final = b"\xff" * 6
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_ARP_REQUEST, _ARP_REPLY = 1, 2
_IP_BYTES: Final = 20
_PACKET_BYTES: Final = 2048
_RECEIVE_BURST: Final = 1000
_STOP_S: Final = 2.0
_IDLE_S: Final = 30.0


@dataclass(slots=True)
class _Target:
    due_s: float = 0.0
    sent: int = 0
    silent: bool = False


@dataclass(slots=True)
class _Channel:
    """Sockets on one uplink."""

    uplink: Uplink
    icmp: socket.socket
    arp: socket.socket | None
    mac: bytes = b""
    identifier: int = field(default_factory=lambda: int.from_bytes(os.urandom(2)))

    def close(self) -> None:
        self.icmp.close()
        if self.arp is not None:
            self.arp.close()


class Prober:
    """Probes the addresses it is told to watch, on a thread of its own.

    Args:
        on_change: Called on that thread with all silent addresses when they change; quick.
        attempts: Unanswered questions after which an address is silent.
        interval_s: Pause between them.
        again_s: Pause before an address that answered, or is silent, is asked again.
        rate_per_s: Most questions in a second, over all addresses.
    """

    def __init__(
        self,
        on_change: Callable[[frozenset[IPv4Address]], None],
        *,
        attempts: int = 3,
        interval_s: float = 1.0,
        again_s: float = 5.0,
        rate_per_s: float = 200.0,
    ) -> None:
        self._on_change = on_change
        self._attempts = attempts
        self._interval_s = interval_s
        self._again_s = again_s
        self._gap_s = 1 / rate_per_s
        self._next_send_s = 0.0
        self._lock = threading.Lock()
        self._wanted: tuple[frozenset[IPv4Address], Uplink | None] = (frozenset(), None)
        self._hurried: frozenset[IPv4Address] = frozenset()
        self._targets: dict[IPv4Address, _Target] = {}
        self._told: frozenset[IPv4Address] = frozenset()
        self._channel: _Channel | None = None
        self._stopping = threading.Event()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_in.settimeout(0)
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)

    def start(self) -> None:
        """Start the thread, in the network namespace of the caller."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread within two seconds."""
        self._stopping.set()
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)
        if not self._thread.is_alive():
            self._wake_in.close()
            self._wake_out.close()

    def watch(self, addresses: frozenset[IPv4Address], uplink: Uplink | None) -> None:
        """Probe exactly these from now on. An address that is no longer watched is not silent."""
        with self._lock:
            if self._wanted == (addresses, uplink):
                return
            self._wanted = (addresses, uplink)
        self._wake()

    def hurry(self, addresses: frozenset[IPv4Address]) -> None:
        """Ask those of these that are watched at once instead of at their turn. Any thread.

        For when the kernel itself noticed something; the rate stays bounded, and it takes as
        many unanswered questions as ever to call an address silent.
        """
        with self._lock:
            self._hurried |= addresses & self._wanted[0]
            if not self._hurried:
                return
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_in.send(b"\0")

    def _run(self) -> None:
        threads.go_on(self._turn, self._stopping)
        if self._channel is not None:
            self._channel.close()

    def _turn(self) -> None:
        self._follow()
        wait_s = self._ask_due()
        self._tell()
        self._listen(wait_s)

    def _follow(self) -> None:
        """Take over what :meth:`watch` was told."""
        with self._lock:
            addresses, uplink = self._wanted
            hurried, self._hurried = self._hurried, frozenset()
        for address in [each for each in self._targets if each not in addresses]:
            del self._targets[address]
        for address in addresses:
            self._targets.setdefault(address, _Target())
        for address in hurried & addresses:
            target = self._targets[address]
            if target.silent or target.sent == 0:  # else it is being asked already
                target.due_s = 0.0
        if self._channel is not None and (uplink != self._channel.uplink or not addresses):
            self._channel.close()
            self._channel = None
        if self._channel is None and uplink is not None and addresses:
            try:
                self._channel = _open(uplink)
            except KernelError as error:
                _log.warning("prober-no-socket", problem=error.message)

    def _ask_due(self) -> float:
        """Send what is due and the rate allows; seconds until the next is."""
        now_s = time.monotonic()
        channel = self._channel
        if channel is None:
            return _IDLE_S if not self._targets else self._interval_s
        next_s = now_s + _IDLE_S
        for address, target in self._targets.items():
            if target.due_s <= now_s:
                if self._next_send_s > now_s:
                    next_s = min(next_s, self._next_send_s)
                    continue
                self._ask(channel, address, target, now_s)
            next_s = min(next_s, target.due_s)
        return max(0.0, next_s - now_s)

    def _ask(self, channel: _Channel, address: IPv4Address, target: _Target, now_s: float) -> None:
        if target.sent >= self._attempts and not target.silent:
            target.silent = True
            target.due_s = now_s + self._again_s
            return
        self._next_send_s = max(self._next_send_s, now_s - self._gap_s) + self._gap_s
        target.due_s = now_s + (self._again_s if target.silent else self._interval_s)
        if _send(channel, address):
            target.sent += 1

    def _listen(self, wait_s: float) -> None:
        """Read answers until something is due or :meth:`watch` or :meth:`stop` call."""
        poller = select.poll()
        poller.register(self._wake_out, select.POLLIN)
        channel = self._channel
        if channel is not None:
            poller.register(channel.icmp, select.POLLIN)
            if channel.arp is not None:
                poller.register(channel.arp, select.POLLIN)
        ready = {number for number, _ in poller.poll(wait_s * 1000 + 1)}
        if self._wake_out.fileno() in ready:
            self._wake_out.recv(4096)
        if channel is None:
            return
        if channel.icmp.fileno() in ready:
            self._read(channel.icmp, lambda packet: _echo_from(packet, channel.identifier))
        if channel.arp is not None and channel.arp.fileno() in ready:
            self._read(channel.arp, _arp_from)

    def _read(self, source: socket.socket, sender: Callable[[bytes], IPv4Address | None]) -> None:
        for _ in range(_RECEIVE_BURST):
            try:
                packet = source.recv(_PACKET_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:  # ENETDOWN: the uplink went; nothing was answered
                _log.debug("prober-receive-failed", problem=str(error))
                return
            address = sender(packet)
            target = self._targets.get(address) if address is not None else None
            if target is not None:
                target.sent = 0
                target.silent = False
                target.due_s = time.monotonic() + self._again_s

    def _tell(self) -> None:
        silent = frozenset(address for address, each in self._targets.items() if each.silent)
        if silent != self._told:
            self._told = silent
            self._on_change(silent)


def nobody_answers(
    address: IPv4Address, uplink: Uplink, *, attempts: int = 4, interval_s: float = 0.5
) -> bool:
    """Ask one address now, and wait for the outcome: some ``attempts * interval_s`` seconds.

    Returns:
        True when that many questions were sent and none was answered. False when somebody
        answers, and when the questions could not be sent: that is no evidence of silence.
    """
    silent = threading.Event()
    prober = Prober(
        lambda addresses: silent.set() if address in addresses else None,
        attempts=attempts,
        interval_s=interval_s,
    )
    prober.watch(frozenset({address}), uplink)
    prober.start()
    try:
        return silent.wait((attempts + 2) * interval_s)
    finally:
        prober.stop()


def _open(uplink: Uplink) -> _Channel:
    try:
        icmp = socket.socket(
            socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP
        )
    except OSError as error:
        raise KernelError(
            f"cannot open a socket for probes: {error}", hint="the agent needs CAP_NET_RAW"
        ) from error
    arp: socket.socket | None = None
    try:
        icmp.bind((str(uplink.node_address), 0))
        arp = socket.socket(
            socket.AF_PACKET,
            socket.SOCK_DGRAM | socket.SOCK_CLOEXEC,
            socket.htons(_ETHERTYPE_ARP),
        )
        arp.bind((uplink.name, _ETHERTYPE_ARP))
        hardware, mac = arp.getsockname()[3:5]
    except OSError as error:
        icmp.close()
        if arp is not None:
            arp.close()
        raise KernelError(f"cannot probe through {uplink.name}: {error}") from error
    if hardware != _ETHERNET:
        arp.close()
        return _Channel(uplink, icmp, None)
    return _Channel(uplink, icmp, arp, mac)


def _send(channel: _Channel, address: IPv4Address) -> bool:
    """Ask both ways. True when at least one question left."""
    left = False
    echo = echo_request(channel.identifier)
    try:
        channel.icmp.sendto(echo, socket.MSG_DONTWAIT, (str(address), 0))
        left = True
    except OSError as error:
        # EHOSTUNREACH is the kernel's own failed ARP; ARP below is what then counts.
        _log.debug("prober-echo-not-sent", address=str(address), problem=str(error))
    if channel.arp is None or address not in channel.uplink.on_link:
        return left
    request = _ARP.pack(
        _ETHERNET, 0x0800, 6, 4, _ARP_REQUEST, channel.mac,
        channel.uplink.node_address.packed, bytes(6), address.packed,
    )  # fmt: skip
    try:
        channel.arp.sendto(
            request,
            socket.MSG_DONTWAIT,
            (channel.uplink.name, _ETHERTYPE_ARP, 0, 0, _BROADCAST),
        )
    except OSError as error:
        _log.debug("prober-arp-not-sent", address=str(address), problem=str(error))
        return False  # the link itself is the problem
    return True


def _echo_from(packet: bytes, identifier: int) -> IPv4Address | None:
    """Who answered our echo request, None when the packet is something else."""
    if len(packet) < _IP_BYTES:
        return None
    answer = echo_reply(packet, (packet[0] & 0xF) * 4)
    if answer is None or answer[0] != identifier:
        return None
    return IPv4Address(packet[12:16])


def _arp_from(packet: bytes) -> IPv4Address | None:
    """Who told its hardware address: a reply, or a request of its own (RFC 826 takes both)."""
    try:
        _, _, _, _, operation, _, sender, _, _ = _ARP.unpack_from(packet)
    except struct.error:
        return None
    if operation not in (_ARP_REQUEST, _ARP_REPLY):
        return None
    with contextlib.suppress(AddressValueError):
        return IPv4Address(sender)
    return None
