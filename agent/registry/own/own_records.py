"""The records of one kind under this host's id: what it should have there, and what it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final, Generic, TypeVar

from agent.errors import EtcdError
from agent.etcd import kv
from agent.etcd.kv import Record
from agent.model import Condition, HostId, Lease, Severity
from agent.registry.records import SLICES, KeyRange, RecordKind
from agent.registry.registry import Registry
from agent.registry.snapshot import pages
from agent.sharedmap import SharedMap, changed_keys

__all__ = ["Holding", "NotHeldError", "OwnRecords"]

_V = TypeVar("_V")
_Key = tuple[HostId, str]

_mod_revision: Callable[[object], int] = attrgetter("mod_revision")
_OPERATIONS: Final = 100
"""Of one transaction; etcd takes 128."""


class NotHeldError(EtcdError):
    """etcd does not have the lease as this host's: nothing is published under it."""


@dataclass(frozen=True, slots=True)
class Holding:
    """The lease under which a host publishes.

    Attributes:
        key: That decides whose the lease is.
        create_revision: Of the key: another one is another ownership.
        etcd_lease_id: Records end with it.
    """

    key: bytes
    create_revision: int
    etcd_lease_id: int

    @classmethod
    def of(cls, key: bytes, lease: Lease) -> Holding:
        """Return what identifies the ownership of a lease."""
        return cls(key, lease.create_revision, lease.etcd_lease_id)


@dataclass(frozen=True, slots=True)
class _There:
    """A record as etcd has it."""

    value: bytes
    mod_revision: int
    lease_id: int


