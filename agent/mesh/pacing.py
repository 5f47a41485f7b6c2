"""When an operation may be tried again: back-off for what failed, damping for fights. Pure.

A route that the kernel refuses is retried with growing pauses, each route with its own, so
that one bad peer costs its own traffic and no busy loop; all are tried again at once when the
uplink has changed. A route that somebody keeps undoing, or putting there, is set right at once
the first few times; after that the two writers would only burn the processor, so repairs are
spaced out and the operator is told who the other one is.
Time comes in as an argument, in monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from agent.errors import KernelError
from agent.mesh.delta import RouteChange
from agent.mesh.plan import Operation, OperationKind, OperationResult, Reason, RoutePlan
from agent.mesh.world import ROUTE_PROTOCOL, protocol_name
from agent.model import CONDITIONS_SHOWN, Condition, Route, RouteKey, Severity, and_more
from agent.model.family import Network

__all__ = ["Pacer"]

_RETRY_FIRST_S: Final = 1.0
_RETRY_MOST_S: Final = 60.0
_FIGHT_REPAIRS: Final = 5
_FIGHT_WINDOW_S: Final = 10.0
_FIGHT_PAUSE_FIRST_S: Final = 1.0
_FIGHT_PAUSE_MOST_S: Final = 30.0
_FIGHT_OVER_S: Final = 60.0


_Case = tuple[OperationKind, RouteKey]
"""What may become a fight: to put a route there again, or to take one away again."""


@dataclass(slots=True)
class _Failure:
    pause_s: float
    due_s: float
    error: KernelError


@dataclass(slots=True)
class _Repairs:
    route: Route
    first_s: float
    count: int = 0


@dataclass(slots=True)
class _Fight:
    pause_s: float
    due_s: float
    repairs: int


class Pacer:
    """Remembers failures and repairs by route. Not for use by two threads at once.

    Args:
        protocol: rtm_protocol of our own routes.
        jitter: Multiplies each pause, so that hosts do not act in step; about 0.8 to 1.2.
    """

    def __init__(
        self, *, protocol: int = ROUTE_PROTOCOL, jitter: Callable[[], float] = lambda: 1.0
    ) -> None:
        self._protocol = protocol
        self._jitter = jitter
        self._failures: dict[RouteKey, _Failure] = {}
        self._lately = {kind: _Lately() for kind in OperationKind}
        self._repairs: dict[_Case, _Repairs] = {}
        self._fights: dict[_Case, _Fight] = {}
        self._writers: dict[RouteKey, int] = {}
        self._pruned_s = 0.0

    def allow(self, plan: RoutePlan, now_s: float) -> tuple[RoutePlan, float | None]:
        """The part of ``plan`` that may be tried now, and when (if ever) the next part may.

        Plan again at that time: what was held back stays in later plans by itself.
        """
        self._prune(now_s)
        if not self._failures and not self._fights:
            return plan, None
        now: list[Operation] = []
        next_s: float | None = None
        for operation in plan.operations:
            due_s = self._due_s(operation)
            if due_s <= now_s:
                now.append(operation)
            elif next_s is None or due_s < next_s:
                next_s = due_s
        return replace(plan, operations=tuple(now)), next_s

    def _due_s(self, operation: Operation) -> float:
        key = operation.route.key
        failure = self._failures.get(key)
        due_s = failure.due_s if failure else 0.0
        fight = self._fights.get((operation.kind, key))
        return due_s if fight is None else max(due_s, fight.due_s)

    def observed(self, change: RouteChange) -> None:
        """Remember who wrote, for a route that is being repaired."""
        key = change.route.key
        ours_went = change.gone and change.route.protocol == self._protocol
        if not ours_went and self._mended(key):
            self._writers[key] = change.route.protocol

    def _mended(self, key: RouteKey) -> bool:
        """Whether we wrote, or took away, something under this key lately."""
        return any(
            (kind, key) in self._repairs or (kind, key) in self._fights or key.destination in lately
            for kind, lately in self._lately.items()
        )

    def links_changed(self) -> None:
        """Forget repairs: the kernel itself takes routes when links or addresses go."""
        for lately in self._lately.values():
            lately.clear()
        self._repairs.clear()
        self._writers.clear()

    def uplink_changed(self) -> None:
        """Try all again that failed: what the kernel refused by the uplink as it was may go now.

        Pauses grow all the same, so that a link that flaps for hours is not asked in each flap.
        """
        for failure in self._failures.values():
            failure.due_s = 0.0

    def done(self, results: Iterable[OperationResult], now_s: float) -> None:
        """Learn from what was tried.

        What failed together is due together: 65,000 routes that wait for one link, each with a due
        time of its own, would be passes without end.
        """
        jitter = self._jitter()
        for result in results:
            key = result.operation.route.key
            if result.error is not None:
                before = self._failures.get(key)
                pause_s = min(before.pause_s * 2, _RETRY_MOST_S) if before else _RETRY_FIRST_S
                due_s = now_s + pause_s * jitter
                self._failures[key] = _Failure(pause_s, due_s, result.error)
                continue
            self._failures.pop(key, None)
            case = result.operation.kind, key
            if result.operation.reason is Reason.CONFLICT:
                self._gave_way(key, result.operation.actual)
            else:
                self._wanted_otherwise(case)
            self._repaired(case, result.operation.route, now_s, jitter)

    def _gave_way(self, key: RouteKey, rival: Route | None) -> None:
        """Name the rival as the writer, should ours come and go again and again.

        No wish of ours: what was put there before is remembered. Otherwise a rival of another
        metric that comes and goes would never be a fight.
        """
        if rival is not None and self._mended(key):
            self._writers.setdefault(key, rival.protocol)

    def _repaired(self, case: _Case, route: Route, now_s: float, jitter: float) -> None:
        fight = self._fights.get(case)
        if fight is not None:
            fight.pause_s = min(fight.pause_s * 2, _FIGHT_PAUSE_MOST_S)
            fight.due_s = now_s + fight.pause_s * jitter
            fight.repairs += 1
            return
        seen = self._repairs.get(case)
        if seen is None:
            first_s = self._lately[case[0]].note(route, now_s)
            if first_s is None:
                return  # the first time it is written, or written differently: nobody undid it
            seen = self._repairs[case] = _Repairs(route, first_s)
        elif seen.route != route or now_s - seen.first_s > _FIGHT_WINDOW_S:
            self._repairs[case] = _Repairs(route, now_s)
            return
        seen.count += 1
        if seen.count >= _FIGHT_REPAIRS:
            pause_s = _FIGHT_PAUSE_FIRST_S
            self._fights[case] = _Fight(pause_s, now_s + pause_s * jitter, seen.count)

    def _wanted_otherwise(self, case: _Case) -> None:
        """What was put there is taken away, or the other way round: by a wish, not by a rival."""
        kind, key = case
        other = OperationKind.DELETE if kind is OperationKind.REPLACE else OperationKind.REPLACE
        self._lately[other].forget(key.destination)
        self._repairs.pop((other, key), None)

    def _prune(self, now_s: float) -> None:
        """Forget what is over; at most once a second, because a mesh may be large."""
        if now_s - self._pruned_s < 1:
            return
        self._pruned_s = now_s
        for lately in self._lately.values():
            lately.prune(now_s)
        for case in [c for c, f in self._fights.items() if now_s - f.due_s > _FIGHT_OVER_S]:
            del self._fights[case]
            self._repairs.pop(case, None)
        kept = self._fights.keys()
        stale = [
            case
            for case, seen in self._repairs.items()
            if case not in kept and now_s - seen.first_s > _FIGHT_WINDOW_S
        ]
        for case in stale:
            del self._repairs[case]
        if self._writers:
            self._writers = {k: w for k, w in self._writers.items() if self._mended(k)}

    def conditions(self, wanted: Container[RouteKey] | None = None) -> tuple[Condition, ...]:
        """``route-fight`` and ``route-refused`` for each route that has one now, bounded.

        Args:
            wanted: Says which keys are still of interest, as a ``RouteDelta`` does; what is
                remembered of others is forgotten.
        """
        if wanted is not None:
            self._failures = {k: f for k, f in self._failures.items() if k in wanted}
            # What was taken away is wanted by nobody: that fight ends by time alone.
            self._fights = {
                case: fight
                for case, fight in self._fights.items()
                if case[0] is OperationKind.DELETE or case[1] in wanted
            }
        fights = islice(self._fights.items(), CONDITIONS_SHOWN)
        failures = islice(self._failures.items(), CONDITIONS_SHOWN)
        return (
            *and_more([self._fight_condition(*each) for each in fights], len(self._fights)),
            *and_more([_refused(*each) for each in failures], len(self._failures)),
        )

    def _fight_condition(self, case: _Case, fight: _Fight) -> Condition:
        kind, key = case
        writer = self._writers.get(key)
        if writer is None:
            who = "somebody who leaves no trace but the deletion"
        elif writer == self._protocol:
            who = f"somebody who uses our own {protocol_name(writer)}, perhaps another agent"
        else:
            who = f"whoever writes with {protocol_name(writer)}"
        what = "repaired" if kind is OperationKind.REPLACE else "removed"
        undone = "undone" if kind is OperationKind.REPLACE else "put there"
        return Condition(
            name="route-fight",
            subject=str(key.destination),
            cause=f"the route to {key.destination} was {what} {fight.repairs} times and is "
            f"{undone} again and again by {who}",
            hint=f"ip monitor route shows who; repairs are {fight.pause_s:g} s apart meanwhile",
        )


class _Lately:
    """Which routes were written, or taken away, in the last seconds.

    A first pass writes every route there is: this much may be remembered of each.
    """

    def __init__(self) -> None:
        self._routes: list[tuple[float, dict[Network, Route]]] = []

    def __contains__(self, destination: object) -> bool:
        return any(destination in routes for _, routes in self._routes)

    def note(self, route: Route, now_s: float) -> float | None:
        """When the same was done lately, None when it was not; and that it is done now."""
        for first_s, routes in reversed(self._routes):
            before = routes.get(route.destination)
            if before is not None:
                if before == route and now_s - first_s <= _FIGHT_WINDOW_S:
                    return first_s
                break
        if not self._routes or now_s - self._routes[-1][0] >= 1:
            self._routes.append((now_s, {}))
        self._routes[-1][1][route.destination] = route
        return None

    def forget(self, destination: Network) -> None:
        for _, routes in self._routes:
            routes.pop(destination, None)

    def prune(self, now_s: float) -> None:
        self._routes = [each for each in self._routes if now_s - each[0] <= _FIGHT_WINDOW_S]

    def clear(self) -> None:
        self._routes.clear()


def _refused(key: RouteKey, failure: _Failure) -> Condition:
    again = f"it is tried again, now every {failure.pause_s:g} s"
    return Condition(
        name="route-refused",
        subject=str(key.destination),
        cause=failure.error.message,
        hint=f"{failure.error.hint}; {again}" if failure.error.hint else again,
        severity=Severity.ERROR,
    )
