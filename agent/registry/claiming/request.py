"""The requests of a host, by one claim or for good, and the two answers that are not a lease."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agent.errors import EtcdError
from agent.model import DockerState, HostId, HostSummary, Lease, Needed, OwnerRecords, Published
from agent.model.family import Address, Network
from agent.registry.claiming.identity_conflicts import Claimant
from agent.retry import jittered

__all__ = [
    "ClaimRequest",
    "GraceError",
    "LeaseLostError",
    "Registration",
    "differs",
    "renewal_pause_s",
]

_RENEWALS_PER_TTL = 24


class LeaseLostError(EtcdError):
    """The lease's key is gone: it expired or was deleted. Claim the subnet again."""


class GraceError(EtcdError):
    """etcd was replaced: only hosts that held a subnet before get one for now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """A host that wants a lease, and the subnets it can take.

    Attributes:
        avoid: Networks that the host itself sees elsewhere (addresses, foreign routes).
        wanted: The subnet that the host had, by its own copy or by Docker's settings.
        only_wanted: Take ``wanted`` or nothing, and do not mind ``avoid`` for it: it is in
            use, and Docker may not be restarted for another.
        past: The lease by the host's own copy: where its record cannot be read and its key never
            went away, it is written again.
        registering: The host's own copy says that it holds ``wanted``. Claiming that does
            not wait for a replaced etcd's grace time.
        beside: A subnet that the host holds and keeps: while the mesh moves to another CIDR
            it has a second one, there.
        boot_id: Of this boot, "" when unknown: with ``node_address`` it tells what this host
            wrote from what a clone did.
        cleared: Addresses of which is known that no clone of this host lives there.
        owners: What the mesh does with owner records.
        ttl_s, memory_ttl_s: Of the lease, and of the memory that outlives it; 0 writes none.
    """

    host_id: HostId
    host_name: str
    node_address: Address
    published: Published = field(default_factory=Published)
    boot_id: str = ""
    avoid: tuple[Network, ...] = ()
    wanted: Network | None = None
    only_wanted: bool = False
    past: Lease | None = None
    registering: bool = False
    beside: Network | None = None
    cleared: frozenset[Address] = frozenset()
    owners: OwnerRecords = OwnerRecords.UNUSED
    ttl_s: int = 86_400
    memory_ttl_s: int = 30 * 86_400

    def on(self, lease: Lease) -> Lease:
        """Return a lease as this host writes it."""
        return replace(
            lease.publishing(self.published),
            host_id=self.host_id,
            host_name=self.host_name,
            node_address=self.node_address,
            ttl_s=self.ttl_s,
        )

    @property
    def claimant(self) -> Claimant:
        """Whose claim it is."""
        return Claimant(self.host_id, self.boot_id, self.node_address, self.cleared, self.owners)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """The records that the loop wants kept for this host.

    Attributes:
        node_address: By which peers reach the host.
        host_name: For display.
        docker_state: Whether Docker has the subnet; goes into the heartbeat.
        avoid: Networks that this host sees elsewhere; no new subnet overlaps them.
        wanted_subnet: What the host had, by its own copy or by Docker's settings.
        past: The lease that the host had, by its own copy.
        may_change_subnet: Another subnet will do, too: nothing runs on the wanted one.
        published: How packets travel to this host, and what peers need for it.
        move_into: The mesh's new CIDR: a lease outside it is exchanged for one inside.
        former: The lease that this host still holds from before, by what it knows.
        give_back: Docker has nothing in the previous subnet any more.
        container: For the heartbeat: a container's address that peers may ping.
        needed: For the heartbeat: what this host must reach beside the mesh.
        owners: What the mesh does with owner records.
        summary: For the heartbeat: facts that people see on the other hosts.
    """

    node_address: Address
    host_name: str
    docker_state: DockerState
    avoid: tuple[Network, ...] = ()
    wanted_subnet: Network | None = None
    past: Lease | None = None
    may_change_subnet: bool = True
    published: Published = field(default_factory=Published)
    move_into: Network | None = None
    former: Lease | None = None
    give_back: bool = False
    container: Address | None = None
    needed: tuple[Needed, ...] = ()
    owners: OwnerRecords = OwnerRecords.UNUSED
    summary: HostSummary = field(default=HostSummary())


def differs(lease: Lease, wished: Registration | ClaimRequest) -> bool:
    """Whether the lease says something else of the host than it should."""
    says, wish = ((each.node_address, each.host_name, each.published) for each in (lease, wished))
    return says != wish


def renewal_pause_s(ttl_s: float) -> float:
    """Return the pause before the next renewal: an outage of most of the TTL loses nothing."""
    return jittered(ttl_s / _RENEWALS_PER_TTL, shorter=0.1, longer=0.0)
