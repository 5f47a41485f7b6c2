"""The active conditions, each with cause, hint and start.

Each :class:`ConditionSource` replaces its own set whole, so a condition that is missing in the new
set is over. Raising and clearing are logged once each (promise 9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from agent.daemon.state.conditions import ConditionSource
from agent.daemon.telemetry.observer import Observer
from agent.model import Condition, Severity
from agent.systemd_journal import event_id

__all__ = ["ActiveCondition", "ConditionRegistry"]

_LOG_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "info"}


@dataclass(frozen=True, slots=True)
class ActiveCondition:
    """A condition that holds, and since when (monotonic seconds)."""

    condition: Condition
    since_s: float


class ConditionRegistry:
    """The conditions that hold now, by source.

    Args:
        clock: Monotonic seconds.
        observer: Records when a condition begins and ends.
    """

    def __init__(self, clock: Callable[[], float], observer: Observer | None = None) -> None:
        self._clock = clock
        self._observer = observer or Observer()
        self._by_source: dict[ConditionSource, dict[tuple[str, str], ActiveCondition]] = {}
        self._log = structlog.get_logger("agent.conditions")

    def replace(self, source: ConditionSource, conditions: Iterable[Condition]) -> None:
        """Replace the conditions of ``source``.

        A condition that was active before keeps its "since", even with another cause.
        """
        before = self._by_source.get(source, {})
        now: dict[tuple[str, str], ActiveCondition] = {}
        for condition in conditions:
            key = (condition.name, condition.subject)
            known = before.get(key)
            now[key] = ActiveCondition(condition, known.since_s if known else self._clock())
        # Another dictionary: readers of other threads may be going through this one.
        self._by_source = {**self._by_source, source: now}
        self._tell(before, now)

    def all(self) -> tuple[ActiveCondition, ...]:
        """Return every active condition, the most severe first, then the oldest."""
        order = list(_LOG_LEVELS)
        active = (s for source in self._by_source.values() for s in source.values())
        return tuple(sorted(active, key=lambda s: (order.index(s.condition.severity), s.since_s)))

    def _tell(
        self,
        before: dict[tuple[str, str], ActiveCondition],
        now: dict[tuple[str, str], ActiveCondition],
    ) -> None:
        for key, active in now.items():
            if key in before:
                continue
            condition = active.condition
            getattr(self._log, _LOG_LEVELS[condition.severity])(
                "condition-raised",
                event_id=event_id(condition.name),
                condition=condition.name,
                subject=condition.subject,
                cause=condition.cause,
                hint=condition.hint,
            )
            self._observer.condition_raised(condition)
        for key in before.keys() - now.keys():
            active = before[key]
            self._log.info(
                "condition-cleared",
                event_id=event_id(active.condition.name),
                condition=active.condition.name,
                subject=active.condition.subject,
                after_s=round(self._clock() - active.since_s, 1),
            )
            after_s = self._clock() - active.since_s
            self._observer.condition_cleared(active.condition, after_s)
