"""What a host asks for when it claims, and the two answers that are not a lease."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from agent.errors import EtcdError
from agent.leases.rivals import Life
from agent.model import Backend, HostId

__all__ = ["ClaimRequest", "GraceError", "LeaseLostError"]


class LeaseLostError(EtcdError):
    """The lease's key is gone: it expired or was deleted. Claim the subnet again."""


class GraceError(EtcdError):
    """etcd was replaced: only hosts that held a subnet before get one for now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """Who wants a lease, and what it can take.

    Attributes:
        avoid: Networks that the host itself sees elsewhere (addresses, foreign routes).
        wanted: The subnet that the host had, by its own copy or by Docker's settings.
        only_wanted: Take ``wanted`` or nothing, and do not mind ``avoid`` for it: it is in
            use, and Docker may not be restarted for another.
        registering: The host's own copy says that it holds ``wanted``. Claiming that does
            not wait for a replaced etcd's grace time.
        boot_id: Of this boot, "" when unknown: with ``node_address`` it tells what this host
            wrote from what a clone did.
        cleared: Addresses of which is known that no clone of this host lives there.
        ttl_s, memory_ttl_s: Of the lease, and of the memory that outlives it.
    """

    host_id: HostId
    host_name: str
    node_address: IPv4Address
    backend: str = Backend.HOST_GW
    boot_id: str = ""
    avoid: tuple[IPv4Network, ...] = ()
    wanted: IPv4Network | None = None
    only_wanted: bool = False
    registering: bool = False
    cleared: frozenset[IPv4Address] = frozenset()
    ttl_s: int = 86_400
    memory_ttl_s: int = 30 * 86_400

    @property
    def life(self) -> Life:
        """Whose claim it is."""
        return Life(self.host_id, self.boot_id, self.node_address, self.cleared)
