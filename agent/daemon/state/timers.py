"""Deadlines of the loop, on the monotonic clock."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

__all__ = ["Timer", "Timers"]


class Timer(StrEnum):
    """Reasons to wake the loop."""

    RESYNC = "resync"
    """Everything is compared."""
    HOST = "host"
    """The host is looked at again after a look that failed."""
    SWEEP = "sweep"
    """Routes of an earlier run of the agent may go."""
    CALM = "calm"
    """Routes of leases that are gone may go."""
    COPY = "copy"
    """The host's own copy of the mesh is written."""
    ROUTES = "routes"
    RULES = "rules"


class Timers:
    """At most one deadline per timer; setting one again moves it.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at: dict[Timer, float] = {}

    def set(self, timer: Timer, in_s: float) -> None:
        """Have ``timer`` fall due in ``in_s`` seconds, in place of an earlier deadline."""
        self.set_at(timer, self._clock() + in_s)

    def set_at(self, timer: Timer, at_s: float) -> None:
        """Set ``timer`` at a time of the monotonic clock."""
        self._at[timer] = at_s

    def set_sooner(self, timer: Timer, in_s: float) -> None:
        """Set ``timer``, but keep an earlier deadline that is already set."""
        at = self._clock() + in_s
        self._at[timer] = min(at, self._at.get(timer, at))

    def cancel(self, timer: Timer) -> None:
        """Forget ``timer``."""
        self._at.pop(timer, None)

    def due(self) -> frozenset[Timer]:
        """Return the timers that are due, and forget them."""
        now = self._clock()
        found = frozenset(timer for timer, at in self._at.items() if at <= now)
        for timer in found:
            del self._at[timer]
        return found

    def wait_s(self, at_most_s: float) -> float:
        """Return the seconds to the next deadline, between 0 and ``at_most_s``."""
        if not self._at:
            return at_most_s
        return max(0.0, min(at_most_s, min(self._at.values()) - self._clock()))
