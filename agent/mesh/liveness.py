"""Which peers are dead: promise 3's one exception to "routes stay". Pure.

A heartbeat's absence alone means nothing for traffic: the agent may have crashed while the
containers run on. Only a host that is also silent on the data path (:mod:`agent.kernel.probe`)
is taken for dead, and its subnet is made unreachable so that senders fail at once. Absence is
read from a complete view, never from a clock; flannel hosts have no heartbeat and are exempt.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from ipaddress import IPv4Address, IPv4Network

from agent.model import HostId, Lease, View

__all__ = ["dead_subnets", "lapsed_leases"]


def lapsed_leases(view: View | None, own: HostId) -> tuple[Lease, ...]:
    """Leases of other hosts that run an agent (have an identity) but have no heartbeat.

    Empty for no view and for the host's own copy: what is absent there is absent from a file.
    """
    if view is None or view.cached:
        return ()
    return tuple(
        lease
        for lease in view.leases
        if lease.host_id is not None
        and lease.host_id != own
        and lease.host_id not in view.heartbeats
    )


def dead_subnets(lapsed: Iterable[Lease], silent: Container[IPv4Address]) -> frozenset[IPv4Network]:
    """Subnets of lapsed hosts whose node address is known to be silent (``World.dead_subnets``)."""
    return frozenset(lease.subnet for lease in lapsed if lease.node_address in silent)
