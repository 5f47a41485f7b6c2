"""Reconcile one kind of object, or several kinds in the order that is safe.

A :class:`Reconciler` joins a :class:`~agent.reconcile.tracker.DeltaTracker` (what differs), a
:class:`~agent.reconcile.pacing.Pacer` (what may be tried now) and a table (the kernel). A single
change costs work for that one object; everything is listed again when notifications were lost,
links or addresses changed, an operation was refused, or the caller says so.

:func:`reconcile` runs several of them as one pass: deletions that close come first, then
replacements in the order of the kinds, then additions that open, then the other deletions in
reverse order. So nothing is let in before its path is complete, and nothing that an object
depends on goes before it. A kind is listed after those that it depends on were written, because
the kernel deletes all that is on a link with the link.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic

from agent.errors import HostmeshError
from agent.model import Condition
from agent.reconcile.interfaces import Change, Operation, Result, Table, V
from agent.reconcile.object_kind import ANY_LINK, Kind
from agent.reconcile.pacing import Pacer
from agent.reconcile.plan import Plan
from agent.reconcile.tracker import DeltaTracker

__all__ = ["PASS_S", "Permission", "Reconciler", "Report", "reconcile"]

PASS_S: Final = 5.0
"""How long one table may be written in a pass: the caller has more to do, and a watchdog. It
matters only where the kernel looks for each of many next hops among all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """The deletions that a pass may do.

    Attributes:
        may_delete: Objects may go that were desired in this run and are known to be gone.
        may_sweep: Objects of an earlier run may go, too.
        harmful: Whether an object that is not desired goes in any case.
    """

    may_delete: bool
    may_sweep: bool = True
    harmful: Callable[[Any], bool] = field(default=lambda _: False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Generic[V]):
    """How the objects of one kind are after a pass.

    Attributes:
        kind: Of which kind; None where it does not matter.
        desired, installed: How many are desired, and how many of those exist; None: not known.
        differing: Under how many keys actual is not just the desired object. None: not known.
        failed: Operations that the kernel refused.
        again_in_s: When to come back for what was held back, None when nothing was.
        done: What this pass changed.
        repaired: Those of it that undid another program's change.
        error: Why the objects could not be listed; nothing was changed then.
    """

    kind: Kind[V] | None = None
    desired: int | None = None
    installed: int | None = None
    differing: int | None = None
    failed: int = 0
    again_in_s: float | None = None
    conditions: tuple[Condition, ...] = ()
    done: tuple[Operation[V], ...] = ()
    repaired: tuple[Operation[V], ...] = ()
    error: HostmeshError | None = None

    @property
    def complete(self) -> bool:
        """Whether every desired object is known to exist."""
        return self.installed is not None and self.installed == self.desired


@dataclass(slots=True)
class _Pass(Generic[V]):
    """The part of a pass for one kind."""

    plan: Plan[V]
    next_s: float | None
    replacements: tuple[Operation[V], ...]
    deletions: tuple[Operation[V], ...]
    results: list[Result[V]] = field(default_factory=list)


