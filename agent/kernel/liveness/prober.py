"""Probe hosts whose heartbeat has lapsed, by ARP and ICMP echo.

Any answer counts, to either. Only questions that were really sent count as unanswered: an interface
that is down, a pulled cable or a full queue says nothing of the other host. The rate is bounded for
any number of hosts: pauses grow with their number, so that every host is asked.
"""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from agent.errors import KernelError
from agent.kernel.liveness.probe_channel import ProbeChannel
from agent.model import Uplink
from agent.model.family import Address
from agent.threads import Poller, Wait

__all__ = ["Prober", "is_silent"]

_log = structlog.get_logger(__name__)

_OPEN_AGAIN_MOST_S: Final = 30.0
_SHARE_AGAIN: Final = 0.5
"""Share of the rate for hosts whose state is known; the rest is for the others."""


@dataclass(slots=True)
class _Target:
    """One address.

    Attributes:
        due_s: When it is asked next.
        entry_s: Due time of its place in the queue, which is never later.
    """

    due_s: float = 0.0
    entry_s: float = 0.0
    sent: int = 0
    silent: bool = False


class Prober:
    """Probes the addresses that :meth:`watch` names.

    Args:
        on_change: Called on the poller's thread with all silent addresses when they change; quick.
        attempts: Unanswered questions after which an address is silent.
        interval_s: Pause between them.
        again_s: Pause before an address that answered, or is silent, is asked again.
        rate_per_s: Most questions in a second, over all addresses.
        poller: Shared with other sources; None: one of its own.
    """

    name = "prober"

    def __init__(
        self,
        on_change: Callable[[frozenset[Address]], None],
        *,
        attempts: int = 3,
        interval_s: float = 1.0,
        again_s: float = 5.0,
        rate_per_s: float = 200.0,
        poller: Poller | None = None,
    ) -> None:
        self._on_change = on_change
        self._attempts = attempts
        self._interval_s = interval_s
        self._again_s = again_s
        self._gap_s = 1 / rate_per_s
        self._next_send_s = 0.0
        self._lock = threading.Lock()
        self._wanted: tuple[frozenset[Address], Uplink | None] = (frozenset(), None)
        self._hurried: frozenset[Address] = frozenset()
        self._followed: tuple[frozenset[Address], Uplink | None] = (frozenset(), None)
        self._targets: dict[Address, _Target] = {}
        self._queue: list[tuple[float, Address]] = []
        self._silent: set[Address] = set()
        self._reported: frozenset[Address] = frozenset()
        self._channel: ProbeChannel | None = None
        self._open_again_s = (0.0, 0.0)  # when, and the pause after that
        self._due_s = 0.0
        self._poller = poller or Poller(self.name)

    def start(self) -> None:
        """Begin to probe. The poller's thread must be in the host's network namespace."""
        self._poller.add(self)

    def stop(self) -> None:
        """Probe no more; returns within two seconds."""
        if self._poller.remove(self) and self._channel is not None:
            self._channel.close()

    def watch(self, addresses: frozenset[Address], uplink: Uplink | None) -> None:
        """Probe exactly these from now on. An address that is no longer watched is not silent."""
        with self._lock:
            if self._wanted == (addresses, uplink):
                return
            self._wanted = (addresses, uplink)
            self._due_s = 0.0
        self._poller.wake()

    def hurry(self, addresses: frozenset[Address]) -> None:
        """Ask those of these that are watched at once. For any thread.

        For when the kernel itself noticed something. The rate stays bounded, and as many unanswered
        questions as ever make an address silent.
        """
        with self._lock:
            self._hurried |= addresses & self._wanted[0]
            if not self._hurried:
                return
            self._due_s = 0.0
        self._poller.wake()

    def waits_for(self) -> Wait:
        """Return the channel's sockets, and when the next question is due."""
        return Wait(self._channel.filenos if self._channel is not None else (), self._due_s)

    def serve(self, ready: frozenset[int]) -> None:
        """Read answers, follow what is watched, and ask what is due."""
        self._due_s = math.inf  # first: what :meth:`watch` sets from now on holds
        self._hear(ready)
        self._follow()
        due_s = time.monotonic() + self._ask_due()
        with self._lock:
            self._due_s = min(self._due_s, due_s)
        self._report()

    def _follow(self) -> None:
        """Follow the arguments of :meth:`watch` and :meth:`hurry`."""
        with self._lock:
            addresses, uplink = wanted = self._wanted
            hurried, self._hurried = self._hurried, frozenset()
        if wanted != self._followed:
            self._followed = wanted
            self._open_again_s = (0.0, 0.0)
            for address in [each for each in self._targets if each not in addresses]:
                del self._targets[address]
                self._silent.discard(address)
            for address in addresses.difference(self._targets):
                self._targets[address] = _Target()
                heapq.heappush(self._queue, (0.0, address))
        for address in hurried & addresses:
            target = self._targets[address]
            if target.silent or target.sent == 0:  # else it is being asked already
                self._ask_at(address, target, 0.0)
        self._have_channel(addresses, uplink)

    def _ask_at(self, address: Address, target: _Target, due_s: float) -> None:
        """Ask at that time. Later than its place in the queue costs nothing: see _ask_due."""
        target.due_s = due_s
        if due_s < target.entry_s:
            target.entry_s = due_s
            heapq.heappush(self._queue, (due_s, address))

    def _have_channel(self, addresses: frozenset[Address], uplink: Uplink | None) -> None:
        if self._channel is not None and (uplink != self._channel.uplink or not addresses):
            self._channel.close()
            self._channel = None
        again_s, pause_s = self._open_again_s
        if self._channel is not None or uplink is None or not addresses:
            return
        if time.monotonic() < again_s:
            return
        try:
            self._channel = ProbeChannel(uplink)
        except KernelError as error:
            pause_s = min(max(self._interval_s, pause_s * 2), _OPEN_AGAIN_MOST_S)
            self._open_again_s = (time.monotonic() + pause_s, pause_s)
            _log.warning("prober-no-socket", problem=error.message, again_in_s=pause_s)

    def _ask_due(self) -> float:
        """Send what is due and the rate allows; seconds until the next is."""
        now_s = time.monotonic()
        channel = self._channel
        if channel is None:
            return self._interval_s if self._targets else math.inf
        while self._queue:
            entry_s, address = self._queue[0]
            if entry_s > now_s:
                return entry_s - now_s
            target = self._targets.get(address)
            if target is not None and entry_s == target.entry_s and target.due_s <= now_s:
                if self._next_send_s > now_s:
                    return self._next_send_s - now_s
                self._ask(channel, address, target, now_s)
            heapq.heappop(self._queue)
            if target is not None and entry_s == target.entry_s:
                target.entry_s = target.due_s
                heapq.heappush(self._queue, (target.due_s, address))
        return math.inf

    def _ask(self, channel: ProbeChannel, address: Address, target: _Target, now_s: float) -> None:
        if target.sent >= self._attempts and not target.silent:
            target.silent = True
            self._silent.add(address)
            target.due_s = now_s + self._pause_s()
            return
        self._next_send_s = max(self._next_send_s, now_s - self._gap_s) + self._gap_s
        target.due_s = now_s + (self._pause_s() if target.silent else self._interval_s)
        if channel.ask(address):
            target.sent += 1

    def _pause_s(self) -> float:
        """Return the pause before an address of known state is asked again."""
        return max(self._again_s, len(self._targets) * self._gap_s / _SHARE_AGAIN)

    def _hear(self, ready: frozenset[int]) -> None:
        for address in self._channel.answers(ready) if self._channel is not None else ():
            target = self._targets.get(address)
            if target is not None:
                target.sent = 0
                target.silent = False
                self._silent.discard(address)
                target.due_s = time.monotonic() + self._pause_s()

    def _report(self) -> None:
        if self._silent != self._reported:
            self._reported = frozenset(self._silent)
            self._on_change(self._reported)


def is_silent(
    address: Address, uplink: Uplink, *, attempts: int = 4, interval_s: float = 0.5
) -> bool:
    """Ask one address now, and wait for the outcome: some ``attempts * interval_s`` seconds.

    Returns:
        True when that many questions were sent and none was answered. False when a host answers,
        and when the questions could not be sent: that is no evidence of silence.
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
