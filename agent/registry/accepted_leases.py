"""Decide which leases are used: those that fit the mesh, and of two that overlap the older.

Where owner records decide, a flannel host's lease, which has none, comes after all that have one.
Its key may be older and what it says new: any host can overwrite it.

Leases are judged one by one while that is enough. A lease that overlaps no other is judged alone.
Where two overlap, or the config changed, all are judged anew, in order of age.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.mesh.ranges import OverlapIndex
from agent.model import HostId, Lease, Leases, MeshConfig
from agent.model.family import Network, meet, subnets_of, supernet_of
from agent.registry.records import check_lease

__all__ = ["AcceptedLeases"]

_FEW: Final = 100
"""More leases than this that are new or not used: looking at each is no better than at all."""
_MOST_OF_HOST: Final = 2
"""A host has a second lease while the mesh moves to another CIDR."""
_BLOCKS: Final = 4096
"""More blocks of one length than this in one subnet are not looked up one by one."""


@dataclass(slots=True)
class AcceptedLeases:
    """Leases by name (the last part of their key), and which are used. One thread owns it."""

    _named: dict[str, Lease] = field(default_factory=dict)
    _used: Leases = field(default_factory=Leases)
    _lengths: Counter[tuple[int, int]] = field(default_factory=Counter)  # of the used, by version
    _aside: dict[str, tuple[Lease, str]] = field(default_factory=dict)
    _new: dict[str, Lease] = field(default_factory=dict)  # not judged yet
    _gone: set[Network] = field(default_factory=set)  # used till now
    _of_host: Counter[HostId | None] = field(default_factory=Counter)
    _judge_all: bool = True
    _config: MeshConfig | None = None

    def find(self, name: str) -> Lease | None:
        """The lease of that name, used or not."""
        return self._named.get(name)

    def __len__(self) -> int:
        return len(self._named)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._named.values())

    @property
    def named(self) -> Mapping[str, Lease]:
        """Every lease by its name."""
        return self._named

    def put(self, name: str, lease: Lease | None) -> None:
        """The lease of that name is now this one; None: it is gone."""
        before = self._named.pop(name, None)
        if before is None and lease is None:
            return
        if before is not None:
            self._count(before, -1)
            if self._new.pop(name, None) is None and self._aside.pop(name, None) is None:
                self._gone.add(before.subnet)
            self._judge_all = self._judge_all or self._meets(before.subnet)
        if lease is not None:
            self._judge_all = self._judge_all or self._meets(lease.subnet)
            self._named[name] = self._new[name] = lease
            self._count(lease, 1)

    def _count(self, lease: Lease, change: int) -> None:
        """Count a host's leases; judge all where the limit takes part."""
        before = self._of_host[lease.host_id]
        if before + change:
            self._of_host[lease.host_id] = before + change
        else:
            del self._of_host[lease.host_id]
        limited = max(before, before + change) > _MOST_OF_HOST
        self._judge_all = self._judge_all or (lease.host_id is not None and limited)

    def settle(self, config: MeshConfig | None) -> tuple[Leases, Mapping[str, tuple[Lease, str]]]:
        """Judge what has not been judged.

        Returns:
            The used leases, and by name each other lease with the reason.
        """
        if self._judge_all or config != self._config:
            self._settle_all(config)
        elif self._new or self._gone:
            used = {lease.subnet: lease for lease in self._judged(self._new.items(), config, None)}
            self._use({**dict.fromkeys(self._gone), **used})
        self._config = config
        self._judge_all = False
        self._new = {}
        self._gone = set()
        return self._used, self._aside

    def _settle_all(self, config: MeshConfig | None) -> None:
        owners = config is not None and config.owners
        everything = sorted(
            self._named.items(),
            key=lambda each: (
                owners and each[1].host_id is None,
                each[1].create_revision,
                each[0],
            ),
        )
        self._aside = {}
        used = {lease.subnet: lease for lease in self._judged(everything, config, OverlapIndex())}
        gone = [subnet for subnet in self._used.by_subnet if subnet not in used]
        self._use({**dict.fromkeys(gone), **used})

    def _judged(
        self,
        named: Iterable[tuple[str, Lease]],
        config: MeshConfig | None,
        taken: OverlapIndex | None,
    ) -> Iterator[Lease]:
        """Yield the usable ones in their order; remember the others with the reason."""
        used = Counter[HostId]()
        for name, lease in named:
            reason = _why_not(lease, config, taken)
            host = lease.host_id
            if host is not None and config is not None and config.owners and not reason:
                used[host] += 1
                if used[host] > _MOST_OF_HOST:
                    reason = f"host {host} has {_MOST_OF_HOST} older leases, and no more count"
            if reason:
                self._aside[name] = (lease, reason)
                continue
            if taken is not None:
                taken.add(lease.subnet)
            yield lease

    def _use(self, changes: dict[Network, Lease | None]) -> None:
        for subnet, lease in changes.items():
            before = self._used.by_subnet.get(subnet)
            if before is None and lease is not None:
                self._lengths[subnet.version, subnet.prefixlen] += 1
            elif before is not None and lease is None:
                self._lengths[subnet.version, subnet.prefixlen] -= 1
        self._used = self._used.changed(changes)

    def _meets(self, subnet: Network) -> bool:
        """Whether any lease shares an address with ``subnet``; True also where that takes long."""
        if len(self._new) + len(self._aside) > _FEW:
            return True
        others = (*self._new.values(), *(lease for lease, _ in self._aside.values()))
        return any(meet(lease.subnet, subnet) for lease in others) or any(
            self._meets_used(subnet, length)
            for (version, length), count in self._lengths.items()
            if count and version == subnet.version
        )

    def _meets_used(self, subnet: Network, length: int) -> bool:
        used, gone = self._used.by_subnet, self._gone
        if length <= subnet.prefixlen:
            block = supernet_of(subnet, length)
            return block in used and block not in gone
        if 1 << (length - subnet.prefixlen) > _BLOCKS:
            return True
        return any(block in used and block not in gone for block in subnets_of(subnet, length))


def _why_not(lease: Lease, config: MeshConfig | None, taken: OverlapIndex | None) -> str:
    if config is None:
        return "there is no usable config to check it against"
    problem = check_lease(lease, config)
    if lease.host_id is None and not config.flannel:
        problem = f"it is a flannel host's ({lease.node_address}), and this mesh refuses them"
    if problem or taken is None:
        return problem
    overlapped = taken.find(lease.subnet)
    return f"it overlaps the older lease {overlapped}" if overlapped else ""
