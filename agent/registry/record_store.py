"""All records under the prefix, kept current by events, seen as one :class:`View`.

A record that cannot be used costs that record: it is set aside with a reason, and the
others are used (promises 4 and 8). A change costs one decode and a few look-ups whatever the
number of records, and a view shares all else with the one before; what a record says is kept,
not how it said it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from agent.errors import EtcdError
from agent.etcd.kv import Event, Record
from agent.model import Bounds, Lease, MeshConfig, Problem, SetAside, Unusable, View
from agent.model.family import Network
from agent.model.untrusted import quote
from agent.registry.accepted_leases import AcceptedLeases
from agent.registry.records import CONFIG, HEARTBEATS, LEASES, LOCKS, Keys, RecordKind
from agent.registry.records.subnets import parse_subnet
from agent.sharedmap import SharedMap

__all__ = ["RecordStore", "Unknown"]

_K = TypeVar("_K")
_V = TypeVar("_V")
_MOST_ASIDE: Final = 1_000
"""A view names this many records that cannot be read, and counts the others."""
_MOST_NAMES: Final = 20


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
class _Table(Generic[_K, _V]):
    """The records of one kind, as the last view has them and as changed since."""

    settled: SharedMap[_K, _V] = field(default_factory=SharedMap)
    changes: dict[_K, _V | None] = field(default_factory=dict)

    def get(self, key: _K) -> _V | None:
        if key in self.changes:
            return self.changes[key]
        found: _V | None = self.settled.get(key)
        return found

    def put(self, key: _K, value: _V | None) -> None:
        if value is not None or self.get(key) is not None:
            self.changes[key] = value

    def __len__(self) -> int:
        """At most so many: what is in ``changes`` may be in ``settled``, too."""
        return len(self.settled) + len(self.changes)

    def settle(self) -> SharedMap[_K, _V]:
        self.settled, self.changes = self.settled.changed(self.changes), {}
        return self.settled


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
    _leases: AcceptedLeases = field(default_factory=AcceptedLeases)
    _kept: dict[str, Lease] = field(default_factory=dict)  # the last that could be read
    _tables: dict[str, _Table[Any, Any]] = field(default_factory=dict)  # by View's attribute
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
        kind, rest = self.keys.split(key)
        lease = self._leases.find(_text(rest)) if kind is LEASES else None
        return None if lease is None else _record_of(key, lease)

    def leases(self) -> tuple[Lease, ...]:
        """All leases that can be read, those that :meth:`view` sets aside included."""
        return tuple(self._leases)

    def view(self) -> View:
        """See the records as values; sound for any content.

        Raises:
            EtcdError: More records of a kind than it may have.
        """
        config, problem = self._config
        self.last_config = config or self.last_config
        kept = self._keep_readable()
        leases, not_used = self._leases.settle(self.last_config)
        tables: dict[str, Any] = {
            kind.view: self._table(kind).settle() for kind in self.keys.kinds if _is_tabled(kind)
        }
        self._refuse_flood()
        tables["clones"] = tuple(each for _, each in sorted(tables["clones"].items()))
        return View(
            cluster_id=self.cluster_id,
            revision=self.revision,
            config=config,
            config_problem=problem,
            leases=leases,
            set_aside=self._set_aside(not_used),
            kept=kept,
            **tables,
        )

    def _refuse_flood(self) -> None:
        for kind in self.keys.kinds:
            table = self._tables.get(kind.view)
            count = self._bad[kind.name] + (
                len(self._leases) if kind is LEASES else len(table) if table else 0
            )
            if count > kind.most:
                raise EtcdError(
                    f"more than {kind.most} keys under {self.keys.of(kind).decode()}",
                    hint="another application writes there? choose another [etcd] prefix",
                )

    def _table(self, kind: RecordKind[_K, _V]) -> _Table[_K, _V]:
        return self._tables.setdefault(kind.view, _Table())

    def remember(self, before: View) -> None:
        """Use the leases of an earlier view where a record of this snapshot cannot be read."""
        if before.cluster_id != self.cluster_id:
            return
        for key in self._unreadable:
            kind, rest = self.keys.split(key)
            if kind is LEASES:
                self._remember(_text(rest), key, _lease_named(before, _text(rest)))

    def _remember(self, name: str, key: bytes, lease: Lease | None) -> None:
        """Keep a host's lease whose key was overwritten and never went away."""
        record = self._bare.get(key)
        if lease is None or lease.host_id is None or record is None:
            return
        if record.create_revision == lease.create_revision:
            self._kept[name] = lease
            self._aside = None

    def _keep_readable(self) -> frozenset[Network]:
        """Use the last readable lease of each host with a heartbeat; the host repairs its record.

        Returns:
            The subnets of these leases.
        """
        if not self._kept:
            return frozenset()
        used = set()
        for name, lease in self._kept.items():
            alive = lease if self._is_alive(lease) else None
            if self._leases.find(name) != alive:
                self._leases.put(name, alive)
            if alive is not None:
                used.add(alive.subnet)
        return frozenset(used)

    def _is_alive(self, lease: Lease) -> bool:
        """Whether the owner has a heartbeat, be it one that cannot be read."""
        host_id = lease.host_id
        return host_id is not None and (
            self._table(HEARTBEATS).get(host_id) is not None
            or self.keys.of(HEARTBEATS, host_id) in self._unreadable
        )

    @property
    def unreadable(self) -> Mapping[bytes, str]:
        """Keys whose record cannot be read, with the reason."""
        return MappingProxyType(self._unreadable)

    def _set_aside(self, not_used: Mapping[str, tuple[Lease, str]]) -> tuple[SetAside, ...]:
        if self._aside is None:
            self._aside = tuple(self._bad_ones())
        if not not_used:
            return self._aside
        folder = self.keys.range(LEASES).start.decode()
        found = (
            SetAside(quote(folder + name), reason, lease)
            for name, (lease, reason) in not_used.items()
        )
        return tuple(sorted((*found, *self._aside), key=lambda each: each.key))

    def _bad_ones(self) -> Iterator[SetAside]:
        """Yield the records that cannot be read, in order of key; many are only counted."""
        in_use = {self.keys.range(LEASES).start + name.encode("latin-1") for name in self._kept}
        last = "; the lease that was there is used while its host has a heartbeat"
        for key, reason in heapq.nsmallest(_MOST_ASIDE, self._unreadable.items()):
            yield SetAside(quote(key), reason + (last if key in in_use else ""))
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
        before: Lease | None = None
        if kind is LEASES:
            before = self._kept.pop(_text(rest), None) or self._leases.find(_text(rest))
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
        if kind is LEASES and key in self._unreadable:
            self._remember(_text(rest), key, before)
        return bool(kind.view)

    def _keep_bare(self, kind: RecordKind[Any, Any], record: Record) -> None:
        """Keep what transactions compare, where it is not in what the record says already."""
        if kind is CONFIG:  # a value that is much too large is not worth the memory
            value = record.value[: CONFIG.largest_bytes + 1]
            self._bare[record.key] = replace(record, value=value)
        elif record.key in self._unreadable or kind not in (LEASES, HEARTBEATS, LOCKS):
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
        if kind is LEASES:
            self._leases.put(_text(rest), value)
        elif key is not None:
            self._table(kind).put(key, value)
        return problem

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
    """The rest of a lease's key, whatever bytes it has."""
    return rest.decode("latin-1")


def _lease_named(view: View, name: str) -> Lease | None:
    try:
        found: Lease | None = view.by_subnet.get(parse_subnet(name))
    except ValueError:
        return None
    return found


def _record_of(key: bytes, lease: Lease) -> Record:
    return Record(key, b"", lease.create_revision, lease.mod_revision, lease.etcd_lease_id)
