"""When a lease that is held is written again."""

from __future__ import annotations

from agent.leases.backoff import jittered
from agent.leases.request import ClaimRequest, Registration
from agent.model import Lease

__all__ = ["differs", "renewal_pause_s"]

_RENEWALS_PER_TTL = 24


def differs(lease: Lease, wished: Registration | ClaimRequest) -> bool:
    """Whether the lease says something else of the host than it should."""
    says = (lease.node_address, lease.host_name, lease.backend, lease.backend_data)
    return says != (wished.node_address, wished.host_name, wished.backend, wished.backend_data)


def renewal_pause_s(ttl_s: float) -> float:
    """Return the pause before the next renewal: an outage of most of the TTL loses nothing."""
    return jittered(ttl_s / _RENEWALS_PER_TTL)
