"""Turn the difference under each key into operations; a plan is all of them.

A plan is safe to compute and to apply any number of times: an object that is right brings no
operation, a replacement never passes through a state without the object, and no operation names
an object of another program (promises 5 and 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from agent.model import CONDITIONS_SHOWN, Condition, and_more
from agent.reconcile.interfaces import Operation, OperationKind, Reason, V
from agent.reconcile.object_kind import Kind

__all__ = ["Conflict", "Plan", "PlanParts"]


@dataclass(frozen=True, slots=True)
class Conflict(Generic[V]):
    """A foreign object where one is desired. It is left alone, and the agent's is withdrawn."""

    wanted: V
    foreign: V

    def condition(self, kind: Kind[V]) -> Condition:
        """Return the condition ``<kind>-conflict``."""
        return Condition(
            name=f"{kind.name}-conflict",
            subject=kind.subject(self.wanted),
            cause=f"{self.foreign} was written by {kind.writer(self.foreign)}; it is left alone "
            "and used instead of Hostmesh's",
            hint=f"remove it ({kind.removal(self.foreign)}) and stop the program that writes it; "
            "Hostmesh takes over when it is gone",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Generic[V]):
    """The operations to do, in order, and those that are not done, with the reason.

    Attributes:
        replacements: Objects that are missing or modified. They come first.
        deletions: In order of the kind.
        conflicts: Foreign objects where one is desired.
        held: Extra objects of the agent's that stay because deletion is not allowed yet.
    """

    replacements: tuple[Operation[V], ...] = ()
    deletions: tuple[Operation[V], ...] = ()
    conflicts: tuple[Conflict[V], ...] = ()
    held: tuple[V, ...] = ()

    @property
    def operations(self) -> tuple[Operation[V], ...]:
        """All operations in a safe order for one kind: replacements, then deletions."""
        return (*self.replacements, *self.deletions)

    def conditions(self, kind: Kind[V]) -> tuple[Condition, ...]:
        """Return a condition for each conflict, bounded (:mod:`agent.model.condition`)."""
        shown = [conflict.condition(kind) for conflict in self.conflicts[:CONDITIONS_SHOWN]]
        return and_more(shown, len(self.conflicts))


class PlanParts(Generic[V]):
    """Collects the differences under single keys into one plan."""

    def __init__(self, kind: Kind[V]) -> None:
        self._kind = kind
        self._replacements: list[Operation[V]] = []
        self._deletions: list[Operation[V]] = []
        self._conflicts: list[Conflict[V]] = []
        self._held: list[V] = []

    def add(
        self, wanted: V | None, own: Sequence[V], foreign: Sequence[V], *, may_delete: bool
    ) -> None:
        """Compare the objects under one key.

        With a foreign object in the way the agent's goes: it could shadow the other. It goes
        without a view of etcd, too, because no record in etcd decides that (promise 5).

        Args:
            wanted: The desired object, None when there should be none.
            own: The agent's objects there; several where another program appended one.
            foreign: Other programs' objects that are in the way.
            may_delete: Whether extra objects go, or are held.
        """
        if foreign:
            self._give_way(wanted, own, foreign)
            return
        extra = list(own)
        if wanted is not None:
            if wanted in extra:
                extra.remove(wanted)
            else:
                actual = extra.pop(0) if extra else None
                reason = Reason.MISSING if actual is None else Reason.MODIFIED
                replacement = Operation(OperationKind.REPLACE, wanted, reason, actual)
                self._replacements.append(replacement)
        if may_delete:
            self._delete(extra, Reason.EXTRA)
        else:
            self._held += extra

    def _give_way(self, wanted: V | None, own: Sequence[V], foreign: Sequence[V]) -> None:
        if wanted is not None:
            self._conflicts += [Conflict(wanted, each) for each in foreign]
        self._delete(own, Reason.CONFLICT, min(foreign, key=str))

    def _delete(self, objects: Sequence[V], reason: Reason, actual: V | None = None) -> None:
        for each in objects:
            self._deletions.append(Operation(OperationKind.DELETE, each, reason, actual))

    def plan(self) -> Plan[V]:
        """Return all of it, deletions in the kind's order."""
        order = self._kind.order
        return Plan(
            replacements=tuple(self._replacements),
            deletions=tuple(sorted(self._deletions, key=lambda each: order(each.object))),
            conflicts=tuple(self._conflicts),
            held=tuple(self._held),
        )
