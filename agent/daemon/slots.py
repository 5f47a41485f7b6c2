"""Who is served at the same time. So many at most, and the idle make room for who comes.

A client that asks nothing, or does not take its answer, must not keep others from asking.
"""

from __future__ import annotations

import contextlib
import socket
import threading

__all__ = ["Slots"]


class Slots:
    """The connections that are served now. Any thread.

    Args:
        most: So many at a time.
        reserved: So many more for root: what changes something gets in while all others wait for
            an answer.
    """

    def __init__(self, most: int, reserved: int = 0) -> None:
        self._most = most
        self._reserved = reserved
        self._lock = threading.Lock()
        self._idle: dict[socket.socket, None] = {}  # the one that is idle for longest first
        self._working: set[socket.socket] = set()

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
                oldest = next(iter(self._idle))
                del self._idle[oldest]
                with contextlib.suppress(OSError):  # it has just ended
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread ends by that
            self._idle[connection] = None
            return True

    def work(self, connection: socket.socket) -> bool:
        """The connection's request is being answered; False when it had to make room."""
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
            self._idle[connection] = None

    def leave(self, connection: socket.socket) -> None:
        """The connection has ended."""
        with self._lock:
            self._idle.pop(connection, None)
            self._working.discard(connection)
