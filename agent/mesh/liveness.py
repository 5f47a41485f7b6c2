"""Which peers are dead: promise 3's one exception to "routes stay". Pure.

A heartbeat's absence alone means nothing for traffic: the agent may have crashed while the
containers run on. Only a host that is also silent on the data path (agent.kernel.liveness.prober)
is taken for dead, and its subnet is made unreachable so that senders fail at once. Absence is
read from a complete view, never from a clock; flannel hosts have no heartbeat and are exempt.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from agent.model import HostId, Lease, View
from agent.model.family import Address, Network
from agent.model.wireguard import WIREGUARD
from agent.sharedmap import changed_keys

__all__ = ["Lapsed", "dead_subnets", "is_dead", "lapsed_leases", "probe_addresses"]


@dataclass(frozen=True, slots=True)
class Lapsed:
    """The leases of one view whose hosts should have a heartbeat and have none.

    Attributes:
        view: Which was looked at.
        by_subnet: Leases of other hosts that run an agent (have an identity).
    """

    view: View
    by_subnet: Mapping[Network, Lease]

    @classmethod
    def of(cls, view: View, own: HostId) -> Lapsed:
        """Look at every lease of a view."""
        found = {lease.subnet: lease for lease in view.leases if _has_lapsed(lease, view, own)}
        return cls(view, MappingProxyType(found))

    def follow(self, view: View, own: HostId) -> Lapsed:
        """The same of a later view, at the cost of what changed between the two."""
        if self.view.cached or view.cached:
            return Lapsed.of(view, own)
        subnets = changed_keys(self.view.by_subnet, view.by_subnet)
        for host in changed_keys(self.view.heartbeats, view.heartbeats):
            if (host in self.view.heartbeats) != (host in view.heartbeats):
                subnets.update(lease.subnet for lease in view.leases_of(host))
        if not subnets:
            return Lapsed(view, self.by_subnet)
        found = {each: lease for each, lease in self.by_subnet.items() if each not in subnets}
        for subnet in subnets:
            lease = view.by_subnet.get(subnet)
            if lease is not None and _has_lapsed(lease, view, own):
                found[subnet] = lease
        return Lapsed(view, MappingProxyType(found))


def _has_lapsed(lease: Lease, view: View, own: HostId) -> bool:
    """The host's own copy holds no heartbeats, so absence there proves nothing."""
    return (
        not view.cached
        and lease.host_id is not None
        and lease.host_id != own
        and lease.host_id not in view.heartbeats
    )


def lapsed_leases(view: View | None, own: HostId) -> tuple[Lease, ...]:
    """Leases of other hosts that run an agent (have an identity) but have no heartbeat.

    Empty for no view and for the host's own copy.
    """
    return () if view is None else tuple(Lapsed.of(view, own).by_subnet.values())


def probe_addresses(lease: Lease) -> tuple[Address, ...]:
    """Return the addresses at which a host is asked whether it is there. One answer is enough.

    Its node address, unless it is behind NAT. Where it publishes data of a tunnel, also the network
    address of its subnet, which the tunnel's device has: routers between hosts may drop echo
    requests, and pass the tunnel.
    """
    data = lease.backend_data.fields if lease.backend_data else {}
    behind_nat = lease.backend == WIREGUARD and data.get("NAT") is True
    has_tunnel = bool(data) or bool(lease.accepted and lease.accepted.data)
    inner = (lease.subnet.network_address,) if has_tunnel else ()
    return inner if behind_nat else (lease.node_address, *inner)


def dead_subnets(lapsed: Iterable[Lease], silent: Container[Address]) -> frozenset[Network]:
    """Return the subnets of lapsed hosts that answer nowhere (``World.dead_subnets``)."""
    return frozenset(lease.subnet for lease in lapsed if is_dead(lease, silent))


def is_dead(lapsed: Lease, silent: Container[Address]) -> bool:
    """Return whether a lapsed host is known to be silent at each address where it is asked."""
    return all(each in silent for each in probe_addresses(lapsed))