@dataclass(slots=True)
class OwnRecords(Generic[_V]):
    """Writes the records of one kind. For the publisher's thread only.

    Args:
        registry: To write to.
        host_id: This host.
        kind: Of the records. Their values have ``mod_revision``.
        key_of: Return the key of a value.
        most: So many are published.
        renewed: Return a wished value as it is to be written, given the value that is there: for
            what a record keeps, such as a date. The second argument is None where none can be read.
    """

    registry: Registry
    host_id: HostId
    kind: RecordKind[_Key, _V]
    key_of: Callable[[_V], _Key]
    most: int
    renewed: Callable[[_V, _V | None], _V] = lambda wished, _: wished
    _there: dict[bytes, _There] | None = None
    _wished: Sequence[_V] = ()
    _by_key: dict[bytes, _V] = field(default_factory=dict)
    _desired: dict[bytes, bytes] = field(default_factory=dict)
    _left_out: tuple[str, ...] = ()
    _seen: Mapping[_Key, _V] = field(default_factory=SharedMap)
    _written_at: int = 0
    _compared: bool = False  # a view with what was written last

    @property
    def _range(self) -> KeyRange:
        return self.registry.keys.of_host(self.kind, self.host_id)

    def doubt(self) -> None:
        """Read the records again before the next write."""
        self._there = None

    def notice(self, revision: int, seen: Mapping[_Key, _V]) -> bool:
        """Compare a view with what was written; return whether another program changed that.

        Args:
            revision: Of the view; an older one than the last write says nothing.
            seen: Records of all hosts.
        """
        if self._there is None or revision < self._written_at:
            return False
        changed = changed_keys(self._seen, seen)
        if not self._compared:
            changed |= set(map(self.key_of, self._by_key.values()))
        self._seen, self._compared = seen, True
        for each in changed:
            if each[0] != self.host_id:
                continue
            record, there = seen.get(each), self._there.get(self.registry.keys.of(self.kind, each))
            if (record and _mod_revision(record)) != (there and there.mod_revision):
                self.doubt()
                return True
        return False

    def step(self, wished: Sequence[_V], holding: Holding) -> bool:
        """Write as much as one transaction takes.

        Returns:
            Whether there was anything to write.

        Raises:
            NotHeldError: The lease is not this host's by what etcd has.
            EtcdError: It could not be written.
        """
        there = self._there
        if there is None:
            there = self._there = self._read()
            self._by_key = {}
            self._wished = ()
        self._follow(wished, there)
        puts = {
            key: value
            for key, value in self._desired.items()
            if (old := there.get(key)) is None
            or (old.value, old.lease_id) != (value, holding.etcd_lease_id)
        }
        deletes = [key for key in there if key not in self._desired]
        if not puts and not deletes:
            return False
        deletes = deletes[:_OPERATIONS]
        written = dict(list(puts.items())[: _OPERATIONS - len(deletes)])
        self._write(there, deletes, written, holding)
        return True

    def _read(self) -> dict[bytes, _There]:
        found: dict[bytes, _There] = {}
        for page in pages(self.registry.client, [self._range], lambda key: key + b"\0"):
            self._written_at, self._compared = page.revision, False
            for each in page.records:
                found[each.key] = _There(each.value, each.mod_revision, each.lease_id)
        return found

    def _follow(self, wished: Sequence[_V], there: Mapping[bytes, _There]) -> None:
        """Encode what is wished and was not before."""
        if wished is self._wished:
            return
        desired: dict[bytes, bytes] = {}
        by_key: dict[bytes, _V] = {}
        too_large = []
        for value in wished:
            if len(desired) == self.most:
                break
            name = self.key_of(value)
            key = self.registry.keys.of(self.kind, name)
            encoded = self._desired.get(key) if self._by_key.get(key) == value else None
            if encoded is None:
                encoded = self.kind.encode(self.renewed(value, self._decoded(name, there.get(key))))
            if len(encoded) > self.kind.largest_bytes:
                too_large.append(key.decode())
            else:
                desired[key], by_key[key] = encoded, value
        self._wished, self._desired, self._by_key = wished, desired, by_key
        self._left_out = tuple(self._reasons(len(wished), too_large))

    def _reasons(self, wished: int, too_large: list[str]) -> Iterator[str]:
        if wished > self.most:
            yield f"this host has {wished}, and {self.most} are published"
        if too_large:
            yield f"{too_large[0]} has more than {self.kind.largest_bytes} bytes" + (
                f", and so have {len(too_large) - 1} others" if too_large[1:] else ""
            )

    def _decoded(self, key: _Key, there: _There | None) -> _V | None:
        if there is None:
            return None
        try:
            return self.kind.read(key, Record(b"", there.value))
        except ValueError:
            return None

    def _write(
        self,
        there: dict[bytes, _There],
        deletes: list[bytes],
        puts: Mapping[bytes, bytes],
        holding: Holding,
    ) -> None:
        """Write if the lease is this host's and every key is as this host knows it.

        The second comparison is for a try whose answer was lost: it must not arrive after a newer.
        """
        touched = (*deletes, *puts)
        known = {key: each.mod_revision for key in touched if (each := there.get(key))}
        held = kv.created_at(holding.key, holding.create_revision)
        result = self.registry.client.txn(
            f"publish {self.kind.name}",
            [held, *(kv.unchanged(key, known.get(key, 0)) for key in touched)],
            [
                *map(kv.delete, deletes),
                *(kv.put(key, value, holding.etcd_lease_id) for key, value in puts.items()),
            ],
            [kv.get(holding.key, keys_only=True)],
        )
        if result.succeeded:
            for key in deletes:
                del there[key]
            for key, value in puts.items():
                there[key] = _There(value, result.revision, holding.etcd_lease_id)
            self._written_at, self._compared = result.revision, False
            return
        self._there = None
        found = result.ranges[0]
        if not found or found[0].create_revision != holding.create_revision:
            raise NotHeldError(f"etcd does not have {holding.key.decode()} as this host's")

    @property
    def left_out(self) -> Condition | None:
        """The condition of records that cannot be published."""
        if not self._left_out:
            return None
        return self.condition(
            "; ".join(self._left_out), "other hosts find the rest; see agentctl containers"
        )

    def condition(self, cause: str, hint: str) -> Condition:
        """Return the condition that not all records of this kind are in etcd."""
        return Condition(
            name="slices-not-published" if self.kind is SLICES else "endpoints-not-published",
            severity=Severity.WARNING,
            cause=f"not all {self.kind.name} of this host are published: {cause}",
            hint=hint,
        )
