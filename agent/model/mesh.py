"""The mesh's config, leases and heartbeats, as etcd holds them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final, NewType

from agent.model.backend import DEFAULT_BACKEND, BackendChoice, BackendData
from agent.model.docker import DockerState
from agent.model.family import Address, Network, family_of, within
from agent.model.host import Needed

__all__ = [
    "LEVEL",
    "LEVEL_OF_0_1",
    "MAX_LEVEL",
    "NETWORKS_LEVEL",
    "OWNERS_LEVEL",
    "Access",
    "Heartbeat",
    "HostId",
    "HostSummary",
    "Lease",
    "MeshConfig",
    "OwnerRecords",
    "Published",
    "SetAside",
    "is_leasable",
]

LEVEL_OF_0_1: Final = 1
"""The level that 0.1 reads, and that a config or heartbeat without a level has."""

LEVEL: Final = 3
"""The level that this version reads. Each level holds the ones below it.

1: 0.1. 2: the level in the config and in heartbeats, and owner records. 3: mesh networks,
endpoints and names.
"""

OWNERS_LEVEL: Final = 2
"""From this level on hosts write owner records."""

NETWORKS_LEVEL: Final = 3
"""From this level on hosts publish slices of mesh networks, and endpoints."""

MAX_LEVEL: Final = 999

HostId = NewType("HostId", str)
"""32 hex digits: HMAC-SHA256 of machine-id keyed for this application, per machine-id(5)."""


def is_leasable(subnet: Network) -> bool:
    """Whether a host can hold ``subnet``: docker0 and a container fit in."""
    shortest, longest = family_of(subnet).subnet_lengths
    return shortest <= subnet.prefixlen <= longest


class Access(enum.StrEnum):
    """How much of a Docker network other hosts of the mesh reach, widest first."""

    OPEN = "open"
    PUBLISHED = "published"
    CLOSED = "closed"


class OwnerRecords(enum.Enum):
    """How hosts of a mesh use owner records."""

    UNUSED = "unused"
    WRITTEN = "written"
    DECIDE = "decide"
    """They are written, and a lease counts by its owner record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshConfig:
    """``<prefix>/config``, validated: what every host of the mesh agrees on.

    Attributes:
        cidr: The range all subnets come from (flannel: Network). Its family is the config's.
        subnet_len: Prefix length of each new lease (flannel: SubnetLen).
        subnet_min: Network address of the first subnet that may be leased.
        subnet_max: Network address of the last subnet that may be leased.
        backend: flannel's Backend.Type as written; kept as text because a mesh may name
            a backend this version does not have, which is a condition, not an error.
        backend_options: What else flannel's Backend says, such as a VNI; not checked.
        accepted: While the mesh changes its backend: the one that hosts set up, publish and accept
            packets by beside ``backend``, by which they send. Before the switch it is the new
            one, then the old one.
        previous: CIDRs that the mesh moves away from: leases in them are used and routed, no
            new subnet comes from them. They may overlap ``cidr`` (a mesh that shrinks).
        access: How open user-defined Docker networks are that do not say so themselves.
        level: What may be published, if every host can read it.
        owners: A lease counts by the owner record of its host, not by its key under ``subnets/``.
        flannel: Leases of flannel hosts, which have no owner record, count.
        etcd_closed: Containers are kept from etcd's client port, unless a host says otherwise.
        declared_networks: Only mesh networks with a record of the operator's count; without it a
            label on a Docker network is enough.
        domain: Under which containers and hosts have names, such as "hostmesh.internal"; "": none.
        mod_revision: etcd revision of the record, 0 when it has not been stored.
    """

    cidr: Network
    subnet_len: int
    subnet_min: Address
    subnet_max: Address
    backend: str = DEFAULT_BACKEND
    backend_options: BackendData | None = None
    accepted: BackendChoice | None = None
    previous: tuple[Network, ...] = ()
    access: Access = Access.PUBLISHED
    level: int = LEVEL_OF_0_1
    owners: bool = False
    flannel: bool = True
    etcd_closed: bool = False
    declared_networks: bool = False
    domain: str = ""
    mod_revision: int = 0

    @property
    def has_names(self) -> bool:
        """Whether name servers of each host answer its containers."""
        return bool(self.domain) and self.level >= NETWORKS_LEVEL

    @property
    def cidrs(self) -> tuple[Network, ...]:
        """Every range in which the mesh has subnets, the one for new leases first."""
        return (self.cidr, *self.previous)

    @property
    def owner_records(self) -> OwnerRecords:
        """How hosts use owner records.

        A host that reads a lower level passes over their keys. So one that joins late does not hold
        them back.
        """
        if self.owners:
            return OwnerRecords.DECIDE
        written = self.level >= OWNERS_LEVEL
        return OwnerRecords.WRITTEN if written else OwnerRecords.UNUSED

    @property
    def choices(self) -> tuple[BackendChoice, ...]:
        """The backends that hosts set up with their options, the one that they send by first."""
        sending = BackendChoice(self.backend, self.backend_options)
        return (sending,) if self.accepted is None else (sending, self.accepted)

    @property
    def backends(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(each.name for each in self.choices)

    def using(self, choice: BackendChoice) -> MeshConfig:
        """Return the config as the backend of ``choice`` reads it: its options are the config's."""
        return replace(self, backend=choice.name, backend_options=choice.data)

    def holds(self, subnet: Network) -> bool:
        """Whether a lease of ``subnet`` is a part of the mesh."""
        return any(within(subnet, each) and subnet != each for each in self.cidrs)

    def must_move(self, subnet: Network) -> bool:
        """Whether the owner of ``subnet`` has yet to take one in the new CIDR."""
        return bool(self.previous) and not within(subnet, self.cidr)


@dataclass(frozen=True, slots=True)
class Published:
    """The data of a host's backend that it publishes with its lease; as in :class:`Lease`."""

    backend: str = DEFAULT_BACKEND
    data: BackendData | None = None
    accepted: BackendChoice | None = None
    link: str = ""
    mtu: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The record that one host owns one subnet, of one family.

    Attributes:
        host_id: None for a flannel host, which has no identity but its address.
        node_address: Address on the underlay by which peers reach the host.
        claimed_s, renewed_s: Unix time written by the owner's clock; for display only,
            never for a decision (TTLs are etcd's). None for a flannel host.
        ttl_s: The etcd lease's granted TTL.
        backend_data: What the host's backend publishes (flannel: BackendData); not checked.
        accepted: The other backend by which packets reach the host while the mesh changes its own.
        link: Name of the underlay segment that the host says it is on.
        mtu: Bytes that its uplink carries, 0 when the record does not say.
        etcd_lease_id: 0 when the key has no etcd lease (a reservation made by flannel).
        create_revision, mod_revision: etcd's, for compare-and-write.
    """

    subnet: Network
    node_address: Address
    backend: str
    host_id: HostId | None = None
    host_name: str = ""
    claimed_s: float | None = None
    renewed_s: float | None = None
    ttl_s: int | None = None
    backend_data: BackendData | None = None
    accepted: BackendChoice | None = None
    link: str = ""
    mtu: int = 0
    etcd_lease_id: int = 0
    create_revision: int = 0
    mod_revision: int = 0

    @property
    def published(self) -> Published:
        """The data of the owner's backend."""
        return Published(self.backend, self.backend_data, self.accepted, self.link, self.mtu)

    def publishing(self, published: Published) -> Lease:
        """Return the lease with what its owner publishes now."""
        return replace(
            self,
            backend=published.backend,
            backend_data=published.data,
            accepted=published.accepted,
            link=published.link,
            mtu=published.mtu,
        )

    def left_s(self, now_s: float) -> float | None:
        """Return the seconds until it ends unrenewed, by its owner's clock; None for flannel's.

        Args:
            now_s: Unix time. Clocks differ, so the result is kept within the lease's own time.
        """
        if self.ttl_s is None or self.renewed_s is None:
            return None
        return min(max(0.0, self.renewed_s + self.ttl_s - now_s), float(self.ttl_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSummary:
    """The part of a heartbeat that is only shown to people. No decision depends on it.

    Attributes:
        conditions: Names of the host's conditions, the most severe first.
        containers: How many containers run there; None: its Docker does not say.
    """

    conditions: tuple[str, ...] = ()
    containers: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The short-lived key that says a host's agent is alive.

    Attributes:
        container: An address in ``subnet`` of a container that runs there and may be pinged.
        needed: What the host must reach beside the mesh; no CIDR may hold it.
        level: What its agent can read.
    """

    host_id: HostId
    host_name: str
    node_address: Address | None
    subnet: Network | None
    docker: DockerState
    agent_version: str
    boot_id: str
    started_s: float
    container: Address | None = None
    needed: tuple[Needed, ...] = ()
    level: int = LEVEL_OF_0_1
    summary: HostSummary = HostSummary()


@dataclass(frozen=True, slots=True)
class SetAside:
    """A record in etcd that is not used, and why. It costs that record, never the mesh.

    Attributes:
        key: Fit to be shown.
        lease: What it says, where it is a lease that can be read.
    """

    key: str
    reason: str
    lease: Lease | None = None
