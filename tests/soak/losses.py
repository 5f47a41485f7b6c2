"""Which event explains a lost ping. Pure.

A ping may be lost only while an event cuts one of its two hosts off (:class:`Window`), or where a
documented bound allows it: a change of backend costs each pair at most one packet a step.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Loss", "Losses", "Window"]


_ON_ITS_WAY_S = 0.2


@dataclass(frozen=True, slots=True)
class Loss:
    """An echo without an answer; names of hosts, or of containers on them as HOST/NAME."""

    source: str
    target: str
    number: int
    sent_s: float

    @property
    def ends(self) -> frozenset[str]:
        """Return the two ends and their hosts."""
        return frozenset({self.source, self.target, *(x.partition("/")[0] for x in self.pair)})

    @property
    def pair(self) -> tuple[str, str]:
        """Return the ends, in order."""
        return self.source, self.target


@dataclass
class Window:
    """A time in which an event explains losses.

    Attributes:
        why: The event.
        ends: Hosts, or single containers, whose pairs it concerns.
        others: Only pairs of these with ``ends``; None for all.
        begin_s: Monotonic seconds; only a ping that was on its way then was sent before.
        end_s: The same, for pings sent after it; not ended while it is infinite.
        at_most: Lost packets of each ordered pair; None for any number.
    """

    why: str
    ends: frozenset[str]
    begin_s: float
    end_s: float = math.inf
    others: frozenset[str] | None = None
    at_most: int | None = None

    def covers(self, loss: Loss) -> bool:
        """Return whether the loss lies in the window, and its pair is concerned."""
        if not self.begin_s - _ON_ITS_WAY_S <= loss.sent_s <= self.end_s:
            return False
        sides = (self.ends,) if self.others is None else (self.ends, self.others)
        return all(side & loss.ends for side in sides)


class Losses:
    """Sorts losses by the window that explains them."""

    def __init__(self) -> None:
        self.windows: list[Window] = []
        self.explained: Counter[str] = Counter()
        """How many by event."""
        self._used: Counter[tuple[int, tuple[str, str]]] = Counter()

    def open(
        self,
        why: str,
        ends: Iterable[str],
        begin_s: float,
        *,
        others: Iterable[str] | None = None,
        at_most: int | None = None,
    ) -> Window:
        """Begin a window; set its ``end_s`` when the event is over."""
        both = None if others is None else frozenset(others)
        window = Window(why, frozenset(ends), begin_s, others=both, at_most=at_most)
        self.windows.append(window)
        return window

    def explain(self, loss: Loss) -> bool:
        """Count a loss under the event that explains it; False where none does."""
        covering = [each for each in self.windows if each.covers(loss)]
        for window in sorted(covering, key=lambda each: each.at_most is not None):
            key = (id(window), loss.pair)
            if window.at_most is None or self._used[key] < window.at_most:
                self._used[key] += 1
                self.explained[window.why] += 1
                return True
        return False
