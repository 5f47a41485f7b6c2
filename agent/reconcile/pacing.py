"""When an operation may be tried again: back-off for what failed, damping for fights. Pure.

An object that the kernel refuses is retried with growing pauses, each with its own, so that
one bad peer costs its own traffic and no busy loop; all are tried again at once when a link
has changed. An object that another program keeps undoing, or adding, is repaired at once
the first few times; after that the two writers would only burn the processor, so repairs are
spaced out and a condition names the other one. Time is an argument, in monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic

from agent.errors import HostmeshError
from agent.model import CONDITIONS_SHOWN, Condition, Severity, and_more
from agent.reconcile.damping import Damper, Limits
from agent.reconcile.interfaces import Change, Operation, OperationKind, Reason, Result, V
from agent.reconcile.object_kind import Kind
from agent.retry import grown

__all__ = ["Pacer"]

_RETRY_FIRST_S: Final = 1.0
_RETRY_MOST_S: Final = 60.0
_FIGHT_WINDOW_S: Final = 10.0
_LIMITS: Final = Limits(
    burst=6, window_s=_FIGHT_WINDOW_S, first_pause_s=1.0, longest_pause_s=30.0, over_s=60.0
)
"""An object is written, and repaired at once four times; the fifth repair makes it a fight."""

_Case = tuple[OperationKind, Hashable]
"""A case that may become a fight: adding an object again, or deleting one again."""


@dataclass(slots=True)
class _Failure(Generic[V]):
    object: V
    pause_s: float
    due_s: float
    error: HostmeshError


@dataclass(slots=True)
class _Repairs(Generic[V]):
    object: V
    damper: Damper


class Pacer(Generic[V]):
    """Remembers failures and repairs by key. Not for use by two threads at once.

    Args:
        jitter: Multiplies each pause, so that hosts do not act in step; about 0.8 to 1.2.
    """

    def __init__(self, kind: Kind[V], *, jitter: Callable[[], float] = lambda: 1.0) -> None:
        self._kind = kind
        self._jitter = jitter
        self._failures: dict[Hashable, _Failure[V]] = {}
        self._recent = {kind: _Recent[V]() for kind in OperationKind}
        self._repairs: dict[_Case, _Repairs[V]] = {}
        self._writers: dict[Hashable, V] = {}
        self._pruned_s = 0.0

    def allow(
        self, operations: Sequence[Operation[V]], now_s: float
    ) -> tuple[tuple[Operation[V], ...], float | None]:
        """Return the operations that may be tried now, and when (if ever) the next may.

        Plan again at that time: what is held back stays in later plans.
        """
        self._prune(now_s)
        if not self._failures and not self._repairs:
            return tuple(operations), None
        due = [(self._due_s(each), each) for each in operations]
        later = [due_s for due_s, _ in due if due_s > now_s]
        return tuple(each for due_s, each in due if due_s <= now_s), min(later, default=None)

    def _due_s(self, operation: Operation[V]) -> float:
        key = operation.object.key
        failure, repairs = self._failures.get(key), self._repairs.get((operation.kind, key))
        return max(failure.due_s if failure else 0.0, repairs.damper.due_s if repairs else 0.0)

    def observed(self, change: Change[V]) -> None:
        """Remember the writer of an object that is being repaired."""
        key = change.object.key
        own_went = change.gone and self._kind.is_own(change.object)
        if not own_went and self._is_mended(key):
            self._writers[key] = change.object

    def _is_mended(self, key: Hashable) -> bool:
        """Whether the agent wrote or deleted something under this key recently."""
        return any(
            (kind, key) in self._repairs or key in recent for kind, recent in self._recent.items()
        )

    def forget_repairs(self) -> None:
        """Forget repairs that are no fight: objects went, and no program deleted them.

        The kernel deletes objects when links or addresses go, and the agent when the host leaves.
        """
        for recent in self._recent.values():
            recent.clear()
        self._repairs = {case: seen for case, seen in self._repairs.items() if seen.damper.fighting}
        self._writers.clear()

    def retry_now(self) -> None:
        """Try everything that failed again: the reason may be gone with the link's old state.

        Pauses grow all the same, so that a link that flaps for hours is not asked in each flap.
        """
        for failure in self._failures.values():
            failure.due_s = 0.0

    def done(self, results: Iterable[Result[V]], now_s: float) -> None:
        """Learn from what was tried.

        What failed together is due together: 10,000 routes that wait for one link, each with a
        due time of its own, would be passes without end.
        """
        jitter = self._jitter()
        for result in results:
            operation = result.operation
            key = operation.object.key
            if result.error is not None:
                before = self._failures.get(key)
                pause_s = grown(before.pause_s if before else 0.0, _RETRY_FIRST_S, _RETRY_MOST_S)
                due_s = now_s + pause_s * jitter
                self._failures[key] = _Failure(operation.object, pause_s, due_s, result.error)
                continue
            self._failures.pop(key, None)
            case = operation.kind, key
            if operation.reason is Reason.CONFLICT:
                self._gave_way(key, operation.actual)
            else:
                self._end_opposite(case)
            self._repaired(case, operation.object, now_s, jitter)

    def _gave_way(self, key: Hashable, foreign: V | None) -> None:
        """Name the other program as the writer, should the two alternate again and again.

        Desired state did not change: what was added before is remembered. Otherwise a foreign
        object with another key that comes and goes would never be a fight.
        """
        if foreign is not None and self._is_mended(key):
            self._writers.setdefault(key, foreign)

    def _repaired(self, case: _Case, value: V, now_s: float, jitter: float) -> None:
        seen = self._repairs.get(case)
        if seen is None:
            first_s = self._recent[case[0]].note(value, now_s)
            if first_s is None:
                return  # written for the first time, or written differently: no repair
            seen = self._repairs[case] = _Repairs(value, Damper(_LIMITS))
            seen.damper.repaired(first_s)
        elif seen.object != value and not seen.damper.fighting:
            seen = self._repairs[case] = _Repairs(value, Damper(_LIMITS))
        seen.damper.repaired(now_s, jitter)

    def _end_opposite(self, case: _Case) -> None:
        """Forget an addition when the object is deleted by desire, and the other way round."""
        kind, key = case
        other = OperationKind.DELETE if kind is OperationKind.REPLACE else OperationKind.REPLACE
        self._recent[other].forget(key)
        seen = self._repairs.get((other, key))
        if seen is not None and not seen.damper.fighting:
            del self._repairs[other, key]

    def _prune(self, now_s: float) -> None:
        """Forget what is over; at most once a second, because a mesh may be large."""
        if now_s - self._pruned_s < 1:
            return
        self._pruned_s = now_s
        for recent in self._recent.values():
            recent.prune(now_s)
        self._repairs = {
            case: seen for case, seen in self._repairs.items() if not seen.damper.is_over(now_s)
        }
        if self._writers:
            self._writers = {k: w for k, w in self._writers.items() if self._is_mended(k)}

    def conditions(self, wanted: Container[Hashable] | None = None) -> tuple[Condition, ...]:
        """Return ``<kind>-fight`` and ``<kind>-refused`` for each object that has one, bounded.

        Args:
            wanted: The keys still of interest, as a ``DeltaTracker`` knows them; what is
                remembered of others is forgotten.
        """
        if wanted is not None:
            self._failures = {k: f for k, f in self._failures.items() if k in wanted}
            # A deleted object is not wanted any more: that fight ends by time alone.
            self._repairs = {
                case: seen
                for case, seen in self._repairs.items()
                if case[0] is OperationKind.DELETE or case[1] in wanted
            }
        fights = [(case, seen) for case, seen in self._repairs.items() if seen.damper.fighting]
        shown = fights[:CONDITIONS_SHOWN]
        failures = islice(self._failures.values(), CONDITIONS_SHOWN)
        return (
            *and_more([self._fight_condition(*each) for each in shown], len(fights)),
            *and_more([self._refused(each) for each in failures], len(self._failures)),
        )

    def _fight_condition(self, case: _Case, fight: _Repairs[V]) -> Condition:
        kind, key = case
        writer = self._writers.get(key)
        if writer is None:
            who = "an unknown program"
        elif self._kind.is_own(writer):
            who = f"a program that uses Hostmesh's own {self._kind.writer(writer)}, perhaps another"
            who += " agent"
        else:
            who = f"the program that writes with {self._kind.writer(writer)}"
        repaired = "repaired" if kind is OperationKind.REPLACE else "removed"
        undone = "undone" if kind is OperationKind.REPLACE else "put there"
        name, subject = self._kind.name, self._kind.subject(fight.object)
        return Condition(
            name=f"{name}-fight",
            subject=subject,
            cause=f"the {name} to {subject} was {repaired} {fight.damper.total} times and is "
            f"{undone} again and again by {who}",
            hint=f"find the program ({self._kind.watch}) and stop it; repairs are"
            f" {fight.damper.pause_s:g} s apart meanwhile",
        )

    def _refused(self, failure: _Failure[V]) -> Condition:
        again = f"it is tried again, now every {failure.pause_s:g} s"
        return Condition(
            name=f"{self._kind.name}-refused",
            subject=self._kind.subject(failure.object),
            cause=failure.error.message,
            hint=f"{failure.error.hint}; {again}" if failure.error.hint else again,
            severity=Severity.ERROR,
        )


class _Recent(Generic[V]):
    """Which objects were written, or deleted, in the last seconds.

    A first pass writes every object there is: this much may be remembered of each.
    """

    def __init__(self) -> None:
        self._objects: list[tuple[float, dict[Hashable, V]]] = []

    def __contains__(self, key: object) -> bool:
        return any(key in objects for _, objects in self._objects)

    def note(self, value: V, now_s: float) -> float | None:
        """Note a write; return when the same was written recently, None when it was not."""
        for first_s, objects in reversed(self._objects):
            before = objects.get(value.key)
            if before is not None:
                if before == value and now_s - first_s <= _FIGHT_WINDOW_S:
                    return first_s
                break
        if not self._objects or now_s - self._objects[-1][0] >= 1:
            self._objects.append((now_s, {}))
        self._objects[-1][1][value.key] = value
        return None

    def forget(self, key: Hashable) -> None:
        for _, objects in self._objects:
            objects.pop(key, None)

    def prune(self, now_s: float) -> None:
        self._objects = [each for each in self._objects if now_s - each[0] <= _FIGHT_WINDOW_S]

    def clear(self) -> None:
        self._objects.clear()
