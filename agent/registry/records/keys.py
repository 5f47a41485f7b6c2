"""The keys of one mesh: a prefix, and the kinds of records under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeVar

from agent.etcd.kv import Record
from agent.model import Lease
from agent.model.family import Network
from agent.registry.records.checks import CHECKS
from agent.registry.records.config import CONFIG
from agent.registry.records.coordination import GRACE, LOCKS
from agent.registry.records.endpoints import ENDPOINTS
from agent.registry.records.heartbeat import CLONES, HEARTBEATS
from agent.registry.records.lease import LEASES
from agent.registry.records.memory import MEMORY
from agent.registry.records.networks import NETWORKS
from agent.registry.records.owner import OWNERS
from agent.registry.records.record_kind import RecordKind
from agent.registry.records.reservation import RESERVATIONS
from agent.registry.records.slices import SLICES
from agent.registry.records.subnets import KeyRange, overlapping_ranges

__all__ = ["KINDS", "Keys"]

_K = TypeVar("_K")
_V = TypeVar("_V")

KINDS: Final[tuple[RecordKind[Any, Any], ...]] = (
    CONFIG,
    LEASES,
    OWNERS,
    HEARTBEATS,
    CLONES,
    MEMORY,
    LOCKS,
    GRACE,
    RESERVATIONS,
    NETWORKS,
    SLICES,
    ENDPOINTS,
    CHECKS,
)
"""Every kind of record that Hostmesh knows. All other keys are left alone."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one mesh.

    Attributes:
        prefix: Such as "/hostmesh", without a slash at the end.
        kinds: Those under the prefix.
    """

    prefix: str
    kinds: tuple[RecordKind[Any, Any], ...] = KINDS

    @property
    def everything(self) -> KeyRange:
        """All keys of the mesh."""
        return KeyRange(f"{self.prefix}/".encode(), f"{self.prefix}0".encode())

    @property
    def followed(self) -> tuple[KeyRange, ...]:
        """All keys of known kinds but those that are followed apart, or not, in order of key.

        The last range has all that decides where packets go, but for the config.
        """
        start, end = self.everything
        found = []
        for apart in sorted(self.range(kind) for kind in self.kinds if kind.apart):
            if any(start <= self.range(kind).start < apart.start for kind in self.kinds):
                found.append(KeyRange(start, apart.start))
            start = apart.end
        return (*found, KeyRange(start, end))

    def of(self, kind: RecordKind[_K, Any], *key: _K) -> bytes:
        """Return the key of a record; of a kind of one record without ``key``."""
        rest = "".join(f"/{kind.spell(each)}" for each in key)
        return f"{self.prefix}/{kind.name}{rest}".encode()

    def range(self, kind: RecordKind[Any, Any]) -> KeyRange:
        """Return the range that holds all records of a kind."""
        key = self.of(kind)
        return KeyRange(key + b"/", key + b"0") if kind.pattern else KeyRange(key, key + b"\0")

    def of_host(self, kind: RecordKind[Any, Any], host_id: str) -> KeyRange:
        """Return the range of one host's records of a kind whose keys begin with the host."""
        folder = self.range(kind).start + host_id.encode()
        return KeyRange(folder + b"/", folder + b"0")

    def split(self, key: bytes) -> tuple[RecordKind[Any, Any] | None, bytes]:
        """Take a key apart into its kind (None: an unknown one) and the rest."""
        name, slash, rest = key[len(self.prefix) + 1 :].partition(b"/")
        for kind in self.kinds:
            if name == kind.name.encode() and bool(slash) == bool(kind.pattern):
                return kind, rest
        return None, rest

    def read(self, kind: RecordKind[Any, _V], record: Record) -> _V:
        """Read a record of a kind by its whole key.

        Raises:
            ValueError: It cannot be used; the reason is fit to be shown.
        """
        return kind.read(kind.key(self.split(record.key)[1]), record)

    def read_lease(self, record: Record) -> Lease:
        """Read a lease or an owner record.

        Raises:
            ValueError: It cannot be used; the reason is fit to be shown.
        """
        kind, rest = self.split(record.key)
        if kind is not OWNERS:
            return LEASES.read(LEASES.key(rest), record)
        return OWNERS.read(OWNERS.key(rest), record)

    def overlapping(self, kind: RecordKind[Network, Any], subnet: Network) -> tuple[KeyRange, ...]:
        """Return ranges with all records of a kind that share an address with ``subnet``."""
        folder = self.range(kind).start
        return tuple(
            KeyRange(folder + each.start, folder + each.end) for each in overlapping_ranges(subnet)
        )

    def following(self, key: bytes) -> bytes | None:
        """Return where to read on behind ``key``: unknown keys and kinds apart are passed over.

        Returns:
            None where no known kind is left.
        """
        for each in sorted(self.range(kind) for kind in self.kinds if not kind.apart):
            if key < each.end:
                return max(each.start, key + b"\0")
        return None
