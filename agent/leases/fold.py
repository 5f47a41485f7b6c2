"""All records under the prefix, kept current by events, seen as one :class:`View`.

A record that cannot be used costs that record: it is set aside with a reason, and the
others are used (promises 4 and 8). A change costs one decode and a few look-ups whatever the
number of records, and a view shares all else with the one before; what a record says is kept,
not how it said it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from agent.leases import wire
from agent.leases.keys import Keys, parse_subnet
from agent.leases.kv import Event, Record
from agent.leases.sharing import Sharing
from agent.leases.untrusted import MAX_VALUE_BYTES, quote
from agent.leases.usable import UsableLeases
from agent.model import Bounds, Heartbeat, HostId, Lease, MeshConfig, SetAside, View
from agent.model.family import Network
from agent.sharedmap import SharedMap

__all__ = ["Records"]

_V = TypeVar("_V")

_LEASE, _HEARTBEAT, _MEMORY, _RESERVATION = "subnets", "hosts", "memory", "reservations"
_CLONE = "clones"
_OTHERS: MappingProxyType[str, Callable[[str, Record], Any]] = MappingProxyType(
    {_RESERVATION: wire.decode_reservation, _CLONE: wire.decode_clone}
)


@dataclass(slots=True)
class _ByHost(Generic[_V]):
    """One record of each host, as the last view has it and as changed since."""

    settled: SharedMap[HostId, _V] = field(default_factory=SharedMap)
    changes: dict[HostId, _V | None] = field(default_factory=dict)

    def get(self, host_id: HostId | None) -> _V | None:
        if host_id is None:
            return None
        if host_id in self.changes:
            return self.changes[host_id]
        found: _V | None = self.settled.get(host_id)
        return found

    def put(self, host_id: HostId, value: _V | None) -> None:
        if value is not None or self.get(host_id) is not None:
            self.changes[host_id] = value

    def settle(self) -> SharedMap[HostId, _V]:
        self.settled, self.changes = self.settled.changed(self.changes), {}
        return self.settled


@dataclass(slots=True)
class Records:
    """The records of one mesh at one revision. Not thread-safe: one thread owns it.

    Attributes:
        keys: Of the mesh.
        cluster_id: etcd's.
        revision: At which all of it is true.
        last_config: The last usable config, by which leases are judged while the one in
            etcd is absent or broken: that record's fault must not cost the others.
        bounds: What this host allows of a config at the moment; another one counts as broken.
    """

    keys: Keys
    cluster_id: int
    revision: int
    last_config: MeshConfig | None = None
    bounds: Callable[[], Bounds] = Bounds
    _config: tuple[MeshConfig | None, str] = (None, "")
    _raw: dict[bytes, Record] = field(default_factory=dict)  # config, and what is not decoded
    _unreadable: dict[bytes, str] = field(default_factory=dict)
    _leases: UsableLeases = field(default_factory=UsableLeases)
    _kept: dict[str, Lease] = field(default_factory=dict)  # the last that could be read
    _beats: _ByHost[Heartbeat] = field(default_factory=_ByHost)
    _memory: _ByHost[Network] = field(default_factory=_ByHost)
    _memory_revisions: dict[HostId, int] | None = field(default_factory=dict)
    _reservations: dict[bytes, tuple[Network, HostId]] = field(default_factory=dict)
    _clones: dict[bytes, Heartbeat] = field(default_factory=dict)
    _reserved: Mapping[Network, HostId] | None = None
    _sharing: Sharing = field(default_factory=Sharing)

    def load(self, records: Iterable[Record]) -> None:
        """Add records of a snapshot."""
        for record in records:
            self._set(record.key, record)

    def apply(self, events: Iterable[Event]) -> None:
        """Fold events in; the revision follows them, deletions too, and never goes back."""
        for event in events:
            self._set(event.key, event.record)
            self.revision = max(self.revision, event.revision)

    def get(self, key: bytes) -> Record | None:
        """Return the record of a key; its value is kept only where :meth:`view` reads it again.

        Heartbeats are not found here: nobody compares their revisions.
        """
        record = self._raw.get(key)
        if record is not None:
            return record
        kind, name, _ = self._split(key)
        if kind == _LEASE:
            lease = self._leases.find(name)
            return None if lease is None else _record_of(key, lease)
        revision = (self._memory_revisions or {}).get(HostId(name)) if kind == _MEMORY else None
        return None if revision is None else Record(key, b"", mod_revision=revision)

    def only_views(self) -> None:
        """Be asked for views alone from now on: :meth:`get` finds no memories any more.

        Their revisions are for who claims; to follow a mesh of 65,000 they would cost 4 MB.
        """
        self._memory_revisions = None

    def leases(self) -> tuple[Lease, ...]:
        """All leases that can be read, those that :meth:`view` sets aside included."""
        return tuple(self._leases)

    def view(self) -> View:
        """See the records as values; sound for any content."""
        config, problem = self._config
        self.last_config = config or self.last_config
        kept = self._keep_readable()
        leases, not_used = self._leases.settle(self.last_config)
        if self._reserved is None:
            self._reserved = MappingProxyType(dict(self._reservations.values()))
        return View(
            cluster_id=self.cluster_id,
            revision=self.revision,
            config=config,
            config_problem=problem,
            leases=leases,
            heartbeats=self._beats.settle(),
            memory=self._memory.settle(),
            reservations=self._reserved,
            clones=tuple(
                sorted(
                    self._clones.values(), key=lambda each: (each.host_id, str(each.node_address))
                )
            ),
            set_aside=self._set_aside(not_used),
            kept=kept,
        )

    def remember(self, before: View) -> None:
        """Use the leases of an earlier view where a record of this snapshot cannot be read."""
        if before.cluster_id != self.cluster_id:
            return
        for key in self._unreadable:
            kind, name, problem = self._split(key)
            if kind == _LEASE and not problem:
                self._remember(name, key, _lease_named(before, name))

    def _remember(self, name: str, key: bytes, lease: Lease | None) -> None:
        """Keep a host's lease whose key was overwritten and never went away."""
        record = self._raw.get(key)
        if lease is None or lease.host_id is None or record is None:
            return
        if record.create_revision == lease.create_revision:
            self._kept[name] = lease

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
            self._beats.get(host_id) is not None or self.keys.heartbeat(host_id) in self._unreadable
        )

    @property
    def unreadable(self) -> Mapping[bytes, str]:
        """Keys whose record cannot be read, with the reason."""
        return MappingProxyType(self._unreadable)

    def _set_aside(self, not_used: Mapping[str, tuple[Lease, str]]) -> tuple[SetAside, ...]:
        folder = f"{self.keys.prefix}/{_LEASE}/"
        found = [
            SetAside(quote(folder + name), reason, lease)
            for name, (lease, reason) in not_used.items()
        ]
        in_use = {f"{folder}{name}".encode() for name in self._kept}
        last = "; the lease that was there is used while its host has a heartbeat"
        found += [
            SetAside(quote(key), reason + (last if key in in_use else ""))
            for key, reason in self._unreadable.items()
        ]
        return tuple(sorted(found, key=lambda each: each.key))

    def _set(self, key: bytes, record: Record | None) -> None:
        kind, name, problem = self._split(key)
        before: Lease | None = None
        if kind == _LEASE:
            before = self._kept.pop(name, None) or self._leases.find(name)
        self._raw.pop(key, None)
        self._unreadable.pop(key, None)
        value: Any = None
        if record is not None and not problem:
            try:
                value = self._decoded(kind, name, record)
            except ValueError as error:
                problem = quote(str(error))
        if record is not None and problem:
            self._unreadable[key] = problem
        if record is not None and key == self.keys.config and not problem:
            # A value that is much too large is not worth the memory.
            self._raw[key] = replace(record, value=record.value[: MAX_VALUE_BYTES + 1])
        elif record is not None and (problem or value is None or kind in _OTHERS):
            # Other programs may keep any number of keys here: they cost their names.
            self._raw[key] = replace(record, value=b"")
        self._keep(key, kind, name, value)
        if problem:
            self._remember(name, key, before)
        if kind == _MEMORY and self._memory_revisions is not None:
            self._memory_revisions.pop(HostId(name), None)
            if value is not None and record is not None:
                self._memory_revisions[value[0]] = record.mod_revision

    def _split(self, key: bytes) -> tuple[str, str, str]:
        """Take a key apart into kind, name and why that cannot be done."""
        try:
            return (*self.keys.split(key), "")
        except ValueError as error:
            return "", "", quote(str(error))

    def _decoded(self, kind: str, name: str, record: Record) -> Any:  # noqa: ANN401 - by kind
        """What a record says; None for what is not Hostmesh's business, and for the config."""
        if kind == _LEASE:
            lease = wire.decode_lease(name, record)
            return self._sharing.lease(
                lease,
                before=self._leases.find(name),
                beat=self._beats.get(lease.host_id),
                memory=self._memory.get(lease.host_id),
            )
        if kind == _HEARTBEAT:
            beat = wire.decode_heartbeat(name, record)
            return self._sharing.heartbeat(
                beat,
                before=self._beats.get(beat.host_id),
                lease=self._leases.of_host(beat.host_id),
                memory=self._memory.get(beat.host_id),
            )
        if kind == _MEMORY:
            host_id, subnet = wire.decode_memory(name, record)
            beat_of, lease_of = self._beats.get(host_id), self._leases.of_host(host_id)
            return self._sharing.memory((host_id, subnet), beat=beat_of, lease=lease_of)
        other = _OTHERS.get(kind)
        return None if other is None else other(name, record)

    def _keep(self, key: bytes, kind: str, name: str, value: Any) -> None:  # noqa: ANN401 - by kind
        """Put what a record says, or None, in the place of what it said before."""
        if key == self.keys.config:
            self._config = self._read_config()
        elif kind == _LEASE:
            self._leases.put(name, value)
        elif kind == _HEARTBEAT:
            self._beats.put(value.host_id if value else HostId(name), value)
        elif kind == _MEMORY:
            self._memory.put(*(value or (HostId(name), None)))
        elif kind == _CLONE:
            _put(self._clones, key, value)
        elif kind == _RESERVATION:
            self._reserved = None
            _put(self._reservations, key, value)

    def _read_config(self) -> tuple[MeshConfig | None, str]:
        record = self._raw.get(self.keys.config)
        if record is None:
            return None, ""
        try:
            config = wire.decode_config(record.value, record.mod_revision)
            return self.bounds().check(config), ""
        except ValueError as error:
            return None, quote(str(error))


def _lease_named(view: View, name: str) -> Lease | None:
    try:
        found: Lease | None = view.by_subnet.get(parse_subnet(name))
    except ValueError:
        return None
    return found


def _put(held: dict[bytes, _V], key: bytes, value: _V | None) -> None:
    held.pop(key, None)
    if value is not None:
        held[key] = value


def _record_of(key: bytes, lease: Lease) -> Record:
    return Record(key, b"", lease.create_revision, lease.mod_revision, lease.etcd_lease_id)
