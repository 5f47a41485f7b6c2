"""How often a repair is tried while somebody else keeps undoing it. Pure: times come in."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Damper"]

_BURST: Final = 20
_WINDOW_S: Final = 30.0
_HOLD_S: Final = 5.0


class Damper:
    """Lets repairs through at once, and one in 5 s after twenty within half a minute.

    Docker that restarts or makes a Compose project's networks stays below; two programs
    that each want to be first in a chain would otherwise rewrite it for ever. It ends when
    half a minute needed no repair.
    """

    def __init__(self) -> None:
        self._repairs: deque[float] = deque(maxlen=_BURST)
        self._contested_until_s = 0.0
        self.total = 0

    def contested(self, now_s: float) -> bool:
        """Whether somebody fights."""
        return now_s < self._contested_until_s

    def allows(self, now_s: float) -> bool:
        """Whether a repair may be tried now."""
        return not self.contested(now_s) or now_s - self._repairs[-1] >= _HOLD_S

    def repaired(self, now_s: float) -> None:
        """Count one repair."""
        self._repairs.append(now_s)
        self.total += 1
        burst = len(self._repairs) == _BURST and now_s - self._repairs[0] < _WINDOW_S
        if burst or self.contested(now_s):
            self._contested_until_s = now_s + _WINDOW_S
