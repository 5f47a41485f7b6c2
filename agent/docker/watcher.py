"""Follows the engine: a thread on its event stream that says what may have changed."""

from __future__ import annotations

import enum
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from agent import threads
from agent.docker.engine import Engine
from agent.docker.stream import EventStream
from agent.errors import DockerError

__all__ = ["EngineEvent", "EngineWatcher", "EventKind"]

_log = structlog.get_logger("docker.watcher")

_IDLE_S = 30.0
_BACKOFF_S = (0.25, 15.0)
_FACTOR = 1.6
_SHORT_S = 1.0
"""A stream without an event that ends sooner counts as a failure: no hot loop."""


class EventKind(enum.Enum):
    """What an event is about."""

    GONE = "gone"
    BACK = "back"
    NETWORK = "network"
    CONTAINER = "container"
    DAEMON = "daemon"


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Something happened at the engine; a reason to look, not the thing to act on.

    Attributes:
        kind: What it is about.
        action: Docker's word for it ("create", "die", …); why, when the engine is gone.
        name: Of the network or the container.
    """

    kind: EventKind
    action: str = ""
    name: str = ""


class EngineWatcher:
    """Follows one engine until stopped.

    Reconnects with jittered backoff, 0.25 to 15 s. A stream that is silent is opened anew
    every 30 s, which is also how an engine that hangs is noticed.

    Args:
        engine: Whose events.
        on_event: Called in the watcher's thread; must not block.
        idle_s: How long a silent stream is trusted.
    """

    def __init__(
        self, engine: Engine, on_event: Callable[[EngineEvent], None], *, idle_s: float = _IDLE_S
    ) -> None:
        self._engine = engine
        self._on_event = on_event
        self._idle_s = idle_s
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._stream: EventStream | None = None
        self._up: bool | None = None
        self._thread = threading.Thread(target=self._run, name="docker-watcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """End the thread; return whether it ended within ``timeout_s``."""
        self._stopping.set()
        with self._lock:
            if self._stream is not None:
                self._stream.close()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                failures = 0 if self._follow() else failures + 1
            except Exception as error:  # noqa: BLE001 - the top of a thread
                threads.tell(error)
                failures += 1
            if failures:
                lowest_s, highest_s = _BACKOFF_S
                delay_s = min(highest_s, lowest_s * _FACTOR ** min(failures - 1, 20))
                self._stopping.wait(delay_s * random.uniform(0.5, 1.0))  # noqa: S311

    def _follow(self) -> bool:
        """Follow one stream to its end; return whether there was one worth the name."""
        try:
            stream = self._engine.events(idle_s=self._idle_s)
        except DockerError as error:
            self._tell(up=False, why=error.message)
            return False
        with self._lock:
            self._stream = stream
        since_s, seen = time.monotonic(), False
        try:
            self._tell(up=True)
            for kind, action, name in stream:
                if self._stopping.is_set():
                    return True
                seen = True
                self._pass_on(kind, action, name)
        finally:
            with self._lock:
                self._stream = None
            stream.close()
        return seen or time.monotonic() - since_s > _SHORT_S

    def _pass_on(self, kind: str, action: str, name: str) -> None:
        known = {one.value: one for one in EventKind}
        if kind in known:
            self._on_event(EngineEvent(known[kind], action, name))

    def _tell(self, *, up: bool, why: str = "") -> None:
        """Say that the engine is gone or back, once for each change."""
        if up == self._up or self._stopping.is_set():
            return
        self._up = up
        self._on_event(EngineEvent(EventKind.BACK if up else EventKind.GONE, why))
