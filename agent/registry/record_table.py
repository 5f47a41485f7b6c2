"""Records of one kind: as the last view shares them, and what has changed since."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from agent.sharedmap import SharedMap

__all__ = ["RecordTable"]

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(slots=True)
class RecordTable(Generic[_K, _V]):
    """The records of one kind. A change costs no copy of the others.

    Attributes:
        settled: As the last view has them.
        changes: Since then; None where a record is gone.
    """

    settled: SharedMap[_K, _V] = field(default_factory=SharedMap)
    changes: dict[_K, _V | None] = field(default_factory=dict)

    def get(self, key: _K) -> _V | None:
        """Return a record as it is now."""
        if key in self.changes:
            return self.changes[key]
        found: _V | None = self.settled.get(key)
        return found

    def put(self, key: _K, value: _V | None) -> None:
        """Put a record in its place; None removes it."""
        if value is not None or self.get(key) is not None:
            self.changes[key] = value

    def __len__(self) -> int:
        """Return an upper bound: a record in ``changes`` may be in ``settled``, too."""
        return len(self.settled) + len(self.changes)

    def settle(self) -> SharedMap[_K, _V]:
        """Fold the changes in and return all records."""
        self.settled, self.changes = self.settled.changed(self.changes), {}
        return self.settled
