"""Cap concurrent connections: evict the one idle longest, and end those that stay too long.

A client that asks nothing, does not take its answer, or sends a byte now and then must not keep
others from asking. Each gets a moment to send its request before it can be evicted: otherwise many
connections at the same time would evict each other unserved.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time

__all__ = ["ConnectionLimit"]


class ConnectionLimit:
    """The connections that are served now. Any thread.

    Args:
        most: So many at a time.
        reserved: So many more for root: what changes something gets in while all others wait for
            an answer.
        longest_s: How long a connection may stay, whatever it does.
        idle_s: How long a connection may be idle before it can be evicted.
    """

    def __init__(
        self, most: int, reserved: int = 0, longest_s: float = math.inf, idle_s: float = 0.0
    ) -> None:
        self._most = most
        self._reserved = reserved
        self._longest_s = longest_s
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._idle: dict[socket.socket, float] = {}  # since when; idle longest is first
        self._working: set[socket.socket] = set()
        self._ends: dict[socket.socket, float] = {}  # the one that ends first is first

    def take(self, connection: socket.socket, *, root: bool = False) -> bool:
        """Let a connection in, in place of one that is idle if need be.

        Returns:
            False when everybody waits for an answer of the agent's.
        """
        with self._lock:
            most = self._most + (self._reserved if root else 0)
            if len(self._idle) + len(self._working) >= most:
                if not self._idle:
                    return False
                self._end(next(iter(self._idle)))
            self._idle[connection] = time.monotonic()
            self._ends[connection] = self._idle[connection] + self._longest_s
            return True

    @property
    def free_s(self) -> float:
        """Return the monotonic time from which on :meth:`take` has an answer for another one."""
        with self._lock:
            if len(self._idle) + len(self._working) < self._most:
                return 0.0
            return next(iter(self._idle.values()), -math.inf) + self._idle_s

    def work(self, connection: socket.socket) -> bool:
        """The connection's request is being answered; False when it was ended."""
        with self._lock:
            if connection not in self._idle:
                return False
            del self._idle[connection]
            self._working.add(connection)
            return True

    def rest(self, connection: socket.socket) -> None:
        """It was answered: the connection is idle again."""
        with self._lock:
            self._working.discard(connection)
            self._idle[connection] = time.monotonic()

    def leave(self, connection: socket.socket) -> bool:
        """Forget a connection that has ended; return whether others had to wait for a place."""
        with self._lock:
            full = len(self._idle) + len(self._working) >= self._most
            self._idle.pop(connection, None)
            self._ends.pop(connection, None)
            self._working.discard(connection)
            return full

    @property
    def end_s(self) -> float:
        """Return the monotonic time at which the next connection has stayed too long."""
        with self._lock:
            return next(iter(self._ends.values()), math.inf)

    def cut(self) -> None:
        """End the connections that have stayed too long."""
        now_s = time.monotonic()
        with self._lock:
            for connection in [each for each, end_s in self._ends.items() if end_s <= now_s]:
                self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        """Shut a connection down: its thread ends by that, after the answer that it works on."""
        self._idle.pop(connection, None)
        self._ends.pop(connection, None)
        with contextlib.suppress(OSError):  # it has just ended
            connection.shutdown(socket.SHUT_RDWR)