class Reconciler(Generic[V]):
    """The objects of one kind. For one thread.

    Args:
        clock: Monotonic seconds.
        jitter: Multiplies each pause, so that hosts do not act in step; about 0.8 to 1.2.
    """

    def __init__(
        self,
        kind: Kind[V],
        table: Table[V],
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.kind = kind
        self.table = table
        self._clock = clock
        self._jitter = jitter
        self._tracker = DeltaTracker(kind)
        self._pacer = Pacer(kind, jitter=jitter)
        self._must_list = True

    @property
    def desired(self) -> Mapping[Hashable, V]:
        """Every desired object by its key; a live, read-only view."""
        return self._tracker.desired

    def want(self, changes: Mapping[Any, V | None], *, known_gone: bool = False) -> None:
        """Desire these objects under these keys; as ``DeltaTracker.want``."""
        self._tracker.want(changes, known_gone=known_gone)

    def observe(self, changes: Iterable[Change[V]]) -> None:
        """Follow notifications about objects."""
        for change in changes:
            self._tracker.observed(change)
            self._pacer.observed(change)

    def links_changed(self, links: Iterable[str], *, addresses: bool = False) -> None:
        """Follow that links, or with ``addresses`` addresses, changed.

        The kernel deletes what depends on them without a notification: all objects are listed
        again if one names such a link. What the kernel refused before may be possible now.
        """
        if any(map(self._tracker.depends_on, links)):
            self._pacer.forget_repairs()
            self._pacer.retry_now()
            self._must_list = True
        elif addresses and self._tracker.depends_on(ANY_LINK):
            self._must_list = True

    def look_again(self) -> None:
        """List every object at the next pass."""
        self._must_list = True

    def retry_now(self) -> None:
        """Try everything that failed at the next pass, as ``Pacer.retry_now``."""
        self._pacer.retry_now()

    def forget(self) -> None:
        """Desire nothing any more, so that what is missing later is no drift."""
        self._tracker = DeltaTracker(self.kind)
        self._pacer.forget_repairs()
        self._must_list = True

    def begin(self, permission: Permission) -> _Pass[V]:
        """List where that is due, and plan.

        Raises:
            HostmeshError: The objects could not be listed completely; nothing was changed.
        """
        if self._must_list or self._tracker.needs_list:
            self._must_list = True  # until it has succeeded
            self._tracker.listed(self.table.list_all(self._tracker.desired))
            self._must_list = False
        plan = self._tracker.plan(
            may_delete=permission.may_delete,
            may_sweep=permission.may_sweep,
            harmful=permission.harmful,
        )
        now_s = self._clock()
        replacements, one_s = self._pacer.allow(plan.replacements, now_s)
        deletions, other_s = self._pacer.allow(plan.deletions, now_s)
        next_s = min((each for each in (one_s, other_s) if each is not None), default=None)
        return _Pass(plan, next_s, replacements, deletions)

    def apply(self, current: _Pass[V], operations: Sequence[Operation[V]]) -> None:
        """Carry out some of a pass's operations."""
        if operations:
            results = self.table.apply(operations, for_s=PASS_S)
            self._tracker.applied(results)
            current.results += results

    def end(self, current: _Pass[V]) -> Report[V]:
        """Learn from a pass, and report on it."""
        now_s = self._clock()
        outrun = sum(each.outrun for each in current.results)
        self._pacer.done([each for each in current.results if not each.outrun], now_s)
        self._must_list = self._must_list or bool(outrun)
        failed = sum(not each.ok for each in current.results) - outrun
        due = len(current.replacements) + len(current.deletions)
        unfinished = len(current.results) < due
        if outrun or unfinished or (self._tracker.needs_list and not failed):
            again_in_s: float | None = 0.0
        elif current.next_s is not None:
            again_in_s = max(0.0, current.next_s - now_s)
        else:
            again_in_s = self._jitter() if failed else None
        desired = len(self._tracker.desired)
        return Report(
            kind=self.kind,
            desired=desired,
            installed=desired - self._tracker.missing_count,
            differing=self._tracker.differing_count,
            failed=failed,
            again_in_s=again_in_s,
            done=tuple(each.operation for each in current.results if each.ok),
            repaired=self._tracker.drifted(current.plan, current.results),
            conditions=(
                *current.plan.conditions(self.kind),
                *self._pacer.conditions(self._tracker),
            ),
        )


def reconcile(
    reconcilers: Sequence[Reconciler[Any]], permission: Permission
) -> tuple[Report[Any], ...]:
    """Run one pass over several kinds, and return a report for each.

    A kind that cannot be listed is left as it is, and its report has the error.

    Args:
        reconcilers: In the order in which their objects depend on each other.
    """
    run = _Run(permission)
    building = [each for each in reconcilers if not each.kind.opens]
    opening = [each for each in reconcilers if each.kind.opens]
    for each in opening:
        run.begin(each)
        run.delete(each)
    for number, each in enumerate(building):
        run.begin(each)
        made = run.replace(each)
        for later in building[number + 1 :]:
            later.links_changed(made)
    for each in opening:
        run.replace(each)
    for each in reversed(building):
        run.delete(each)
    return tuple(map(run.end, reconcilers))


class _Run:
    """One pass over several kinds, each of which may fail alone."""

    def __init__(self, permission: Permission) -> None:
        self._permission = permission
        self._passes: dict[Reconciler[Any], _Pass[Any]] = {}
        self._failures: dict[Reconciler[Any], HostmeshError] = {}

    def begin(self, each: Reconciler[Any]) -> None:
        try:
            self._passes[each] = each.begin(self._permission)
        except HostmeshError as error:
            self._failures[each] = error

    def replace(self, each: Reconciler[Any]) -> tuple[str, ...]:
        """Replace and add; return the links that were made or changed."""
        current = self._passes.get(each)
        if current is None:
            return ()
        each.apply(current, current.replacements)
        written = (result.operation.object for result in current.results if result.ok)
        return tuple(each.kind.makes(value) for value in written) if each.kind.makes else ()

    def delete(self, each: Reconciler[Any]) -> None:
        current = self._passes.get(each)
        if current is not None:
            each.apply(current, current.deletions)

    def end(self, each: Reconciler[Any]) -> Report[Any]:
        error = self._failures.get(each)
        if error is not None:
            return Report(kind=each.kind, desired=len(each.desired), failed=1, error=error)
        return each.end(self._passes[each])
