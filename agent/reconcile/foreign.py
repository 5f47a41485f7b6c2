"""Objects of other programs that are in the way of the agent's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable
from typing import Generic

from agent.reconcile.interfaces import V
from agent.reconcile.object_kind import Kind

__all__ = ["ForeignObjects"]


class ForeignObjects(Generic[V]):
    """The last list of foreign objects, followed by notifications.

    Args:
        is_desired: Whether the agent desires an object under a key now.
    """

    def __init__(self, kind: Kind[V], is_desired: Callable[[Hashable], bool]) -> None:
        self._kind = kind
        self._is_desired = is_desired
        self._by_key: dict[Hashable, tuple[V, ...]] = {}
        self._contested: dict[Hashable, None] = {}
        self.links: Counter[str] = Counter()
        """How many of the objects depend on each link (``Kind.links``)."""

    @property
    def contested(self) -> Collection[Hashable]:
        """Keys that are desired and that another program has.

        A key keeps its place while it stays contested: of very many only the first are named,
        and those should not change each time.
        """
        return self._contested.keys()

    def of(self, value: V) -> tuple[V, ...]:
        """Return every foreign object in the way of this one of the agent's."""
        return self._by_key.get(self._kind.contests(value), ())

    def under(self, value: V) -> int:
        """Return how many foreign objects the kernel keeps under this object's very key."""
        return sum(each.key == value.key for each in self.of(value))

    def listed(self, foreign: tuple[V, ...]) -> None:
        """Replace everything by a complete list."""
        by_key: dict[Hashable, list[V]] = {}
        for each in foreign:
            by_key.setdefault(self._kind.contests(each), []).append(each)
        self._by_key = {key: tuple(found) for key, found in by_key.items()}
        self.links = Counter(name for each in foreign for name in self._kind.links(each))
        now = [key for key in self._by_key if self._is_desired(key)]
        kept = self._contested.keys() & set(now)
        self._contested = dict.fromkeys((*(k for k in self._contested if k in kept), *now))

    def appeared(self, value: V) -> None:
        """Follow that one was written."""
        self._put(value, (*(each for each in self.of(value) if each != value), value))

    def went(self, value: V) -> None:
        """Follow that one was deleted."""
        self._put(value, tuple(each for each in self.of(value) if each != value))

    def replaced(self, value: V) -> None:
        """Follow that what the kernel kept under this object's key was replaced."""
        self._put(value, tuple(each for each in self.of(value) if each.key != value.key))

    def _put(self, value: V, values: tuple[V, ...]) -> None:
        for each in self.of(value):
            self.links.subtract(self._kind.links(each))
        for each in values:
            self.links.update(self._kind.links(each))
        key = self._kind.contests(value)
        if values:
            self._by_key[key] = values
        else:
            self._by_key.pop(key, None)
        self.settle(key)

    def settle(self, key: Hashable) -> None:
        """Follow that the agent desires an object under this key, or does so no longer."""
        if key in self._by_key and self._is_desired(key):
            self._contested[key] = None
        else:
            self._contested.pop(key, None)
