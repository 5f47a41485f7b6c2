"""Forward queries by UDP, unchanged but for their id, and check what comes back.

Each try has a socket of its own, connected to the upstream: the kernel chooses a random source
port and drops what comes from elsewhere. A reply counts only with the random id and the question
that were sent (RFC 5452).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agent.dns.counters import Counters
from agent.dns.forwarding.upstreams import Upstream, Upstreams
from agent.dns.wire import HEADER, Rcode, question_of

__all__ = ["DEADLINE_S", "MOST_FLIGHTS", "MOST_OF_ASKER", "NOT_FINAL", "Forwarder", "fits"]

DEADLINE_S: Final = 5.0
"""glibc waits as long for each of its servers (resolv.conf(5), timeout)."""
MOST_FLIGHTS: Final = 2048
MOST_OF_ASKER: Final = 256
_MOST_WAITING: Final = MOST_OF_ASKER
"""Askers of one query that is under way: a resolver that was set up in a loop asks itself."""
_MOST_TRIES: Final = 4
_AFTER_REFUSAL_S: Final = 2.0
"""How long other upstreams are waited for when one has refused."""
_DRAIN_S: Final = 0.01
_MOST_FALSE: Final = 16
"""Replies to one try that do not fit it; then the try is given up."""
_LARGEST: Final = 65535
NOT_FINAL: Final = frozenset({Rcode.SERVFAIL, Rcode.REFUSED, Rcode.NOTIMP})
"""Resolvers go on to their next server after these (res_send.c of glibc)."""

Reply = Callable[[bytes | None], None]


@dataclass(slots=True)
class _Flight:
    """A query under way.

    Attributes:
        message: All of it behind the id.
        waiting: For each asker its name for the limit, its own id, and how it gets the reply.
        fallback: A reply that is not final.
    """

    message: bytes
    question: bytes
    waiting: list[tuple[str, bytes, Reply]]
    upstreams: list[Upstream]
    deadline_s: float
    tries: int = 0
    sockets: dict[socket.socket, _Try] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None
    fallback: bytes | None = None


@dataclass(slots=True)
class _Try:
    upstream: Upstream
    identity: bytes
    sent_s: float
    false: int = 0


class Forwarder:
    """Asks upstreams for others. Equal queries that are under way together are sent once.

    Args:
        loop: Runs this; used by its thread only.
        upstreams: Who is asked, in which order.
        counters: Of the process.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, upstreams: Upstreams, counters: Counters
    ) -> None:
        self._loop = loop
        self._upstreams = upstreams
        self._counters = counters
        self._flights: dict[bytes, _Flight] = {}
        self._of_asker: Counter[str] = Counter()

    @property
    def under_way(self) -> int:
        """Return how many queries are being forwarded."""
        return len(self._flights)

    def forward(self, data: bytes, asker: str, reply: Reply) -> None:
        """Have a query answered; ``reply`` gets the reply, or None if there is none.

        Args:
            data: The query, of which the question could be read.
            asker: Whose queries are limited together.
        """
        message, identity = data[2:], data[:2]
        flight = self._flights.get(message)
        if self._of_asker[asker] >= MOST_OF_ASKER or len(self._flights) >= MOST_FLIGHTS:
            self._counters.over_limit += 1
            reply(None)
            return
        if flight is not None:
            if len(flight.waiting) >= _MOST_WAITING:
                self._counters.over_limit += 1
                reply(None)
                return
            flight.waiting.append((asker, identity, reply))
            self._of_asker[asker] += 1
            return
        question = question_of(data)
        upstreams = self._upstreams.in_order()
        if question is None or not upstreams:
            reply(None)
            return
        deadline_s = self._loop.time() + DEADLINE_S
        flight = _Flight(message, question, [(asker, identity, reply)], upstreams, deadline_s)
        self._flights[message] = flight
        self._of_asker[asker] += 1
        self._try_next(flight)

    async def drain(self, seconds: float) -> None:
        """Wait until nothing is under way, but no longer than this."""
        ends_s = self._loop.time() + seconds
        while self._flights and self._loop.time() < ends_s:
            await asyncio.sleep(_DRAIN_S)

    def _try_next(self, flight: _Flight) -> None:
        """Ask the next upstream; at the deadline, or when none is left, end."""
        if flight.timer is not None:
            flight.timer.cancel()
        left_s = flight.deadline_s - self._loop.time()
        upstream = self._send_next(flight) if left_s > 0 else None
        if upstream is not None and upstream.failing and flight.tries < len(flight.upstreams):
            # Its rest is over. Whether it answers again must not cost this query a wait.
            upstream = self._send_next(flight) or upstream
        if upstream is None and (left_s <= 0 or not flight.sockets):
            self._end(flight, flight.fallback)
            return
        again = upstream is not None and flight.tries < _MOST_TRIES
        wait_s = upstream.wait_s * max(1, flight.tries) if again and upstream else left_s
        flight.timer = self._loop.call_later(min(wait_s, left_s), self._timed_out, flight)

    def _send_next(self, flight: _Flight) -> Upstream | None:
        """Send to the next upstream that takes it; None if there is none."""
        while flight.tries < _MOST_TRIES:
            if flight.fallback is not None and flight.tries >= len(flight.upstreams):
                return None  # each has been asked, and one has refused
            upstream = flight.upstreams[flight.tries % len(flight.upstreams)]
            flight.tries += 1
            if self._send(flight, upstream):
                return upstream
        return None

    def _send(self, flight: _Flight, upstream: Upstream) -> bool:
        identity = secrets.token_bytes(2)
        try:
            each = socket.socket(upstream.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError:
            self._counters.over_limit += 1
            return False
        try:
            each.connect(upstream.sockaddr)
            each.send(identity + flight.message)
        except OSError as error:
            each.close()
            self._failed(upstream, str(error.strerror))
            return False
        flight.sockets[each] = _Try(upstream, identity, self._loop.time())
        self._loop.add_reader(each, self._readable, flight, each)
        return True

    def _timed_out(self, flight: _Flight) -> None:
        now_s = self._loop.time()
        for each in flight.sockets.values():
            if now_s - each.sent_s >= each.upstream.wait_s:
                self._failed(each.upstream, "no reply")
        self._try_next(flight)

    def _readable(self, flight: _Flight, each: socket.socket) -> None:
        this = flight.sockets[each]
        try:
            data = each.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError as error:  # ICMP: nothing listens there
            self._give_up(flight, each, str(error.strerror))
            return
        if not fits(data, this.identity, flight.question):
            self._counters.false_replies += 1
            this.false += 1
            if this.false >= _MOST_FALSE:
                self._give_up(flight, each, "replies to something else")
            return
        if data[3] & 15 in NOT_FINAL:
            self._refused(flight, each, data)
            return
        this.upstream.answered(self._loop.time() - this.sent_s)
        self._end(flight, data)

    def _refused(self, flight: _Flight, each: socket.socket, data: bytes) -> None:
        """Keep a reply that is not final; the name may be at fault, not the upstream."""
        self._counters.upstream_failures += 1
        flight.fallback = flight.fallback or data
        flight.deadline_s = min(flight.deadline_s, self._loop.time() + _AFTER_REFUSAL_S)
        self._drop(flight, each)

    def _give_up(self, flight: _Flight, each: socket.socket, reason: str) -> None:
        self._failed(flight.sockets[each].upstream, reason)
        self._drop(flight, each)

    def _drop(self, flight: _Flight, each: socket.socket) -> None:
        del flight.sockets[each]
        self._close(each)
        self._try_next(flight)

    def _failed(self, upstream: Upstream, reason: str) -> None:
        self._counters.upstream_failures += 1
        upstream.failed(self._loop.time(), reason)

    def _end(self, flight: _Flight, data: bytes | None) -> None:
        del self._flights[flight.message]
        if flight.timer is not None:
            flight.timer.cancel()
        for each in flight.sockets:
            self._close(each)
        flight.sockets.clear()
        for asker, identity, reply in flight.waiting:
            self._of_asker[asker] -= 1
            if not self._of_asker[asker]:
                del self._of_asker[asker]
            reply(None if data is None else identity + data[2:])

    def _close(self, each: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._loop.remove_reader(each)
        each.close()


def fits(data: bytes, identity: bytes, question: bytes) -> bool:
    """Return whether a message is the reply to a query; an upstream may change letters' case."""
    if len(data) < HEADER.size or data[:2] != identity or not data[2] & 0x80:
        return False
    found = question_of(data)
    return found is not None and (found[:-4].lower(), found[-4:]) == (
        question[:-4].lower(),
        question[-4:],
    )
