"""Gather from events the work of a follower of containers: one thread adds, another takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from agent.docker.engine.events import UNREADABLE, EngineEvent
from agent.model.endpoint import ENDPOINTS_MOST
from agent.retry import Backoff

__all__ = ["Work", "WorkList"]

_BATCH: Final = 64
_WAITING_MOST: Final = 4 * ENDPOINTS_MOST
"""With more containers to inspect than that, a check of all of them is due instead."""
_START_S: Final = 0.5
"""A container that starts is connected first, and Docker answers for it when it has started."""
_STUCK_S: Final = (1.0, 30.0)

_CHANGES: Final = frozenset({"start", "rename", "health_status"})


@dataclass(frozen=True, slots=True)
class Work:
    """The work of one step.

    Attributes:
        whole: Compare with all containers that run.
        ended: Containers that run no longer.
        left: Networks that containers have left, by container.
        inspect: Containers to inspect.
    """

    whole: bool = False
    ended: tuple[str, ...] = ()
    left: dict[str, frozenset[str]] = field(default_factory=dict)
    inspect: tuple[str, ...] = ()


class WorkList:
    """Gathers work; one thread adds, another takes. Work for one container coalesces."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._whole = False
        self._ended: set[str] = set()
        self._left: dict[str, frozenset[str]] = {}
        self._inspect: dict[str, float] = {}
        self._stuck: dict[str, Backoff] = {}

    def add(self, events: Iterable[EngineEvent]) -> bool:
        """Add what events cause; return whether that is anything."""
        with self._lock:
            return sum(self._add(event) for event in events) > 0

    def check(self) -> None:
        """Have all containers compared."""
        with self._lock:
            self._whole = True

    def clear(self) -> None:
        """Forget all work."""
        with self._lock:
            self._whole = False
            for each in (self._ended, self._left, self._inspect, self._stuck):
                each.clear()

    def look(self, containers: Iterable[str]) -> None:
        """Have containers inspected that a list shows to be different."""
        with self._lock:
            for each in containers:
                self._inspect.setdefault(each, 0.0)

    def failed(self, container: str) -> None:
        """Have a container that could not be inspected inspected later."""
        with self._lock:
            if container not in self._ended:
                backoff = self._stuck.setdefault(container, Backoff(*_STUCK_S))
                self._inspect.setdefault(container, time.monotonic() + backoff.next_s())

    def succeeded(self, container: str) -> None:
        """Note that a container could be inspected."""
        with self._lock:
            self._stuck.pop(container, None)

    def take(self) -> Work:
        """Return what is due now, at most a batch of containers to inspect."""
        with self._lock:
            now_s = time.monotonic()
            due = [each for each, due_s in self._inspect.items() if due_s <= now_s]
            batch = tuple(due[:_BATCH])
            work = Work(self._whole, tuple(self._ended), self._left, batch)
            for each in batch:
                del self._inspect[each]
            for each in work.ended:
                self._stuck.pop(each, None)
            self._whole, self._ended, self._left = False, set(), {}
            return work

    def next_due_s(self) -> float | None:
        """Return the monotonic time at which work is due, None when there is none."""
        with self._lock:
            if self._whole or self._ended or self._left:
                return 0.0
            return min(self._inspect.values(), default=None)

    def _add(self, event: EngineEvent) -> bool:
        container = event.container
        if event.kind in {UNREADABLE.kind, "daemon"}:
            self._whole = True
        elif not container:
            return False  # of a network: containers name it when they use it
        elif event.action == "die":
            self._inspect.pop(container, None)
            self._left.pop(container, None)
            self._ended.add(container)
        elif event.action in _CHANGES:
            self._ended.discard(container)
            self._left.pop(container, None)
            self._inspect[container] = 0.0
        elif event.action == "connect":
            self._left.pop(container, None)
            self._inspect.setdefault(container, time.monotonic() + _START_S)
        elif event.action == "disconnect" and container not in self._inspect:
            before = self._left.get(container, frozenset())
            self._left[container] = before | {event.network}
        else:
            return False
        if len(self._inspect) > _WAITING_MOST or len(self._ended) > _WAITING_MOST:
            self._whole = True
            for each in (self._ended, self._left, self._inspect):
                each.clear()
        return True
