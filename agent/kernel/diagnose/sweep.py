"""Ping many addresses at once from a few sockets: which answer, how fast, and how large packets.

One raw socket for each network namespace that is sent from, no process or thread for an address.
Every wait is bounded. Sources: icmp(7), raw(7), ip(7), RFC 792, RFC 1191.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final

from agent.errors import KernelError, NotRoot
from agent.kernel.liveness.icmp import (
    HEADERS_BYTES,
    LEAST_MTU,
    PROBE_MTU,
    EchoError,
    echo_error,
    echo_reply,
    echo_request,
)
from agent.model.family import Address

__all__ = ["SMALL", "Ask", "EchoSocket", "Heard", "sweep"]

SMALL: Final = 84
"""Bytes of an ordinary ping's packet."""
_SOL_RAW, _ICMP_FILTER = 255, 1
_WANTED_TYPES: Final = (0, 3, 11)  # echo reply, unreachable, time exceeded
_SO_RCVBUFFORCE: Final = 33
_BUFFER_BYTES: Final = 4 << 20
_PACKET_BYTES: Final = 65536
_BURST: Final = 20
"""So many packets are sent before answers are read."""
_SIOCGIFADDR, _SIOCGIFMTU = 0x8915, 0x8921
_IFREQ: Final = struct.Struct("16s24x")
_ADDRESS_AT: Final = slice(20, 24)
_MTU_AT: Final = slice(16, 20)
_ETHERNET_MTU: Final = 1500
_LARGEST: Final = 65535


