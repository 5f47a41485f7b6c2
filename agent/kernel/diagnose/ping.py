"""ICMP echo to another host, and the packet size that passes unfragmented.

For ``agentctl ping``, which a person runs: calls wait with deadlines.
Sources: icmp(7), ip(7), RFC 792.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import Final

from agent.errors import KernelError, NotRoot
from agent.kernel.liveness.icmp import (
    HEADERS_BYTES,
    LEAST_MTU,
    PROBE_MTU,
    echo_reply,
    echo_request,
)
from agent.model.family import Address

__all__ = ["Echo", "Pinger"]

_LEAST_WAIT_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class Echo:
    """The result of echo requests.

    Attributes:
        rtt_s: Round-trip time of each answer.
        problem: The kernel's error when one could not be sent, "" when all could.
    """

    sent: int
    rtt_s: tuple[float, ...]
    problem: str = ""


class Pinger:
    """Sends echo requests to one address.

    Args:
        address: Of the other host.
        timeout_s: For each answer.
        source: This host's address to send from; None leaves it to the kernel.

    Raises:
        NotRoot: This user may not send ICMP.
        KernelError: There is no socket.
    """

    def __init__(
        self, address: Address, timeout_s: float = 1.0, *, source: Address | None = None
    ) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._raw = True
        self.identifier = int.from_bytes(os.urandom(2))
        self._number = 0
        self._slowest_s = 0.0
        self._socket = self._open()
        if source is not None:
            try:
                self._socket.bind((str(source), 0))
            except OSError as error:
                self._socket.close()
                raise KernelError(f"cannot send from {source}: {error.strerror}") from error

    def _open(self) -> socket.socket:
        try:
            return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        except PermissionError:
            self._raw = False
        except OSError as error:
            raise KernelError(f"cannot open a socket for ICMP: {error}") from error
        try:  # net.ipv4.ping_group_range may let this user
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
        except OSError as error:
            raise NotRoot(
                f"this user may not send ICMP: {error.strerror}", hint="run it as root"
            ) from error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def echo(self, count: int) -> Echo:
        """Send ``count`` requests one after the other and wait for each answer."""
        found: list[float] = []
        for _ in range(count):
            try:
                took_s = self._ask(HEADERS_BYTES + 56)
            except OSError as error:
                return Echo(count, tuple(found), error.strerror or str(error))
            if took_s is not None:
                found.append(took_s)
                self._slowest_s = max(self._slowest_s, took_s)
        return Echo(count, tuple(found))

    def largest(self, mtu: int) -> int | None:
        """The largest packet up to ``mtu`` bytes that passes unfragmented; None: not even 576.

        After an answer to :meth:`echo`, the wait for each size is a multiple of what that took.
        """
        if self._slowest_s:
            self._timeout_s = min(self._timeout_s, max(_LEAST_WAIT_S, 20 * self._slowest_s))
        self._socket.setsockopt(socket.IPPROTO_IP, *PROBE_MTU)
        if self._passes(mtu):
            return mtu
        low, high = 0, mtu
        if not self._passes(LEAST_MTU):
            return None
        low = LEAST_MTU
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._passes(middle) else (low, middle)
        return low

    def _passes(self, size: int) -> bool:
        for _ in range(2):
            try:
                if self._ask(size) is not None:
                    return True
            except OSError:  # EMSGSIZE: larger than the link's own
                return False
        return False

    def _ask(self, size: int) -> float | None:
        """Send one request of ``size`` bytes; seconds until its answer, None without one."""
        self._number = (self._number + 1) & 0xFFFF
        request = echo_request(self.identifier, self._number, bytes(size - HEADERS_BYTES))
        sent_s = time.monotonic()
        self._socket.sendto(request, (str(self._address), 0))
        while (left_s := sent_s + self._timeout_s - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                packet, sender = self._socket.recvfrom(65536)
            except TimeoutError:
                return None
            if sender[0] == str(self._address) and self._is_answer(packet):
                return time.monotonic() - sent_s
        return None

    def _is_answer(self, packet: bytes) -> bool:
        offset = (packet[0] & 0xF) * 4 if self._raw else 0
        answer = echo_reply(packet, offset)
        if answer is None:
            return False
        identifier, number = answer
        ours = identifier == self.identifier or not self._raw  # the kernel sets a ping socket's
        return number == self._number and ours
