"""When an operation may be tried again: back-off for what failed, damping for fights. Pure.

A route that the kernel refuses is retried with growing pauses, each route with its own, so
that one bad peer costs its own traffic and no busy loop. A route that somebody keeps undoing
is repaired at once the first few times; after that the two writers would only burn the
processor, so repairs are spaced out and the operator is told who the other one is.
Time comes in as an argument, in monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import Final

from agent.mesh.delta import RouteChange
from agent.mesh.desired import summarise
from agent.mesh.plan import Operation, OperationKind, OperationResult, RoutePlan
from agent.mesh.world import ROUTE_PROTOCOL, RouteKey, protocol_name, route_key
from agent.model import Condition, Route, Severity

__all__ = ["Pacer"]

_RETRY_FIRST_S: Final = 1.0
_RETRY_MOST_S: Final = 60.0
_FIGHT_REPAIRS: Final = 5
_FIGHT_WINDOW_S: Final = 10.0
_FIGHT_PAUSE_FIRST_S: Final = 1.0
_FIGHT_PAUSE_MOST_S: Final = 30.0
_FIGHT_OVER_S: Final = 60.0


@dataclass(slots=True)
class _Failure:
    pause_s: float
    due_s: float
    problem: str


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
        self._written: list[tuple[float, dict[IPv4Network, Route]]] = []
        self._repairs: dict[RouteKey, _Repairs] = {}
        self._fights: dict[RouteKey, _Fight] = {}
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
        key = route_key(operation.route)
        failure = self._failures.get(key)
        due_s = failure.due_s if failure else 0.0
        fight = self._fights.get(key)
        if fight is not None and operation.kind is OperationKind.REPLACE:
            due_s = max(due_s, fight.due_s)
        return due_s

    def observed(self, change: RouteChange) -> None:
        """Remember who wrote, for a route that is being repaired."""
        key = route_key(change.route)
        mended = key in self._repairs or any(
            key.destination in routes for _, routes in self._written
        )
        if mended and not (change.gone and change.route.protocol == self._protocol):
            self._writers[key] = change.route.protocol

    def links_changed(self) -> None:
        """Forget repairs: the kernel itself takes routes when links or addresses go."""
        self._written.clear()
        self._repairs.clear()
        self._writers.clear()

    def done(self, results: Iterable[OperationResult], now_s: float) -> None:
        """Learn from what was tried."""
        for result in results:
            key = route_key(result.operation.route)
            if not result.ok:
                before = self._failures.get(key)
                pause_s = min(before.pause_s * 2, _RETRY_MOST_S) if before else _RETRY_FIRST_S
                self._failures[key] = _Failure(
                    pause_s, now_s + pause_s * self._jitter(), result.problem
                )
                continue
            self._failures.pop(key, None)
            if result.operation.kind is OperationKind.REPLACE:
                self._repaired(key, result.operation.route, now_s)

    def _repaired(self, key: RouteKey, route: Route, now_s: float) -> None:
        fight = self._fights.get(key)
        if fight is not None:
            fight.pause_s = min(fight.pause_s * 2, _FIGHT_PAUSE_MOST_S)
            fight.due_s = now_s + fight.pause_s * self._jitter()
            fight.repairs += 1
            return
        seen = self._repairs.get(key)
        if seen is None:
            first_s = self._wrote(route, now_s)
            if first_s is None:
                return  # the first time it is written, or written differently: nobody undid it
            seen = self._repairs[key] = _Repairs(route, first_s)
        elif seen.route != route or now_s - seen.first_s > _FIGHT_WINDOW_S:
            self._repairs[key] = _Repairs(route, now_s)
            return
        seen.count += 1
        if seen.count >= _FIGHT_REPAIRS:
            pause_s = _FIGHT_PAUSE_FIRST_S
            self._fights[key] = _Fight(pause_s, now_s + pause_s * self._jitter(), seen.count)

    def _wrote(self, route: Route, now_s: float) -> float | None:
        """When the same route was written lately, None when it was not; and that it is now.

        A first pass writes every route there is: this much may be remembered of each.
        """
        for first_s, routes in reversed(self._written):
            before = routes.get(route.destination)
            if before is not None:
                if before == route and now_s - first_s <= _FIGHT_WINDOW_S:
                    return first_s
                break
        if not self._written or now_s - self._written[-1][0] >= 1:
            self._written.append((now_s, {}))
        self._written[-1][1][route.destination] = route
        return None

    def _prune(self, now_s: float) -> None:
        """Forget what is over; at most once a second, because a mesh may be large."""
        if now_s - self._pruned_s < 1:
            return
        self._pruned_s = now_s
        self._written = [each for each in self._written if now_s - each[0] <= _FIGHT_WINDOW_S]
        for key in [k for k, f in self._fights.items() if now_s - f.due_s > _FIGHT_OVER_S]:
            del self._fights[key]
            self._repairs.pop(key, None)
        kept = self._fights.keys()
        stale = [
            key
            for key, seen in self._repairs.items()
            if key not in kept and now_s - seen.first_s > _FIGHT_WINDOW_S
        ]
        for key in stale:
            del self._repairs[key]
            self._writers.pop(key, None)

    def conditions(self, wanted: Container[RouteKey] | None = None) -> tuple[Condition, ...]:
        """``route-fight`` and ``route-refused`` for each route that has one now, bounded.

        Args:
            wanted: Says which keys are still of interest, as a ``RouteDelta`` does; what is
                remembered of others is forgotten.
        """
        if wanted is not None:
            self._failures = {k: f for k, f in self._failures.items() if k in wanted}
            self._fights = {k: f for k, f in self._fights.items() if k in wanted}
        found = [self._fight_condition(key, fight) for key, fight in self._fights.items()]
        found.extend(
            Condition(
                name="route-refused",
                subject=str(key.destination),
                cause=failure.problem,
                hint=f"it is tried again, now every {failure.pause_s:g} s",
                severity=Severity.ERROR,
            )
            for key, failure in self._failures.items()
        )
        return summarise(found)

    def _fight_condition(self, key: RouteKey, fight: _Fight) -> Condition:
        writer = self._writers.get(key)
        if writer is None:
            who = "somebody who leaves no trace but the deletion"
        elif writer == self._protocol:
            who = f"somebody who uses our own {protocol_name(writer)}, perhaps another agent"
        else:
            who = f"whoever writes with {protocol_name(writer)}"
        return Condition(
            name="route-fight",
            subject=str(key.destination),
            cause=f"the route to {key.destination} was repaired {fight.repairs} times and is "
            f"undone again and again by {who}",
            hint=f"ip monitor route shows who; repairs are {fight.pause_s:g} s apart meanwhile",
        )
