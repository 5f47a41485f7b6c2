"""How often a repair is tried while another program keeps undoing it. Pure: times are arguments."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from agent.retry import grown

__all__ = ["Damper", "Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When repairs are a fight, and how it is damped.

    Attributes:
        burst, window_s: So many repairs within so many seconds are a fight.
        first_pause_s, longest_pause_s: Pauses between repairs of a fight; they double.
        over_s: A fight is over when it needed no repair for so long after one was allowed.
    """

    burst: int
    window_s: float
    first_pause_s: float
    longest_pause_s: float
    over_s: float


class Damper:
    """Lets repairs through at once until they are a fight, and then in growing intervals.

    Otherwise two programs that undo each other's writes would only burn the processor.

    Attributes:
        total: Repairs counted.
        pause_s: The pause between repairs of the fight, 0 without one.
        due_s: When the next repair may be tried.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._repairs: deque[float] = deque(maxlen=limits.burst)
        self.total = 0
        self.pause_s = 0.0
        self.due_s = 0.0

    @property
    def fighting(self) -> bool:
        """Whether the last repairs were a fight, as of the last call of :meth:`is_fight`."""
        return self.pause_s > 0

    def is_fight(self, now_s: float) -> bool:
        """Whether repairs are a fight now; one that is over is forgotten."""
        if now_s - self.due_s > self._limits.over_s:
            self.pause_s = self.due_s = 0.0
        return self.fighting

    def is_over(self, now_s: float) -> bool:
        """Whether nothing has to be remembered any more."""
        recent = bool(self._repairs) and now_s - self._repairs[-1] <= self._limits.window_s
        return not self.is_fight(now_s) and not recent

    def allows(self, now_s: float) -> bool:
        """Whether a repair may be tried now."""
        return now_s >= self.due_s

    def repaired(self, now_s: float, jitter: float = 1.0) -> None:
        """Count one repair.

        Args:
            jitter: Multiplies the pause after it; about 0.8 to 1.2.
        """
        self.total += 1
        self._repairs.append(now_s)
        full = len(self._repairs) == self._limits.burst
        burst = full and now_s - self._repairs[0] <= self._limits.window_s
        if burst or self.fighting:
            limits = self._limits
            self.pause_s = grown(self.pause_s, limits.first_pause_s, limits.longest_pause_s)
            self.due_s = now_s + self.pause_s * jitter