class EchoSocket:
    """A raw socket for echo requests, in the network namespace of the thread that opens it.

    ``mtu`` is that of the link with its address, and no bound where it has none.

    Args:
        source: This namespace's address to send from; None leaves it to the kernel.

    Raises:
        NotRoot: This user may not.
        KernelError: There is no socket, or no such address.
    """

    def __init__(self, source: Address | None = None) -> None:
        try:
            self._socket = socket.socket(
                socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP
            )
        except PermissionError as error:
            raise NotRoot(
                "only root may ping many hosts at once", hint="run it with sudo"
            ) from error
        except OSError as error:
            raise KernelError(f"cannot open a socket for ICMP: {error.strerror}") from error
        try:
            self._prepare(source)
        except OSError as error:
            self.close()
            raise KernelError(f"cannot send from {source}: {error.strerror}") from error
        self.mtu = _LARGEST if source is None else self._mtu_of(source)
        self._first = int.from_bytes(os.urandom(2))
        self._count = 0

    def _prepare(self, source: Address | None) -> None:
        self._socket.settimeout(0)
        others = ~sum(1 << each for each in _WANTED_TYPES) & 0xFFFFFFFF
        self._socket.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", others))
        self._socket.setsockopt(socket.IPPROTO_IP, *PROBE_MTU)
        with contextlib.suppress(OSError):  # without CAP_NET_ADMIN the usual buffer has to do
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        if source is not None:
            self._socket.bind((str(source), 0))

    def _mtu_of(self, source: Address) -> int:
        """Return the MTU of the link with this address (netdevice(7))."""
        for _, name in socket.if_nameindex():
            asked = _IFREQ.pack(name.encode())
            with contextlib.suppress(OSError):  # it has no address
                if fcntl.ioctl(self._socket, _SIOCGIFADDR, asked)[_ADDRESS_AT] == source.packed:
                    found = fcntl.ioctl(self._socket, _SIOCGIFMTU, asked)[_MTU_AT]
                    return int(struct.unpack("=i", found)[0])
        return _ETHERNET_MTU

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor, for poll(2)."""
        return self._socket.fileno()

    def send(self, address: Address, size: int) -> tuple[int, int]:
        """Send an echo request of ``size`` bytes, headers included, that no router may divide.

        Returns:
            What the answer has: identifier and number. None repeats within 4 billion.

        Raises:
            OSError: It was not sent.
        """
        high, number = divmod(self._count, 1 << 16)
        identifier = (self._first + high) & 0xFFFF
        self._count += 1
        packet = echo_request(identifier, number, bytes(size - HEADERS_BYTES))
        self._socket.sendto(packet, (str(address), 0))
        return identifier, number

    def receive(self) -> Iterator[tuple[bytes, Address]]:
        """Yield what has come: packets with their IPv4 header, and who sent them."""
        while True:
            try:
                packet, sender = self._socket.recvfrom(_PACKET_BYTES)
            except OSError:  # nothing more, or an error about an earlier packet
                return
            yield packet, IPv4Address(sender[0])


@dataclass(frozen=True, slots=True)
class Ask:
    """One question.

    Attributes:
        link: To send by.
        size: Bytes of the whole packet.
    """

    link: EchoSocket
    address: Address
    size: int = SMALL


@dataclass(frozen=True, slots=True)
class Heard:
    """The answer to a question.

    Attributes:
        rtt_s: Until it came; None: it did not.
        problem: Why the question was not sent, or what a router or the kernel said of it.
        takes: The largest packet that a router, or this host's own link, said would pass; 0: none
            said so.
        reporter: The router.
    """

    rtt_s: float | None = None
    problem: str = ""
    takes: int = 0
    reporter: Address | None = None

    @property
    def answered(self) -> bool:
        """Whether an answer came."""
        return self.rtt_s is not None


_NOT_ASKED: Final = Heard(problem="not asked: out of time")
_REASONS: Final = {0: "network unreachable", 1: "host unreachable", 13: "prohibited by a filter"}
_TOO_LARGE: Final = 4
_UNREACHABLE: Final = 3


def sweep(
    asks: Sequence[Ask],
    *,
    rounds: int = 3,
    wait_s: float = 1.0,
    rate_per_s: float = 2000.0,
    until_s: float = float("inf"),
) -> Mapping[Ask, Heard]:
    """Ask everything at once; what has no answer again.

    Args:
        rounds: How often to ask.
        wait_s: For answers, after the last question of a round.
        rate_per_s: Most packets in a second.
        until_s: Monotonic time at which it ends in any case.
    """
    return _Sweep(tuple(dict.fromkeys(asks)), rate_per_s, until_s).run(rounds, wait_s)


class _Sweep:
    def __init__(self, asks: Sequence[Ask], rate_per_s: float, until_s: float) -> None:
        self._heard: dict[Ask, Heard] = dict.fromkeys(asks, _NOT_ASKED)
        self._open = dict.fromkeys(asks)
        self._sent: dict[tuple[int, int, int], tuple[Ask, float]] = {}
        self._rate_per_s = rate_per_s
        self._until_s = until_s
        self._links = {each.link.fileno(): each.link for each in asks}
        self._poll = select.poll()
        for number in self._links:
            self._poll.register(number, select.POLLIN)

    def run(self, rounds: int, wait_s: float) -> Mapping[Ask, Heard]:
        for _ in range(rounds):
            self._send_round()
            self._hear_until(time.monotonic() + wait_s)
            if not self._open or time.monotonic() >= self._until_s:
                break
        return self._heard

    def _send_round(self) -> None:
        """Send what is open, no faster than the rate, and read meanwhile."""
        began_s = time.monotonic()
        for count, ask in enumerate(tuple(self._open)):
            if count % _BURST == 0:
                self._hear_until(began_s + count / self._rate_per_s)
            if time.monotonic() >= self._until_s:
                return
            if ask in self._open:
                self._send(ask)

    def _send(self, ask: Ask) -> None:
        sent_s = time.monotonic()
        try:
            token = ask.link.send(ask.address, ask.size)
        except OSError as error:
            self._heard[ask] = Heard(problem=error.strerror or str(error))
            if isinstance(error, BlockingIOError):
                return  # the queue is full: the next round asks again
            if error.errno == errno.EMSGSIZE:  # larger than this host's own link
                takes = ask.link.mtu if ask.link.mtu < ask.size else 0
                self._heard[ask] = replace(self._heard[ask], takes=takes)
                del self._open[ask]
            return
        self._sent[(ask.link.fileno(), *token)] = (ask, sent_s)
        if self._heard[ask] is _NOT_ASKED:
            self._heard[ask] = Heard()

    def _hear_until(self, end_s: float) -> None:
        """Read what has come, and what comes until then, unless all is answered."""
        left_s = 0.0
        while left_s >= 0 and self._open:
            left_s = min(end_s, self._until_s) - time.monotonic()
            for number, _ in self._poll.poll(max(0.0, left_s) * 1000):
                for packet, sender in self._links[number].receive():
                    self._read(number, packet, sender)

    def _read(self, number: int, packet: bytes, sender: Address) -> None:
        now_s, offset = time.monotonic(), (packet[0] & 0xF) * 4
        answer, error = echo_reply(packet, offset), echo_error(packet, offset)
        token = answer or ((error.identifier, error.number) if error else (-1, -1))
        ask, sent_s = self._sent.get((number, *token), (None, 0.0))
        if ask is None or ask not in self._open:
            return
        if error is not None:
            self._heard[ask] = _refused(ask, error, sender)
        elif sender == ask.address:
            self._heard[ask] = Heard(rtt_s=now_s - sent_s)
        if self._heard[ask].answered or self._heard[ask].takes:
            del self._open[ask]


def _refused(ask: Ask, error: EchoError, reporter: Address) -> Heard:
    """Return what an error of ICMP says; a neighbour may have made it up, so it proves nothing."""
    if error.kind != _UNREACHABLE:
        return Heard(problem="time to live exceeded", reporter=reporter)
    if error.code == _TOO_LARGE:
        takes = error.mtu if LEAST_MTU <= error.mtu < ask.size else 0
        return Heard(problem="fragmentation needed", takes=takes, reporter=reporter)
    return Heard(problem=_REASONS.get(error.code, "unreachable"), reporter=reporter)
