"""Follow the engine's events as they come."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import structlog

from agent.docker.engine.engine import Engine
from agent.docker.engine.events import EngineEvent, EventLines
from agent.errors import DockerError
from agent.retry import Backoff
from agent.threads import Poller, Wait

__all__ = ["EngineWatcher"]

_log = structlog.get_logger("docker.watcher")

_IDLE_S = 30.0
_BACKOFF_S = (0.25, 15.0)
_SHORT_S = 1.0
"""A stream without an event that ends sooner counts as a failure: no hot loop."""
_READ_BYTES = 1 << 16


class EngineWatcher:
    """Follows the event stream of one engine: another thread opens it, a poller reads it.

    Opens it anew with jittered backoff, 0.25 to 15 s. One that stays open is replaced every 30 s,
    which is also how an engine that hangs is noticed.

    Args:
        engine: Whose events.
        on_events: Called on the poller's thread with what happened; with nothing when the stream
            ended.
        poller: Shared with other sources; None: one of its own.
        idle_s: How long a stream is trusted.
    """

    name = "docker-watcher"

    def __init__(
        self,
        engine: Engine,
        on_events: Callable[[tuple[EngineEvent, ...]], None],
        *,
        poller: Poller | None = None,
        idle_s: float = _IDLE_S,
    ) -> None:
        self._engine = engine
        self._on_events = on_events
        self._idle_s = idle_s
        self._poller = poller or Poller(self.name)
        self._lock = threading.Lock()
        self._stream: socket.socket | None = None
        self._lines = EventLines()
        self._opened_s = 0.0
        self._heard = False
        self._backoff = Backoff(*_BACKOFF_S)
        self._up: bool | None = None
        self.due_s = 0.0
        """Monotonic time at which :meth:`follow` is due."""

    def start(self) -> None:
        """Begin to read."""
        self._poller.add(self)

    def stop(self) -> bool:
        """Follow no more; return whether that is so within two seconds."""
        stopped = self._poller.remove(self)
        self._replace(None)
        return stopped

    def follow(self) -> bool:
        """Open a stream in place of the one there is; waits for the engine's answer.

        Returns:
            Whether to look now: events before the stream began are lost, and an engine that has
            just gone is news.
        """
        try:
            stream = self._engine.events()
        except DockerError as error:
            self._replace(None)
            self._failed()
            return self._notice(up=False, why=error.message)
        self._heard = False
        self._opened_s = time.monotonic()
        self.due_s = self._opened_s + self._idle_s
        self._replace(stream)
        self._poller.wake()
        self._notice(up=True)
        return True

    def waits_for(self) -> Wait:
        """Return the stream."""
        with self._lock:
            return Wait(() if self._stream is None else (self._stream.fileno(),))

    def serve(self, ready: frozenset[int]) -> None:
        """Read what has come."""
        with self._lock:
            stream = self._stream
            if stream is None or stream.fileno() not in ready:
                return
            try:
                came = stream.recv(_READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:  # another stream has got the number of the previous one
                return
            except OSError:
                came = b""
            events = self._lines.feed(came)
        self._heard = self._heard or bool(came)
        if not came:
            self._ended()
            self._on_events(())
        elif events:
            self._on_events(events)

    def _replace(self, stream: socket.socket | None) -> None:
        with self._lock:
            before, self._stream, self._lines = self._stream, stream, EventLines()
        if before is not None:
            before.close()

    def _ended(self) -> None:
        self._replace(None)
        if self._heard or time.monotonic() - self._opened_s > _SHORT_S:
            self._backoff.reset()
            self.due_s = 0.0
        else:
            self._failed()

    def _failed(self) -> None:
        self.due_s = time.monotonic() + self._backoff.next_s()

    def _notice(self, *, up: bool, why: str = "") -> bool:
        """Return whether this differs from what was so before."""
        if up == self._up:
            return False
        self._up = up
        _log.debug("docker-back" if up else "docker-gone", why=why)
        return True
