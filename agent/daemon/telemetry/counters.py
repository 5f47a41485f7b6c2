"""Counters since the agent started; the metrics are made of them on request.

Plain numbers, because they are written on the loop's thread all the time and read rarely. A
number that is read while it is written is the one before or the one after.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Buckets", "Counters"]


@dataclass(slots=True)
class Buckets:
    """A histogram: how many values were at most each bound.

    Attributes:
        bounds: Upper bounds, ascending; one more bucket takes the rest.
    """

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Return pairs of upper bound and count, each with those below it, as Prometheus counts."""
        found, sum_so_far = [], 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], list(self.counts), strict=True):
            sum_so_far += count
            found.append((bound, float(sum_so_far)))
        return found


_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_SIZES = (0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0)


@dataclass(slots=True)
class Counters:
    """The counts since the agent started.

    Attributes:
        pass_s: How long passes over a part took, "routes" and "rules".
        plan_size: How many operations a pass over the routes did.
        repairs: Drift put right, by kind: "route-missing", ..., "rules".
        objects: After the last pass, for each kind of kernel object: how many are desired, and how
            many of those exist; None where they could not be listed.
        last_repair: What was put right last, and when (monotonic seconds).
        events: Events recorded, by kind.
        docker_restarts: Restarts of dockerd by the agent.
        started_s: Unix time at which counting began.
    """

    pass_s: dict[str, Buckets] = field(
        default_factory=lambda: {"routes": Buckets(_SECONDS), "rules": Buckets(_SECONDS)}
    )
    plan_size: Buckets = field(default_factory=lambda: Buckets(_SIZES))
    repairs: Counter[str] = field(default_factory=Counter)
    objects: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    last_repair: tuple[str, float] | None = None
    events: Counter[str] = field(default_factory=Counter)
    docker_restarts: int = 0
    started_s: float = field(default_factory=time.time)
