"""Waiting longer after each failure, with jitter, so that a fleet does not move in step."""

from __future__ import annotations

import random

__all__ = ["Backoff", "jittered"]


class Backoff:
    """Pauses that double from ``first_s`` to ``longest_s``, each between half and all of it.

    Args:
        first_s: Base of the first pause, in seconds.
        longest_s: No pause is longer.
    """

    def __init__(self, first_s: float = 0.2, longest_s: float = 10.0) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0

    def next_s(self) -> float:
        """Return the next pause in seconds."""
        base_s: float = min(self._longest_s, self._first_s * (1 << min(self._failures, 16)))
        self._failures += 1
        return base_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret

    def reset(self) -> None:
        """Start over: it worked."""
        self._failures = 0


def jittered(interval_s: float) -> float:
    """Return an interval up to a tenth shorter, never longer."""
    return interval_s * random.uniform(0.9, 1.0)  # noqa: S311 - jitter, not a secret
