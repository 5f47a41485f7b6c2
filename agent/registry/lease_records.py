"""Hold leases and owner records, and decide which leases count. Pure.

Without ``Hostmesh.Owners`` a key under ``subnets/`` is a lease. With it the owner record is the
lease: any host can write and delete keys under ``subnets/``, so they decide nothing, but for those
of flannel hosts where the config allows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.etcd.kv import Record
from agent.model import HostId, Lease, Leases, MeshConfig
from agent.model.family import Network
from agent.registry.accepted_leases import AcceptedLeases
from agent.registry.records import OWNERS

__all__ = ["CountedLeases", "LeaseRecords", "why_unowned"]

Owners = Mapping[tuple[HostId, Network], Lease]
_OWNERS: Final = f"{OWNERS.name}/"


@dataclass(frozen=True, slots=True)
class CountedLeases:
    """Which leases count. Names are keys behind the prefix.

    Attributes:
        used: Those that do.
        aside: Those that do not, by name, with the reason.
        unowned: With owner records: Hostmesh's leases under ``subnets/`` that no owner record
            confirms, by name, with the reason.
        overwritten: See :class:`agent.model.View`.
        kept: See :class:`agent.model.View`.
    """

    used: Leases
    aside: Mapping[str, tuple[Lease, str]]
    unowned: Mapping[str, str]
    overwritten: frozenset[Network]
    kept: frozenset[Network]


@dataclass(slots=True)
class LeaseRecords:
    """Leases by name: the key behind the prefix. One thread owns it."""

    _leases: AcceptedLeases = field(default_factory=AcceptedLeases)  # under subnets/
    _owned: AcceptedLeases = field(default_factory=AcceptedLeases)  # owner records and flannel's
    _kept: dict[str, Lease] = field(default_factory=dict)  # the last that could be read
    _compared: tuple[Leases, Mapping[str, str], frozenset[Network]] | None = None

    def put(self, name: str, lease: Lease | None) -> None:
        """Put a lease in its place; None: it is gone, or cannot be read."""
        self._compared = None
        owner = name.startswith(_OWNERS)
        if not owner:
            self._leases.put(name, lease)
        flannel = lease is not None and lease.host_id is None
        self._owned.put(name, lease if owner or flannel else None)

    def find(self, name: str) -> Lease | None:
        """Return the lease of a name, used or not."""
        return (self._owned if name.startswith(_OWNERS) else self._leases).find(name)

    def forget(self, name: str) -> Lease | None:
        """Return the last lease of a name that could be read, and keep it no longer."""
        return self._kept.pop(name, None) or self.find(name)

    def remember(self, name: str, record: Record | None, lease: Lease | None) -> bool:
        """Keep a host's lease whose record cannot be read, if its key never went away."""
        if lease is None or lease.host_id is None or record is None:
            return False
        if record.create_revision != lease.create_revision:
            return False
        self._kept[name] = lease
        return True

    def is_kept(self, name: str) -> bool:
        """Whether the last lease that could be read is used for a name."""
        return name in self._kept

    def __len__(self) -> int:
        """Return how many there are under ``subnets/``."""
        return len(self._leases)

    def leases(self) -> tuple[Lease, ...]:
        """Return all leases under ``subnets/``."""
        return tuple(self._leases)

    def owners(self) -> tuple[Lease, ...]:
        """Return all owner records."""
        return tuple(each for each in self._owned if each.host_id is not None)

    def holders(self, config: MeshConfig | None, own: HostId | None) -> tuple[Lease, ...]:
        """Return all that keep hosts from their subnets, whether they are used or not.

        Args:
            config: Of the mesh.
            own: Host whose owner records are left out where they do not decide.
        """
        if config is None or not config.owners:
            return (*self._leases, *(each for each in self.owners() if each.host_id != own))
        return tuple(each for each in self._owned if each.host_id is not None or config.flannel)

    def without_rights(self, config: MeshConfig | None) -> Iterator[str]:
        """Yield the names under ``subnets/`` that keep no host from a subnet."""
        if config is not None and config.owners:
            for name, lease in self._leases.named.items():
                if lease.host_id is not None or not config.flannel:
                    yield name

    def settle(
        self, config: MeshConfig | None, owners: Owners, is_alive: Callable[[HostId], bool]
    ) -> CountedLeases:
        """Judge all leases.

        Args:
            config: By which they are judged.
            owners: The owner records that can be read now.
            is_alive: Whether a host has a heartbeat: the lease kept of it counts.
        """
        kept = self._keep_readable(is_alive)
        decide = config is not None and config.owners
        used, aside = (self._owned if decide else self._leases).settle(config)
        if not decide:
            return CountedLeases(used, aside, {}, frozenset(), kept)
        if self._compared is None or self._compared[0] is not used:
            self._compared = (used, *self._compare(used, owners))
        _, unowned, overwritten = self._compared
        return CountedLeases(used, aside, unowned, overwritten, kept)

    def _keep_readable(self, is_alive: Callable[[HostId], bool]) -> frozenset[Network]:
        """Use the last readable lease of each live host; the host repairs its record.

        Returns:
            The subnets of these leases.
        """
        kept = set()
        for name, lease in self._kept.items():
            alive = lease if lease.host_id is not None and is_alive(lease.host_id) else None
            if self.find(name) != alive:
                self.put(name, alive)
            if alive is not None:
                kept.add(alive.subnet)
        return frozenset(kept)

    def _compare(
        self, used: Leases, owners: Owners
    ) -> tuple[Mapping[str, str], frozenset[Network]]:
        """Return what no owner record confirms, and whose key under ``subnets/`` is wrong."""
        unowned = {}
        wrong = {each.subnet for each in used if each.host_id is not None}
        for name, lease in self._leases.named.items():
            if lease.host_id is None:
                continue
            reason = why_unowned(lease, owners)
            if reason:
                unowned[name] = reason
            elif (counted := used.by_subnet.get(lease.subnet)) and (
                counted.host_id == lease.host_id
            ):
                wrong.discard(lease.subnet)
        return unowned, frozenset(wrong)


def why_unowned(lease: Lease, owners: Owners) -> str:
    """Return why no owner record confirms a host's lease, "" when one does."""
    host = f"host {lease.host_name or lease.host_id}"
    owner = owners.get((lease.host_id or HostId(""), lease.subnet))
    if owner is None:
        return f"{host} has no owner record of {lease.subnet}"
    if _route(owner) != _route(lease):
        return f"the owner record of {lease.subnet} of {host} does not agree"
    return ""


def _route(lease: Lease) -> tuple[object, ...]:
    """Return all of a lease that decides where packets go."""
    return lease.node_address, lease.published
