"""Desired and actual objects of one kind; actual is stored only where it differs.

A comparison of 10,000 peers is never needed for one of them: the tracker remembers which keys
differ. It knows of the kernel only what it hears. So a new complete list is due whenever
:attr:`DeltaTracker.needs_list` says so, when notifications may have been lost, when links or
addresses changed, and now and then anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Generic

from agent.reconcile.foreign import ForeignObjects
from agent.reconcile.interfaces import Change, Listing, Operation, OperationKind, Reason, Result, V
from agent.reconcile.object_kind import Kind
from agent.reconcile.plan import Plan, PlanParts

__all__ = ["DeltaTracker", "compare"]


def _harmless(_value: object) -> bool:
    return False


class DeltaTracker(Generic[V]):
    """The difference between desired and actual objects of one kind.

    Not for use by two threads at once. Before the first :meth:`listed` its plans are empty: an
    unknown kernel is not an empty one (promise 4).
    """

    def __init__(self, kind: Kind[V]) -> None:
        self._kind = kind
        self._desired: dict[Hashable, V] = {}
        self._differing: dict[Hashable, tuple[V, ...]] = {}
        """The agent's objects under each key where they are not just the desired one."""
        self._foreign = ForeignObjects(kind, self._desired.__contains__)
        self._links: Counter[str] = Counter()
        self._has_list = False
        self._last_own: tuple[V, ...] | None = None
        self._last_foreign: tuple[V, ...] | None = None
        """The last list, as long as no news came after it."""
        self._needs_list = True
        self._ended: set[Hashable] = set()
        self._undone: set[Hashable] = set()
        """Keys whose difference comes from a change of desired; every other one is drift."""

    @property
    def needs_list(self) -> bool:
        """Whether something happened that only a new complete list can settle."""
        return self._needs_list

    @property
    def desired(self) -> Mapping[Hashable, V]:
        """Every desired object by its key; a live, read-only view."""
        return MappingProxyType(self._desired)

    @property
    def missing_count(self) -> int:
        """How many desired objects are absent, or differ."""
        differing = self._differing.items()
        return sum(self._desired.get(key) not in (None, *own) for key, own in differing)

    @property
    def differing_count(self) -> int:
        """Under how many keys the agent's objects are not just the desired one."""
        return len(self._differing)

    def depends_on(self, link: str) -> bool:
        """Whether an object, desired or foreign, names this link (``Kind.links``)."""
        return self._links[link] > 0 or self._foreign.links[link] > 0

    def __contains__(self, key: object) -> bool:
        """Whether something is desired, or still to be done, under ``key``."""
        return key in self._differing or key in self._desired

    def want(self, changes: Mapping[Any, V | None], *, known_gone: bool = False) -> None:
        """Desire these objects under these keys; None: no object any more.

        Args:
            known_gone: The desired state that this replaces came from a complete view, so that
                an object that is no longer desired need not wait for the grace time.
        """
        for key, value in changes.items():
            before = self._desired.get(key)
            if before == value:
                continue
            own = self.actual(key)
            if before is not None:
                self._links.subtract(self._kind.links(before))
            if value is None:
                del self._desired[key]
            else:
                self._desired[key] = value
                self._links.update(self._kind.links(value))
            self._set_actual(key, own)
            self._ended.discard(key)
            if key in self._differing:
                self._undone.add(key)
                if value is None and known_gone:
                    self._ended.add(key)
            self._foreign.settle(key)

    def actual(self, key: Hashable) -> tuple[V, ...]:
        """Return the agent's objects under a key, as far as is known."""
        differing = self._differing.get(key)
        if differing is not None:
            return differing
        wanted = self._desired.get(key)
        return () if wanted is None else (wanted,)

    def _set_actual(self, key: Hashable, own: tuple[V, ...]) -> None:
        wanted = self._desired.get(key)
        if own == (() if wanted is None else (wanted,)):
            self._differing.pop(key, None)
            self._ended.discard(key)
        else:
            self._differing[key] = own

    def _heard(self, key: Hashable, own: tuple[V, ...]) -> None:
        """Follow news: the next list has to be compared even if it equals the last one."""
        self._last_own = None
        self._set_actual(key, own)

    def listed(self, listing: Listing[V]) -> None:
        """Replace what was known by a complete list.

        The very list of last time costs nothing while no news came in between.
        """
        self._needs_list = False
        if listing.own is not self._last_own:
            self._compare(listing.own)
        if not self._has_list:
            self._has_list = True
            self._undone = set(self._differing)  # what an earlier run left is no drift
        if listing.foreign is not self._last_foreign:
            self._foreign.listed(listing.foreign)
        self._last_own, self._last_foreign = listing.own, listing.foreign

    def _compare(self, own: tuple[V, ...]) -> None:
        missing = dict(self._desired)
        differing: dict[Hashable, list[V]] = {}
        for value in own:
            key = value.key
            if missing.get(key) == value:
                del missing[key]
            else:
                differing[key] = []
        if differing:
            # Several under one key keep the kernel's order: the first one is in force.
            for value in own:
                found = differing.get(value.key)
                if found is not None:
                    found.append(value)
        self._differing = dict.fromkeys(missing, ())
        self._differing.update((key, tuple(found)) for key, found in differing.items())
        self._ended &= self._differing.keys()

    def observed(self, change: Change[V]) -> None:
        """Follow a notification from the kernel."""
        value, key = change.object, change.object.key
        if change.replaced:
            if not change.gone and self._count_under(value) != 1:
                self._needs_list = True  # no message says which of several was replaced
            self._heard(key, ())
            self._last_foreign = None
            self._foreign.replaced(value)
        if self._kind.is_own(value):
            others = tuple(each for each in self.actual(key) if each != value)
            self._heard(key, others if change.gone else (*others, value))
        else:
            self._last_foreign = None
            (self._foreign.went if change.gone else self._foreign.appeared)(value)
        if self._count_under(value) > 1:
            self._needs_list = True  # no message says which of them comes first

    def _count_under(self, value: V) -> int:
        return len(self.actual(value.key)) + self._foreign.under(value)

    def plan(
        self,
        *,
        may_delete: bool,
        may_sweep: bool = True,
        harmful: Callable[[V], bool] = _harmless,
    ) -> Plan[V]:
        """Return what has to be done where something differs. Empty before the first list.

        Args:
            may_delete: Absence from desired state is certain, and nothing speaks against deletion.
            may_sweep: The grace time is over, so that objects of an earlier run may go, too. An
                object that was desired in this run, and is known to be gone, does not wait.
            harmful: Whether an object of the agent's that is not desired goes in any case.
        """
        parts = PlanParts(self._kind)
        if not self._has_list:
            return parts.plan()
        for key in dict.fromkeys((*self._foreign.contested, *self._differing)):
            wanted, own = self._desired.get(key), self.actual(key)
            may = may_delete and (may_sweep or key in self._ended)
            parts.add(
                wanted,
                own,
                self._foreign.of(own[0] if wanted is None else wanted),
                may_delete=may or any(map(harmful, own)),
            )
        return parts.plan()

    def applied(self, results: Iterable[Result[V]]) -> None:
        """Follow what the kernel made of a plan; what failed stays due.

        A list is called for where that does not say all: :attr:`needs_list`.
        """
        for result in results:
            operation = result.operation
            key = operation.object.key
            own = self.actual(key)
            if not result.ok:
                self._needs_list = True
            elif operation.kind is OperationKind.REPLACE:
                others = tuple(each for each in own if each != operation.actual)
                self._heard(key, (operation.object, *others))
            else:
                # Beside another one, the kernel may have taken that: it matches roughly.
                self._needs_list = self._needs_list or len(own) > 1
                self._heard(key, tuple(each for each in own if each != operation.object))

    def drifted(self, plan: Plan[V], results: Iterable[Result[V]]) -> tuple[Operation[V], ...]:
        """Return which of a plan's results were repairs: actual had changed, desired had not.

        What of the plan was not done stays undone: a change that takes several tries is no
        drift. An object that gives way to another program's is no repair.
        """
        done = [each.operation for each in results if each.ok]
        repairs = tuple(
            each
            for each in done
            if each.object.key not in self._undone and each.reason is not Reason.CONFLICT
        )
        left = {each.object.key for each in plan.operations}
        left.update(each.key for each in plan.held)
        self._undone &= left.difference(each.object.key for each in done)
        return repairs


def compare(kind: Kind[V], desired: Mapping[Any, V], listing: Listing[V]) -> DeltaTracker[V]:
    """Compare without memory: return a new tracker that knows these objects only."""
    tracker = DeltaTracker(kind)
    tracker.want(desired)
    tracker.listed(listing)
    return tracker
