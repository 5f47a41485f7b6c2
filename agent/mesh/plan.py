"""The difference between desired and actual routes, as operations. Pure.

Safe to compute and to apply at any time, any number of times: what is right already brings no
operation, a replacement never passes through a state without the route, and nothing that
another protocol wrote appears in an operation (promises 5 and 6).
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from agent.errors import KernelError
from agent.mesh.world import MAIN_TABLE, protocol_name
from agent.model import CONDITIONS_SHOWN, Condition, Place, Route, RouteKey, and_more

__all__ = [
    "Conflict",
    "Operation",
    "OperationKind",
    "OperationResult",
    "PlanParts",
    "Reason",
    "RoutePlan",
    "count_differing",
    "order_operations",
    "plan_key",
    "plan_routes",
]


class OperationKind(enum.StrEnum):
    """What is done to a route."""

    REPLACE = "replace"
    DELETE = "delete"


class Reason(enum.StrEnum):
    """Why an operation is in a plan; the words ``agentctl diff`` prints."""

    MISSING = "missing"
    MODIFIED = "modified"
    EXTRA = "extra"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of one route.

    Attributes:
        route: What shall be there (replace) or shall go (delete).
        actual: What is there instead, for a modified route; for a conflict, the other program's
            route that ours gives way to.
    """

    kind: OperationKind
    route: Route
    reason: Reason
    actual: Route | None = None


@dataclass(frozen=True, slots=True)
class OperationResult:
    """How one operation ended.

    Attributes:
        error: None when the kernel now holds what the operation wanted.
        errno: The kernel's error number, 0 without an error or when it gave none.
    """

    operation: Operation
    error: KernelError | None = None
    errno: int = 0

    @property
    def ok(self) -> bool:
        """Whether the kernel now holds what the operation wanted."""
        return self.error is None

    @property
    def outrun(self) -> bool:
        """Somebody else's route came first, or ours stood there already: a reason to look again."""
        return self.errno == errno.EEXIST and self.operation.reason is Reason.MISSING

    @property
    def problem(self) -> str:
        """What failed and why, "" when nothing did."""
        return "" if self.error is None else self.error.message


