"""Hosts whose WireGuard key changed while their agent went on running. Pure.

A key that changes without a restart was written by another program that may write the record, or
was replaced by hand on the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from agent.model import Condition, HostId, Lease, View
from agent.sharedmap import changed_keys

__all__ = ["KeyChanges"]


@dataclass(frozen=True, slots=True)
class KeyChanges:
    """The keys seen since this agent started.

    Attributes:
        started_s: By host, when the agent started under which the key changed, by its own clock.
    """

    started_s: Mapping[HostId, float] = field(default_factory=lambda: MappingProxyType({}))

    def follow(self, before: View | None, after: View) -> KeyChanges:
        """Return the same after another view, at the cost of what changed between the two."""
        if before is None or before.cached or after.cached:
            return self
        found = {
            host: started_s
            for host, started_s in self.started_s.items()
            if _started_s(after, host) in (started_s, None)
        }
        for subnet in changed_keys(before.by_subnet, after.by_subnet):
            old, new = before.by_subnet.get(subnet), after.by_subnet.get(subnet)
            if old is None or new is None or new.host_id is None or old.host_id != new.host_id:
                continue
            started_s = _started_s(after, new.host_id)
            same_run = started_s is not None and started_s == _started_s(before, new.host_id)
            if same_run and started_s is not None and _key(old) and _key(old) != _key(new):
                found[new.host_id] = started_s
        return self if found == self.started_s else KeyChanges(MappingProxyType(found))

    def conditions(self, view: View) -> Iterator[Condition]:
        """Yield a condition for each host that still has a lease."""
        for host in self.started_s:
            for lease in view.leases_of(host):
                yield Condition(
                    name="peer-key-changed",
                    subject=str(lease.subnet),
                    cause=f"the WireGuard key of {lease.host_name or host} changed while its agent"
                    " was running",
                    hint="compare agentctl leases -o json with wg show hm-wg public-key there; a"
                    " restart of its agent ends this",
                )


def _key(lease: Lease) -> object:
    """Return the key that a host publishes for the backend in use or the one beside it."""
    other = lease.accepted.data if lease.accepted else None
    found = (each.fields.get("PublicKey") for each in (lease.backend_data, other) if each)
    return next(filter(None, found), None)


def _started_s(view: View, host: HostId) -> float | None:
    heartbeat = view.heartbeats.get(host)
    return None if heartbeat is None else heartbeat.started_s
