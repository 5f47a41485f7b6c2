"""Named deadlines for the loop, on the monotonic clock."""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["Timers", "jittered"]


def jittered(seconds: float, spread: float = 0.2) -> float:
    """``seconds`` give or take ``spread`` of it, so that a fleet does not act in step."""
    return seconds * random.uniform(1 - spread, 1 + spread)  # noqa: S311 # no secret


class Timers:
    """At most one deadline per name; setting one again moves it.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at: dict[str, float] = {}

    def set(self, name: str, in_s: float) -> None:
        """Have ``name`` fall due in ``in_s`` seconds, whatever was set before."""
        self._at[name] = self._clock() + in_s

    def set_sooner(self, name: str, in_s: float) -> None:
        """The same, but keep an earlier deadline that is already set."""
        at = self._clock() + in_s
        self._at[name] = min(at, self._at.get(name, at))

    def cancel(self, name: str) -> None:
        """Forget ``name``."""
        self._at.pop(name, None)

    def due(self) -> frozenset[str]:
        """The names whose time has come; each is forgotten by being told."""
        now = self._clock()
        names = frozenset(name for name, at in self._at.items() if at <= now)
        for name in names:
            del self._at[name]
        return names

    def wait_s(self, at_most_s: float) -> float:
        """Seconds until the next deadline, 0 when one has passed, ``at_most_s`` when far."""
        if not self._at:
            return at_most_s
        return max(0.0, min(at_most_s, min(self._at.values()) - self._clock()))
