"""All records under the prefix, kept current by events, seen as one :class:`View`.

A record that cannot be used costs that record: it is set aside with a reason, and the
others are used (promises 4 and 8). A change costs one decode and a few look-ups whatever the
number of records, and a view shares all else with the one before; what a record says is kept,
not how it said it.
"""

from __future__ import annotations

import contextlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, TypeVar

from agent.errors import EtcdError
from agent.etcd.kv import Event, Record
from agent.model import Bounds, HostId, Lease, MeshConfig, Problem, SetAside, Unusable, View
from agent.model.untrusted import quote
from agent.registry.lease_records import CountedLeases, LeaseRecords
from agent.registry.record_table import RecordTable
from agent.registry.records import CONFIG, HEARTBEATS, LEASES, LOCKS, OWNERS, Keys, RecordKind

__all__ = ["RecordStore", "Unknown"]

_K = TypeVar("_K")
_V = TypeVar("_V")
_MOST_ASIDE: Final = 1_000
"""A view names this many records that cannot be read, and counts the others."""
_MOST_NAMES: Final = 20
_OF_LEASES: Final = (LEASES, OWNERS)


@dataclass(slots=True)
class Unknown:
    """Keys of no kind that this version knows. Only a few names are kept.

    Attributes:
        count: In the snapshot; large folders are passed over, so there may be more.
    """

    count: int = 0
    names: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.count > 0

    def add(self, key: bytes) -> None:
        """Count a key."""
        self.count += 1
        if len(self.names) < _MOST_NAMES:
            self.names.append(quote(key))


