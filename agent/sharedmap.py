"""A mapping that never changes and shares with its predecessors what did not change.

A view of 65,000 hosts in which one lease differs costs one bucket, not 65,000 entries; and what
differs between two of them is found by comparing buckets by identity, whatever was skipped in
between. Pure.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar, cast

__all__ = ["SharedMap", "changed_keys"]

_K = TypeVar("_K")
_V = TypeVar("_V")

_BITS: Final = 10
_BUCKETS: Final = 1 << _BITS
"""A change copies this many references and one bucket: of 64 entries among 65,000."""
_SPREAD: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1
_EMPTY: Final[dict[Any, Any]] = {}
_NO_BUCKETS: Final = (_EMPTY,) * _BUCKETS
_REMEMBERED: Final = 64
"""A map made by more changes than this does not remember which."""


def _place(key: object) -> int:
    """Return a bucket's number. Networks' hashes differ in a few bits only: spread them."""
    return (hash(key) * _SPREAD & _MASK) >> (64 - _BITS)


_Buckets = tuple[dict[_K, _V], ...]


class SharedMap(Mapping[_K, _V]):
    """An immutable mapping in :data:`_BUCKETS` dictionaries. Safe to read from any thread."""

    __slots__ = ("_buckets", "_count", "_made_of")

    def __init__(self, entries: Mapping[_K, _V] | Iterable[tuple[_K, _V]] = ()) -> None:
        self._buckets: _Buckets[_K, _V] = _NO_BUCKETS
        self._count = 0
        self._made_of: tuple[_Buckets[_K, _V] | None, frozenset[_K]] = (None, frozenset())
        """The buckets before the changes that made this map, and the changed keys."""
        if isinstance(entries, Mapping):
            entries = entries.items()
        if entries != ():  # an empty map is made often, and costs nothing
            self._fill(entries)

    def _fill(self, pairs: Iterable[tuple[_K, _V]]) -> None:
        made: list[dict[_K, _V]] = [_EMPTY] * _BUCKETS
        for key, value in pairs:
            number = _place(key)
            if made[number] is _EMPTY:
                made[number] = {}
            made[number][key] = value
        self._count = sum(map(len, made))
        if self._count:
            self._buckets = tuple(made)

    def __getitem__(self, key: _K) -> _V:
        return self._buckets[_place(key)][key]

    def get(self, key: _K, default: Any = None) -> Any:  # noqa: ANN401 # Mapping's overloads
        """Return the value of ``key``, or ``default``."""
        if not self._count:  # asked thousands of times while a snapshot is read
            return default
        return self._buckets[_place(key)].get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._buckets[_place(key)]

    def __iter__(self) -> Iterator[_K]:
        return itertools.chain.from_iterable(self._buckets) if self._count else iter(())

    def __len__(self) -> int:
        return self._count

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SharedMap):
            if self._buckets is other._buckets:
                return True
            if self._count != other._count:
                return False
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as every mapping's

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"

    def changed(self, changes: Mapping[_K, _V | None]) -> SharedMap[_K, _V]:
        """Make a map with these values instead; None takes a key away."""
        touched: dict[int, dict[_K, _V]] = {}
        keys: list[_K] = []
        for key, value in changes.items():
            number = _place(key)
            bucket = touched.get(number, self._buckets[number])
            if bucket.get(key) is value:
                continue
            if number not in touched:
                bucket = touched[number] = dict(bucket)
            keys.append(key)
            if value is None:
                del bucket[key]
            else:
                bucket[key] = value
        if not touched:
            return self
        buckets = list(self._buckets)
        made: SharedMap[_K, _V] = SharedMap()
        made._count = self._count
        for number, bucket in touched.items():
            made._count += len(bucket) - len(buckets[number])
            buckets[number] = bucket
        if made._count:
            made._buckets = tuple(buckets)
        if len(keys) <= _REMEMBERED:
            made._made_of = (self._buckets, frozenset(keys))
        return made

    def keys_that_differ(self, other: SharedMap[_K, _V]) -> set[_K]:
        """Find keys that only one of the two has, or whose values are other objects."""
        if self._buckets is other._buckets:
            return set()
        if other._made_of[0] is self._buckets:
            return set(other._made_of[1])
        if self._made_of[0] is other._buckets:
            return set(self._made_of[1])
        found: set[_K] = set()
        pairs = zip(self._buckets, other._buckets, strict=True)
        differing = map(operator.is_not, self._buckets, other._buckets)
        for ours, theirs in itertools.compress(pairs, differing):
            found.update(_differ_in_order(list(ours.items()), list(theirs.items())))
        return found


_Items = list[tuple[_K, _V]]


def _differ_in_order(one: _Items[_K, _V], other: _Items[_K, _V]) -> Iterator[_K]:
    """Do as :func:`_differ` where most of both is the same and in the same order.

    Equal ends are recognised by identity: to look a network up takes a hundred times longer.
    """
    start = _alike(zip(one, other, strict=False))
    end = _alike(zip(reversed(one[start:]), reversed(other[start:]), strict=False))
    yield from _differ(
        dict(one[start : len(one) - end]),
        dict(other[start : len(other) - end]),
    )


def _alike(pairs: Iterable[tuple[tuple[_K, _V], tuple[_K, _V]]]) -> int:
    count = 0
    for (key, value), (other_key, other_value) in pairs:
        if key is not other_key or value is not other_value:
            break
        count += 1
    return count


def _differ(one: Mapping[_K, _V], other: Mapping[_K, _V]) -> Iterator[_K]:
    for key, value in one.items():
        if other.get(key) is not value:
            yield key
    for key in other:
        if key not in one:
            yield key


def changed_keys(before: Mapping[_K, _V], after: Mapping[_K, _V]) -> set[_K]:
    """Find keys under which two mappings differ, by identity of their values.

    Equal values that are not the same object count as different: for a caller that would only
    compute once more what it knows. It costs one look at each bucket when ``after`` was made out
    of ``before``, and one at each entry otherwise.
    """
    if before is after:
        return set()
    if isinstance(before, SharedMap) and isinstance(after, SharedMap):
        return cast("SharedMap[_K, _V]", before).keys_that_differ(after)
    return set(_differ(before, after))
