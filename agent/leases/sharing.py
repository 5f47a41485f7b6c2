"""One object for what is said more than once: a host's id, name and address, its subnet.

Each host has three records that say much the same. In a mesh of 65,000 the copies would take
three times the memory of what they say. Values stay equal to what was read; only identity changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from agent.model import Heartbeat, HostId, Lease
from agent.model.family import Network

__all__ = ["Sharing"]

_T = TypeVar("_T")
_COMMON: Final = 64


@dataclass(slots=True)
class Sharing:
    """Remembers a few values that all hosts have in common: versions, TTLs, backends."""

    _common: dict[Any, Any] = field(default_factory=dict)

    def heartbeat(
        self,
        beat: Heartbeat,
        *,
        before: Heartbeat | None,
        lease: Lease | None,
        memory: Network | None,
    ) -> Heartbeat:
        """The same heartbeat, made of what is there already."""
        return replace(
            beat,
            host_id=_one(beat.host_id, before and before.host_id, lease and lease.host_id),
            host_name=_one(beat.host_name, before and before.host_name, lease and lease.host_name),
            node_address=_one(
                beat.node_address, before and before.node_address, lease and lease.node_address
            ),
            subnet=_one(beat.subnet, before and before.subnet, lease and lease.subnet, memory),
            agent_version=self._of_all(beat.agent_version),
            boot_id=_one(beat.boot_id, before and before.boot_id),
            needed=self._of_all(beat.needed),
        )

    def lease(
        self,
        lease: Lease,
        *,
        before: Lease | None,
        beat: Heartbeat | None,
        memory: Network | None,
    ) -> Lease:
        """The same lease, made of what is there already."""
        return replace(
            lease,
            subnet=_one(lease.subnet, before and before.subnet, beat and beat.subnet, memory),
            node_address=_one(
                lease.node_address, before and before.node_address, beat and beat.node_address
            ),
            backend=self._of_all(lease.backend),
            host_id=_one(lease.host_id, beat and beat.host_id, before and before.host_id),
            host_name=_one(lease.host_name, beat and beat.host_name, before and before.host_name),
            renewed_s=_one(lease.renewed_s, lease.claimed_s),
            ttl_s=self._of_all(lease.ttl_s),
            mod_revision=_one(lease.mod_revision, lease.create_revision),
        )

    def memory(
        self,
        remembered: tuple[HostId, Network],
        *,
        beat: Heartbeat | None,
        lease: Lease | None,
    ) -> tuple[HostId, Network]:
        """The same memory, made of what is there already."""
        host_id, subnet = remembered
        return (
            _one(host_id, beat and beat.host_id, lease and lease.host_id),
            _one(subnet, beat and beat.subnet, lease and lease.subnet),
        )

    def _of_all(self, value: _T) -> _T:
        if len(self._common) < _COMMON:
            found: _T = self._common.setdefault(value, value)
            return found
        return self._common.get(value, value)  # type: ignore[no-any-return]  # equal, so alike


def _one(value: _T, *others: object) -> _T:
    """The first of ``others`` that equals ``value``, else ``value``."""
    for other in others:
        if other == value and type(other) is type(value):
            return other
    return value
