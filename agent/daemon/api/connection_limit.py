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
    """The connections that are open now. Any thread.

    Args:
        most: How many at a time.
        reserved: How many more for root, whose commands get in while all others wait for an answer.
        longest_s: How long a connection may stay, whatever it does.
        idle_s: How long a connection may be idle before it can be evicted.
    """

    def __init__(self, most: int, reserved: int, longest_s: float, idle_s: float) -> None:
        self._most = most
        self._reserved = reserved
        self._longest_s = longest_s
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._accepted_s: dict[socket.socket, float] = {}  # oldest first
        self._idle_since_s: dict[socket.socket, float] = {}  # idle longest first

    def take(self, connection: socket.socket, *, root: bool) -> bool:
        """Let a connection in, in place of one that is idle if need be.

        Returns:
            False when all others wait for an answer of the agent's.
        """
        with self._lock:
            if len(self._accepted_s) >= self._most + (self._reserved if root else 0):
                if not self._idle_since_s:
                    return False
                self._end(next(iter(self._idle_since_s)))
            self._accepted_s[connection] = self._idle_since_s[connection] = time.monotonic()
            return True

    def start_work(self, connection: socket.socket) -> bool:
        """Note that a request is being answered; False when its connection was ended."""
        with self._lock:
            return self._idle_since_s.pop(connection, None) is not None

    def end_work(self, connection: socket.socket) -> None:
        """Note that the answer is ready to be sent: from now on the client may be too slow."""
        with self._lock:
            if connection in self._accepted_s:
                self._idle_since_s[connection] = time.monotonic()

    def leave(self, connection: socket.socket) -> bool:
        """Forget a connection that has ended; return whether others had to wait for a place."""
        with self._lock:
            full = len(self._accepted_s) >= self._most
            self._accepted_s.pop(connection, None)
            self._idle_since_s.pop(connection, None)
            return full

    @property
    def free_s(self) -> float:
        """Return the monotonic time from which on :meth:`take` has an answer for another one."""
        with self._lock:
            if len(self._accepted_s) < self._most:
                return 0.0
            return next(iter(self._idle_since_s.values()), -math.inf) + self._idle_s

    @property
    def end_s(self) -> float:
        """Return the monotonic time at which the next connection has stayed too long."""
        with self._lock:
            return next(iter(self._accepted_s.values()), math.inf) + self._longest_s

    def end_overdue(self) -> None:
        """End the connections that have stayed too long."""
        before_s = time.monotonic() - self._longest_s
        with self._lock:
            for connection in [c for c, at_s in self._accepted_s.items() if at_s <= before_s]:
                self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        """Shut a connection down: its thread ends by that, after the answer that it works on."""
        self._accepted_s.pop(connection, None)
        self._idle_since_s.pop(connection, None)
        with contextlib.suppress(OSError):  # it has just ended
            connection.shutdown(socket.SHUT_RDWR)
