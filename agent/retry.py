"""When to try again: pauses that grow after each failure, with jitter.

Every component that retries takes its pauses from here. Jitter keeps the hosts of a fleet from
acting in step, for example when etcd is back after an hour.
"""

from __future__ import annotations

import math
import random

__all__ = ["Backoff", "grown", "jittered"]


def grown(pause_s: float, first_s: float, longest_s: float) -> float:
    """Return the pause after ``pause_s``, or the first one after none: twice as long, bounded."""
    return min(pause_s * 2, longest_s) if pause_s else first_s


def jittered(seconds: float, shorter: float = 0.2, longer: float = 0.2) -> float:
    """Return ``seconds``, up to these parts of it shorter or longer."""
    return seconds * random.uniform(1 - shorter, 1 + longer)  # noqa: S311 - no secret


class Backoff:
    """Pauses that double from ``first_s`` to ``longest_s``, each between half and all of it."""

    def __init__(self, first_s: float = 0.2, longest_s: float = 10.0) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._pause_s = 0.0

    @property
    def failing(self) -> bool:
        """Return whether the last try failed."""
        return self._pause_s > 0

    def next_s(self, longest_s: float = math.inf) -> float:
        """Return the next pause in seconds, ``longest_s`` at most."""
        self._pause_s = grown(self._pause_s, self._first_s, self._longest_s)
        return jittered(min(self._pause_s, longest_s), shorter=0.5, longer=0.0)

    def reset(self) -> None:
        """Start over after a success."""
        self._pause_s = 0.0