@dataclass(slots=True)
class RecordStore:
    """The records of one mesh at one revision. Not thread-safe: one thread owns it.

    Attributes:
        keys: Of the mesh.
        cluster_id: etcd's.
        revision: At which all of it is true.
        last_config: The last usable config, by which leases are judged while the one in
            etcd is absent or broken: that record's fault must not cost the others.
        bounds: What this host allows of a config at the moment; another one counts as broken.
        unknown: Keys that are none of Hostmesh's business. They cost nothing.
    """

    keys: Keys
    cluster_id: int
    revision: int
    last_config: MeshConfig | None = None
    bounds: Callable[[], Bounds] = Bounds
    unknown: Unknown = field(default_factory=Unknown)
    _config: tuple[MeshConfig | None, Problem | None] = (None, None)
    _bare: dict[bytes, Record] = field(default_factory=dict)  # no values, but for the config
    _unreadable: dict[bytes, str] = field(default_factory=dict)
    _bad: Counter[str] = field(default_factory=Counter)  # unreadable ones, by kind
    _leases: LeaseRecords = field(default_factory=LeaseRecords)
    _tables: dict[str, RecordTable[Any, Any]] = field(default_factory=dict)  # by View's attribute
    _aside: tuple[SetAside, ...] | None = None  # the unreadable ones, while none changes

    def load(self, records: Iterable[Record]) -> None:
        """Add records of a snapshot.

        Raises:
            EtcdError: More of a kind than it may have.
        """
        for record in records:
            if self.keys.split(record.key)[0] is None:
                self.unknown.add(record.key)
            else:
                self._set(record.key, record)
        self._refuse_flood()

    def apply(self, events: Iterable[Event]) -> bool:
        """Fold events in; the revision follows them, deletions too, and never goes back.

        Returns:
            Whether a view may differ now.
        """
        shown = False
        for event in events:
            shown = self._set(event.key, event.record) or shown
            self.revision = max(self.revision, event.revision)
        return shown

    def get(self, key: bytes) -> Record | None:
        """Return the record of a key, without the value unless it is the config.

        Heartbeats and turns are not found here: no transaction compares their revisions.
        """
        record = self._bare.get(key)
        if record is not None:
            return record
        lease = self._leases.find(self._name(key))
        return None if lease is None else _record_of(key, lease)

    def leases(self) -> tuple[Lease, ...]:
        """Return all leases under ``subnets/`` that can be read, used or not."""
        return self._leases.leases()

    def owners(self) -> tuple[Lease, ...]:
        """Return all owner records that can be read."""
        return self._leases.owners()

    def holders(self, own: HostId | None = None) -> tuple[Lease, ...]:
        """Return all that keep hosts from their subnets; see :meth:`LeaseRecords.holders`."""
        return self._leases.holders(self.last_config, own)

    def without_rights(self) -> tuple[bytes, ...]:
        """Return the keys under ``subnets/`` that keep no host from a subnet, in order."""
        config = self.last_config
        if config is None or not config.owners:
            return ()
        folder = f"{self.keys.prefix}/".encode()
        found = [folder + _bytes(name) for name in self._leases.without_rights(config)]
        unreadable = [each for each in self._unreadable if self.keys.split(each)[0] is LEASES]
        return tuple(sorted((*found, *unreadable)))

    def view(self) -> View:
        """See the records as values; sound for any content.

        Raises:
            EtcdError: More records of a kind than it may have.
        """
        config, problem = self._config
        self.last_config = config or self.last_config
        tables: dict[str, Any] = {
            kind.view: self._table(kind).settle() for kind in self.keys.kinds if _is_tabled(kind)
        }
        self._refuse_flood()
        tables["clones"] = tuple(each for _, each in sorted(tables["clones"].items()))
        counted = self._leases.settle(self.last_config, tables["owners"], self._is_alive)
        return View(
            cluster_id=self.cluster_id,
            revision=self.revision,
            config=config,
            config_problem=problem,
            leases=counted.used,
            set_aside=self._set_aside(counted),
            kept=counted.kept,
            overwritten=counted.overwritten,
            **tables,
        )

    def _refuse_flood(self) -> None:
        for kind in self.keys.kinds:
            table = self._tables.get(kind.view)
            held = self._leases if kind is LEASES else table or ()
            count = self._bad[kind.name] + len(held)
            if count > kind.most:
                raise EtcdError(
                    f"more than {kind.most} keys under {self.keys.of(kind).decode()}",
                    hint="another application writes there? choose another [etcd] prefix",
                )

    def _table(self, kind: RecordKind[_K, _V]) -> RecordTable[_K, _V]:
        return self._tables.setdefault(kind.view, RecordTable())

    def remember(self, before: View) -> None:
        """Use what an earlier view has where a record of this snapshot cannot be read."""
        if before.cluster_id != self.cluster_id:
            return
        for key in self._unreadable:
            kind, rest = self.keys.split(key)
            self._remember(key, _lease_of(before, kind, rest))
            if kind is not None and kind.lasting:
                with contextlib.suppress(ValueError):
                    name = kind.key(rest)
                    self._table(kind).put(name, getattr(before, kind.view).get(name))

    def _remember(self, key: bytes, lease: Lease | None) -> None:
        if self._leases.remember(self._name(key), self._bare.get(key), lease):
            self._aside = None

    def _is_alive(self, host_id: HostId) -> bool:
        """Whether a host has a heartbeat, even one that cannot be read."""
        return (
            self._table(HEARTBEATS).get(host_id) is not None
            or self.keys.of(HEARTBEATS, host_id) in self._unreadable
        )

    @property
    def unreadable(self) -> Mapping[bytes, str]:
        """Keys whose record cannot be read, with the reason."""
        return MappingProxyType(self._unreadable)

    def _set_aside(self, counted: CountedLeases) -> tuple[SetAside, ...]:
        if self._aside is None:
            self._aside = tuple(self._bad_ones())
        if not (counted.aside or counted.unowned):
            return self._aside
        folder = f"{self.keys.prefix}/"
        found = [
            SetAside(quote(folder + name), reason, lease)
            for name, (lease, reason) in counted.aside.items()
        ]
        # Without the lease: another host than the one that it names may have written it.
        found += [
            SetAside(quote(folder + name), reason) for name, reason in counted.unowned.items()
        ]
        every = (*found, *self._aside)
        return tuple(heapq.nsmallest(_MOST_ASIDE, every, key=lambda each: each.key))

    def _bad_ones(self) -> Iterator[SetAside]:
        """Yield the records that cannot be read, in order of key; many are only counted."""
        owners = self.last_config is not None and self.last_config.owners
        decides = OWNERS if owners else LEASES
        last = "; the lease that was there is used while its host has a heartbeat"
        for key, reason in heapq.nsmallest(_MOST_ASIDE, self._unreadable.items()):
            kept = self.keys.split(key)[0] is decides and self._leases.is_kept(self._name(key))
            yield SetAside(quote(key), reason + (last if kept else ""))
        more = len(self._unreadable) - _MOST_ASIDE
        if more > 0:
            yield SetAside(f"{self.keys.prefix}/*", f"{more} more records cannot be read")

    def _set(self, key: bytes, record: Record | None) -> bool:
        """Put a record, or None, in the place of what was there.

        Returns:
            Whether a view shows that.
        """
        kind, rest = self.keys.split(key)
        if kind is None:
            return False
        before = self._leases.forget(self._name(key)) if kind in _OF_LEASES else None
        self._bare.pop(key, None)
        if self._unreadable.pop(key, None) is not None:
            self._bad[kind.name] -= 1
            self._aside = None
        if kind is CONFIG:
            self._config = self._read_config(record)
        elif kind.view:
            problem = self._fold(kind, rest, record)
            if problem:
                self._unreadable[key] = problem
                self._bad[kind.name] += 1
                self._aside = None
        if record is not None:
            self._keep_bare(kind, record)
        if key in self._unreadable:
            self._remember(key, before)
        return bool(kind.view)

    def _keep_bare(self, kind: RecordKind[Any, Any], record: Record) -> None:
        """Keep what transactions compare, where it is not in what the record says already."""
        if kind is CONFIG:  # a value that is much too large is not worth the memory
            value = record.value[: CONFIG.largest_bytes + 1]
            self._bare[record.key] = replace(record, value=value)
        elif record.key in self._unreadable or kind not in (*_OF_LEASES, HEARTBEATS, LOCKS):
            self._bare[record.key] = replace(record, value=b"")

    def _fold(self, kind: RecordKind[Any, Any], rest: bytes, record: Record | None) -> str:
        """Put what a record says in its place; say why it cannot be read, "" when it can."""
        key = value = None
        problem = ""
        try:
            key = kind.key(rest)
            value = None if record is None else kind.read(key, record)
        except ValueError as error:
            problem = quote(str(error)) if record is not None else ""
        if kind in _OF_LEASES:
            self._leases.put(f"{kind.name}/{_text(rest)}", value)
        if kind is not LEASES and key is not None and not (problem and kind.lasting):
            self._table(kind).put(key, value)
        return problem

    def _name(self, key: bytes) -> str:
        """Return the key behind the prefix, whatever bytes it has."""
        return _text(key[len(self.keys.prefix) + 1 :])

    def _read_config(self, record: Record | None) -> tuple[MeshConfig | None, Problem | None]:
        if record is None:
            return None, None
        try:
            return self.bounds().check(CONFIG.read(None, record)), None
        except Unusable as error:
            return None, error.problem
        except ValueError as error:
            return None, Problem(quote(str(error)))


def _is_tabled(kind: RecordKind[Any, Any]) -> bool:
    return bool(kind.view) and kind is not CONFIG and kind is not LEASES


def _text(rest: bytes) -> str:
    return rest.decode("latin-1")


def _bytes(name: str) -> bytes:
    return name.encode("latin-1")


def _lease_of(view: View, kind: RecordKind[Any, Any] | None, rest: bytes) -> Lease | None:
    """Find the lease that a view has for a key."""
    if kind not in _OF_LEASES:
        return None
    try:
        key = kind.key(rest)
    except ValueError:
        return None
    host_id, subnet = key if kind is OWNERS else (None, key)
    found: Lease | None = view.by_subnet.get(subnet)
    return found if found and host_id in {None, found.host_id} else None


def _record_of(key: bytes, lease: Lease) -> Record:
    return Record(key, b"", lease.create_revision, lease.mod_revision, lease.etcd_lease_id)