@dataclass(frozen=True, slots=True)
class Conflict:
    """A foreign route where we want one. It is left alone, and ours is absent meanwhile."""

    wanted: Route
    foreign: Route

    def condition(self) -> Condition:
        """The condition ``route-conflict``."""
        return Condition(
            name="route-conflict",
            subject=str(self.wanted.destination),
            cause=f"{self.foreign} was written by "
            f"{protocol_name(self.foreign.protocol)}; it is left alone and used instead of ours",
            hint=f"remove it ({_removal(self.foreign)}) or find what writes it; "
            "Hostmesh takes over when it is gone",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePlan:
    """What has to be done, in order, and what is not done and why.

    Attributes:
        operations: Replacements before deletions.
        conflicts: Foreign routes to our destinations.
        held: Extra routes of ours that stay because deletion is not allowed yet.
    """

    operations: tuple[Operation, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    held: tuple[Route, ...] = ()

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """``route-conflict`` for the conflicts, bounded (:mod:`agent.model.condition`)."""
        shown = [conflict.condition() for conflict in self.conflicts[:CONDITIONS_SHOWN]]
        return and_more(shown, len(self.conflicts))


def plan_routes(
    desired: Mapping[RouteKey, Route],
    ours: Iterable[Route],
    foreign: Iterable[Route],
    *,
    may_delete: bool,
    harmful: Callable[[Route], bool] = lambda _: False,
) -> RoutePlan:
    """Compare everything.

    Args:
        desired: What should be there, by the kernel's key.
        ours: Every route with our protocol, from a complete list.
        foreign: Every other route that may meet ours, from the same complete list.
        may_delete: ``DesiredRoutes.certain`` holds and the grace time is over.
        harmful: Whether a route of ours that is not desired goes in any case.
    """
    ours_by_key: dict[RouteKey, list[Route]] = {}
    for route in ours:
        ours_by_key.setdefault(route.key, []).append(route)
    foreign_by_place: dict[Place, list[Route]] = {}
    for route in foreign:
        foreign_by_place.setdefault(route.place, []).append(route)
    parts = PlanParts()
    for key, wanted in desired.items():
        there = ours_by_key.pop(key, ())
        if len(there) == 1 and there[0] == wanted and not foreign_by_place:
            continue
        rivals = foreign_by_place.get(key.place, ()) if foreign_by_place else ()
        parts.add(plan_key(wanted, there, rivals, may_delete=may_delete))
    for key, there in ours_by_key.items():
        may = may_delete or any(map(harmful, there))
        parts.add(plan_key(None, there, foreign_by_place.get(key.place, ()), may_delete=may))
    return parts.plan()


def count_differing(desired: Mapping[RouteKey, Route], ours: Iterable[Route]) -> int:
    """Count the keys under which our routes are not just the desired one.

    Args:
        desired: What should be there, by the kernel's key.
        ours: Every route with our protocol, from a complete list.
    """
    there: dict[RouteKey, list[Route]] = {}
    for route in ours:
        there.setdefault(route.key, []).append(route)
    extra = sum(key not in desired for key in there)
    return extra + sum(there.get(key) != [wanted] for key, wanted in desired.items())


class PlanParts:
    """Collects what single keys bring into one plan."""

    def __init__(self) -> None:
        self._operations: list[Operation] = []
        self._conflicts: list[Conflict] = []
        self._held: list[Route] = []

    def add(self, parts: Iterable[Operation | Conflict | Route]) -> None:
        """Sort in what :func:`plan_key` returned."""
        for part in parts:
            if isinstance(part, Operation):
                self._operations.append(part)
            elif isinstance(part, Conflict):
                self._conflicts.append(part)
            else:
                self._held.append(part)

    def plan(self) -> RoutePlan:
        """All of it, in the order in which it is safe."""
        return RoutePlan(
            operations=order_operations(self._operations),
            conflicts=tuple(self._conflicts),
            held=tuple(self._held),
        )


def plan_key(
    wanted: Route | None,
    ours: Iterable[Route],
    rivals: Iterable[Route],
    *,
    may_delete: bool,
) -> list[Operation | Conflict | Route]:
    """Compare the routes under one key; the full plan is this, key by key.

    With a rival of whatever metric, ours goes: at the lower metric it would shadow the rival. It
    goes without a view of etcd, too, because no record in etcd decides that (promise 5).

    Args:
        wanted: The desired route, None when there should be none.
        ours: Routes of ours under the key. More than one when somebody appended.
        rivals: Foreign routes at the same place, of any metric.
        may_delete: Whether extra routes go, or are held.

    Returns:
        Operations, conflicts, and bare routes for extras that are held.
    """
    rivals = tuple(rivals)
    there = list(ours)
    if rivals:
        return _give_way(wanted, there, rivals)
    parts: list[Operation | Conflict | Route] = []
    if wanted is not None:
        if wanted in there:
            there.remove(wanted)
        elif there:
            parts.append(Operation(OperationKind.REPLACE, wanted, Reason.MODIFIED, there.pop(0)))
        else:
            parts.append(Operation(OperationKind.REPLACE, wanted, Reason.MISSING))
    if may_delete:
        parts.extend(Operation(OperationKind.DELETE, extra, Reason.EXTRA) for extra in there)
    else:
        parts.extend(there)
    return parts


def _give_way(
    wanted: Route | None, ours: list[Route], rivals: tuple[Route, ...]
) -> list[Operation | Conflict | Route]:
    """Withdraw ours where another program has a route; its own is never replaced."""
    parts: list[Operation | Conflict | Route] = []
    if wanted is not None:
        parts.extend(Conflict(wanted, rival) for rival in rivals)
    if ours:
        first = min(rivals, key=lambda each: (each.metric, str(each)))
        parts.extend(Operation(OperationKind.DELETE, each, Reason.CONFLICT, first) for each in ours)
    return parts


def order_operations(operations: Iterable[Operation]) -> tuple[Operation, ...]:
    """Replacements first, then deletions, the most specific first.

    So no address is ever without both its old and its new route, and an aggregate goes only
    when everything in front of it is gone.
    """
    replacements: list[Operation] = []
    deletions: list[Operation] = []
    for operation in operations:
        is_delete = operation.kind is OperationKind.DELETE
        (deletions if is_delete else replacements).append(operation)
    deletions.sort(key=lambda operation: -operation.route.destination.prefixlen)
    return (*replacements, *deletions)


def _removal(route: Route) -> str:
    """The command that removes this route and not one of ours beside it."""
    words = [f"ip route del {route.destination} proto {route.protocol}"]
    if route.metric:
        words.append(f"metric {route.metric}")
    if route.table != MAIN_TABLE:
        words.append(f"table {route.table}")
    return " ".join(words)
