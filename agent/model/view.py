"""The mesh at one revision of etcd, cheap to follow from one view to the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import overload

from agent.model.bounds import Problem
from agent.model.family import Network, network_order
from agent.model.mesh import Heartbeat, HostId, Lease, MeshConfig, SetAside
from agent.model.network import MeshNetwork, NetworkSlice
from agent.sharedmap import SharedMap

__all__ = ["Leases", "View"]


class Leases(Sequence[Lease]):
    """Leases in order of subnet, one for each subnet at most, found by subnet or by host.

    Immutable; what :meth:`changed` makes shares all that did not change.

    Args:
        leases: In any order.
    """

    __slots__ = ("_by_host", "_in_order", "by_subnet")

    def __init__(self, leases: Iterable[Lease] = ()) -> None:
        self.by_subnet: SharedMap[Network, Lease] = SharedMap(
            {lease.subnet: lease for lease in leases}
        )
        """Every lease by its subnet."""
        self._by_host: SharedMap[HostId, tuple[Lease, ...]] = SharedMap(
            _by_host(self.by_subnet.values())
        )
        self._in_order: tuple[Lease, ...] | None = None

    def of(self, host_id: HostId) -> tuple[Lease, ...]:
        """Return every lease of a host: one, unless a record is forged."""
        found: tuple[Lease, ...] = self._by_host.get(host_id, ())
        return found

    def changed(self, changes: Mapping[Network, Lease | None]) -> Leases:
        """Make leases with these instead; None takes a subnet's lease away."""
        by_subnet = self.by_subnet.changed(changes)
        if by_subnet is self.by_subnet:
            return self
        found = [*map(self.by_subnet.get, changes), *changes.values()]
        hosts = {each.host_id for each in found if each is not None and each.host_id is not None}
        owned: dict[HostId, tuple[Lease, ...] | None] = dict.fromkeys(hosts)
        kept = [lease for host in hosts for lease in self.of(host) if lease.subnet not in changes]
        owned.update(_by_host((*kept, *filter(None, changes.values()))))
        made: Leases = Leases.__new__(Leases)
        made.by_subnet = by_subnet
        made._by_host = self._by_host.changed(owned)
        made._in_order = None
        return made

    def _sorted(self) -> tuple[Lease, ...]:
        if self._in_order is None:
            in_order = sorted(self.by_subnet.items(), key=lambda item: network_order(item[0]))
            self._in_order = tuple(lease for _, lease in in_order)
        return self._in_order

    @overload
    def __getitem__(self, index: int) -> Lease: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Lease, ...]: ...
    def __getitem__(self, index: int | slice) -> Lease | tuple[Lease, ...]:
        return self._sorted()[index]

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._sorted())

    def __len__(self) -> int:
        return len(self.by_subnet)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return self is other or self._sorted() == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # large, and never hashed

    def __repr__(self) -> str:
        return f"Leases({self._sorted()!r})"


def _by_host(leases: Iterable[Lease]) -> dict[HostId, tuple[Lease, ...]]:
    found: dict[HostId, tuple[Lease, ...]] = {}
    for lease in leases:
        if lease.host_id is not None:
            found[lease.host_id] = (*found.get(lease.host_id, ()), lease)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything under the prefix at one revision. Always complete: a partial one is never made.

    Views of one mesh share what did not change between them, so that following one costs what
    changed (:func:`agent.sharedmap.changed_keys`).

    Attributes:
        cluster_id: etcd's cluster id, so that another cluster's view is recognised.
        revision: The revision at which all of it was true.
        config: None when there is none or when it is not usable (see config_problem).
        leases: Usable leases, the own one included, in order of subnet, none overlapping.
            Always :class:`Leases`, whatever sequence was given.
        heartbeats, memory, owners, slices, networks: Always a SharedMap, from any mapping.
        owners: Owner records. With ``config.owners`` the leases are made of them.
        overwritten: With ``config.owners``: subnets whose key under ``subnets/`` is gone or
            does not agree with the owner record.
        memory: Last subnet of each host that held one in the last 30 days.
        reservations: Subnets only the named host may claim.
        slices: Each host's part of each mesh network, by host and network, as the hosts say.
        networks: The operator's records of mesh networks, by name.
        clones: Hosts that found their identity in use by another, as they say of themselves.
        kept: Subnets whose record cannot be read now, while its owner has a heartbeat: the lease
            is the last that could be read.
        cached: From the host's own copy of the last complete view, while etcd is away.
    """

    cluster_id: int
    revision: int
    config: MeshConfig | None = None
    config_problem: Problem | None = None
    leases: Sequence[Lease] = ()
    heartbeats: Mapping[HostId, Heartbeat] = field(default_factory=SharedMap)
    memory: Mapping[HostId, Network] = field(default_factory=SharedMap)
    owners: Mapping[tuple[HostId, Network], Lease] = field(default_factory=SharedMap)
    reservations: Mapping[Network, HostId] = field(default_factory=lambda: MappingProxyType({}))
    slices: Mapping[tuple[HostId, str], NetworkSlice] = field(default_factory=SharedMap)
    networks: Mapping[str, MeshNetwork] = field(default_factory=SharedMap)
    clones: tuple[Heartbeat, ...] = ()
    set_aside: tuple[SetAside, ...] = ()
    kept: frozenset[Network] = frozenset()
    overwritten: frozenset[Network] = frozenset()
    cached: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.leases, Leases):
            object.__setattr__(self, "leases", Leases(self.leases))
        for name in ("heartbeats", "memory", "owners", "slices", "networks"):
            given = getattr(self, name)
            if not isinstance(given, SharedMap):
                object.__setattr__(self, name, SharedMap(given))

    @property
    def by_subnet(self) -> SharedMap[Network, Lease]:
        """Every lease by its subnet."""
        return _leases_of(self).by_subnet

    def leases_of(self, host_id: HostId) -> tuple[Lease, ...]:
        """Return every lease of a host: one, unless a record is forged."""
        return _leases_of(self).of(host_id)

    def set_aside_of(self, host_id: HostId) -> tuple[Lease, ...]:
        """A host's leases that are not used."""
        found = (each.lease for each in self.set_aside)
        return tuple(each for each in found if each is not None and each.host_id == host_id)

    def lease_of(self, host_id: HostId) -> Lease | None:
        """The lease that ``host_id`` owns in this view, or None."""
        return next(iter(self.leases_of(host_id)), None)


def _leases_of(view: View) -> Leases:
    return view.leases if isinstance(view.leases, Leases) else Leases(view.leases)
