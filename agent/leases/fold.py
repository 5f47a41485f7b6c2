"""All records under the prefix, kept current by events, seen as one :class:`View`.

A record that cannot be used costs that record: it is set aside with a reason, and the
others are used (promises 4 and 8). Decoding is remembered per revision of a record, so
that a change costs one decode whatever the number of leases.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from types import MappingProxyType
from typing import Any

from agent.leases import wire
from agent.leases.keys import Keys
from agent.leases.kv import Event, Record
from agent.leases.untrusted import MAX_VALUE_BYTES, quote
from agent.mesh.ranges import OverlapIndex
from agent.model import Heartbeat, HostId, Lease, MeshConfig, SetAside, View

__all__ = ["Records"]

_DECODERS: MappingProxyType[str, Callable[[str, Record], Any]] = MappingProxyType(
    {
        "subnets": wire.decode_lease,
        "hosts": wire.decode_heartbeat,
        "clones": wire.decode_clone,
        "memory": wire.decode_memory,
        "reservations": wire.decode_reservation,
    }
)


@dataclass(slots=True)
class Records:
    """The records of one mesh at one revision. Not thread-safe: one thread owns it.

    Attributes:
        keys: Of the mesh.
        cluster_id: etcd's.
        revision: At which all of it is true.
        last_config: The last usable config, by which leases are judged while the one in
            etcd is absent or broken: that record's fault must not cost the others.
    """

    keys: Keys
    cluster_id: int
    revision: int
    last_config: MeshConfig | None = None
    _records: dict[bytes, Record] = field(default_factory=dict)
    _decoded: dict[bytes, tuple[str, Any]] = field(default_factory=dict)

    def load(self, records: Iterable[Record]) -> None:
        """Add records of a snapshot."""
        for record in records:
            self._set(record.key, record)

    def apply(self, events: Iterable[Event], revision: int = 0) -> None:
        """Fold events in; the revision never goes back."""
        for event in events:
            self._set(event.key, event.record)
            if event.record is not None:
                self.revision = max(self.revision, event.record.mod_revision)
        self.revision = max(self.revision, revision)

    def get(self, key: bytes) -> Record | None:
        """Return the record of a key; its value is kept only where :meth:`view` reads it again."""
        return self._records.get(key)

    def leases(self) -> tuple[Lease, ...]:
        """All leases that can be read, those that :meth:`view` sets aside included."""
        return tuple(value for _, value in self._decoded.values() if isinstance(value, Lease))

    def view(self) -> View:
        """See the records as values; sound for any content."""
        config, problem = self._config()
        self.last_config = config or self.last_config
        leases, set_aside = self._leases(self.last_config)
        heartbeats: dict[HostId, Heartbeat] = {}
        memory: dict[HostId, IPv4Network] = {}
        reservations: dict[IPv4Network, HostId] = {}
        clones: list[Heartbeat] = []
        for key, (kind, value) in self._decoded.items():
            if isinstance(value, ValueError):
                set_aside.append(SetAside(quote(key), quote(str(value))))
            elif kind == "hosts":
                heartbeats[value.host_id] = value
            elif kind == "memory":
                memory[value[0]] = value[1]
            elif kind == "reservations":
                reservations[value[0]] = value[1]
            elif kind == "clones":
                clones.append(value)
        return View(
            cluster_id=self.cluster_id,
            revision=self.revision,
            config=config,
            config_problem=problem,
            leases=leases,
            heartbeats=MappingProxyType(heartbeats),
            memory=MappingProxyType(memory),
            reservations=MappingProxyType(reservations),
            clones=tuple(sorted(clones, key=lambda each: (each.host_id, str(each.node_address)))),
            set_aside=tuple(sorted(set_aside, key=lambda each: each.key)),
        )

    def _set(self, key: bytes, record: Record | None) -> None:
        if record is None:
            self._records.pop(key, None)
            self._decoded.pop(key, None)
            return
        if len(record.value) > MAX_VALUE_BYTES:  # not worth the memory
            record = replace(record, value=record.value[: MAX_VALUE_BYTES + 1])
        decoded = self._decode(key, record)
        if decoded is None:
            self._records[key] = record
            self._decoded.pop(key, None)
        else:
            # In a large mesh the raw values would take as much memory as what they say.
            self._records[key] = replace(record, value=b"")
            self._decoded[key] = decoded

    def _decode(self, key: bytes, record: Record) -> tuple[str, Any] | None:
        """Decode a record; None for what is not Hostmesh's business (and the config)."""
        kind = ""
        try:
            kind, name = self.keys.split(key)
            decoder = _DECODERS.get(kind)
            # One string for all records of a kind.
            return None if decoder is None else (sys.intern(kind), decoder(name, record))
        except ValueError as error:
            return kind, error

    def _config(self) -> tuple[MeshConfig | None, str]:
        record = self._records.get(self.keys.config)
        if record is None:
            return None, ""
        try:
            return wire.decode_config(record.value, record.mod_revision), ""
        except ValueError as error:
            return None, quote(str(error))

    def _leases(self, config: MeshConfig | None) -> tuple[tuple[Lease, ...], list[SetAside]]:
        """Return the usable leases; of two that overlap, the one that was there first."""
        used = OverlapIndex()
        leases: list[Lease] = []
        set_aside: list[SetAside] = []
        decoded = [
            (key, value)
            for key, (kind, value) in self._decoded.items()
            if kind == "subnets" and isinstance(value, Lease)
        ]
        decoded.sort(key=lambda each: (each[1].create_revision, each[0]))
        for key, lease in decoded:
            reason = self._why_not(lease, config, used)
            if reason:
                set_aside.append(SetAside(quote(key), reason))
            else:
                used.add(lease.subnet)
                leases.append(lease)
        return tuple(sorted(leases, key=lambda lease: lease.subnet)), set_aside

    @staticmethod
    def _why_not(lease: Lease, config: MeshConfig | None, used: OverlapIndex) -> str:
        if config is None:
            return "there is no usable config to check it against"
        problem = wire.check_lease(lease, config)
        if problem:
            return problem
        overlapped = used.find(lease.subnet)
        return f"it overlaps the older lease {overlapped}" if overlapped else ""
