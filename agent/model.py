"""The values every room shares. Frozen, comparable, free of I/O and of clocks.

Words are those of docs/architecture.md ("Words"): a *subnet* is the part of the mesh's
CIDR that one host's containers live in, a *lease* is the record in etcd that one host
owns one subnet, a *heartbeat* is the short-lived key that says the agent is alive.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import MappingProxyType
from typing import NewType, overload

from agent.sharedmap import SharedMap

__all__ = [
    "OWN_BRIDGE",
    "Access",
    "Backend",
    "Condition",
    "DockerFacts",
    "DockerNetwork",
    "DockerState",
    "Heartbeat",
    "HostFacts",
    "HostId",
    "Lease",
    "Leases",
    "Link",
    "MeshConfig",
    "Route",
    "RouteKind",
    "SetAside",
    "Severity",
    "Uplink",
    "View",
    "within",
]

HostId = NewType("HostId", str)
"""32 hex digits: HMAC-SHA256 of machine-id keyed for this application, per machine-id(5)."""


OWN_BRIDGE = "hostmesh0"
"""The Linux bridge of the Docker network that is ours (``docker.attach = "network"``)."""


def within(subnet: IPv4Network, cidr: IPv4Network) -> bool:
    """Whether all of ``subnet`` lies in ``cidr``.

    ``IPv4Network.subnet_of`` says the same and leaves 400 bytes in the subnet, the cached last
    address: 26 MB in a mesh of 65,000.
    """
    differing = int(subnet.network_address) ^ int(cidr.network_address)
    return subnet.prefixlen >= cidr.prefixlen and differing >> (32 - cidr.prefixlen) == 0


class Backend(enum.StrEnum):
    """How packets travel between hosts; flannel's names."""

    HOST_GW = "host-gw"


class Access(enum.StrEnum):
    """How much of a Docker network other hosts of the mesh reach, widest first."""

    OPEN = "open"
    PUBLISHED = "published"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshConfig:
    """``<prefix>/config``, validated: what every host of the mesh agrees on.

    Attributes:
        cidr: The range all subnets come from (flannel: Network).
        subnet_len: Prefix length of each new lease (flannel: SubnetLen), /12 to /30.
        subnet_min: Network address of the first subnet that may be leased.
        subnet_max: Network address of the last subnet that may be leased.
        backend: flannel's Backend.Type as written; kept as text because a mesh may name
            a backend this version does not have, which is a condition, not an error.
        previous: CIDRs that the mesh moves away from: leases in them are used and routed, no
            new subnet comes from them. They may overlap ``cidr`` (a mesh that shrinks).
        access: How open user-defined Docker networks are that do not say so themselves.
        mod_revision: etcd revision of the record, 0 when it has not been stored.
    """

    cidr: IPv4Network
    subnet_len: int
    subnet_min: IPv4Address
    subnet_max: IPv4Address
    backend: str = Backend.HOST_GW
    previous: tuple[IPv4Network, ...] = ()
    access: Access = Access.PUBLISHED
    mod_revision: int = 0

    @property
    def cidrs(self) -> tuple[IPv4Network, ...]:
        """Every range in which the mesh has subnets, the one for new leases first."""
        return (self.cidr, *self.previous)

    def holds(self, subnet: IPv4Network) -> bool:
        """Whether a lease of ``subnet`` is a part of the mesh."""
        return any(within(subnet, each) and subnet != each for each in self.cidrs)

    def must_move(self, subnet: IPv4Network) -> bool:
        """Whether the owner of ``subnet`` has yet to take one in the new CIDR."""
        return bool(self.previous) and not within(subnet, self.cidr)


class DockerState(enum.StrEnum):
    """Whether a host's Docker has the subnet; carried in its heartbeat."""

    READY = "ready"
    PENDING = "pending"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The record that one host owns one subnet.

    Attributes:
        host_id: None for a flannel host, which has no identity but its address.
        node_address: Address on the underlay by which peers reach the host.
        claimed_s, renewed_s: Unix time written by the owner's clock; for display only,
            never for a decision (TTLs are etcd's). None for a flannel host.
        ttl_s: The etcd lease's granted TTL.
        etcd_lease_id: 0 when the key has no etcd lease (a reservation made by flannel).
        create_revision, mod_revision: etcd's, for compare-and-write.
    """

    subnet: IPv4Network
    node_address: IPv4Address
    backend: str
    host_id: HostId | None = None
    host_name: str = ""
    claimed_s: float | None = None
    renewed_s: float | None = None
    ttl_s: int | None = None
    etcd_lease_id: int = 0
    create_revision: int = 0
    mod_revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The short-lived key that says a host's agent is alive."""

    host_id: HostId
    host_name: str
    node_address: IPv4Address | None
    subnet: IPv4Network | None
    docker: DockerState
    agent_version: str
    boot_id: str
    started_s: float


@dataclass(frozen=True, slots=True)
class SetAside:
    """A record in etcd that is not used, and why. It costs that record, never the mesh."""

    key: str
    reason: str


class Leases(Sequence[Lease]):
    """Leases in order of subnet, one for each subnet at most, found by subnet or by host.

    Immutable; what :meth:`changed` makes shares all that did not change.

    Args:
        leases: In any order.
    """

    __slots__ = ("_by_host", "_in_order", "by_subnet")

    def __init__(self, leases: Iterable[Lease] = ()) -> None:
        self.by_subnet: SharedMap[IPv4Network, Lease] = SharedMap(
            {lease.subnet: lease for lease in leases}
        )
        """Every lease by its subnet."""
        self._by_host: SharedMap[HostId, Lease | tuple[Lease, ...]] = SharedMap(
            _by_host(self.by_subnet.values())
        )
        self._in_order: tuple[Lease, ...] | None = None

    def of(self, host_id: HostId) -> tuple[Lease, ...]:
        """Every lease of a host: one, but for a record that somebody forged."""
        found: Lease | tuple[Lease, ...] = self._by_host.get(host_id, ())
        return (found,) if isinstance(found, Lease) else found

    def changed(self, changes: Mapping[IPv4Network, Lease | None]) -> Leases:
        """Make leases with these instead; None takes a subnet's lease away."""
        by_subnet = self.by_subnet.changed(changes)
        if by_subnet is self.by_subnet:
            return self
        found = [*map(self.by_subnet.get, changes), *changes.values()]
        hosts = {each.host_id for each in found if each is not None and each.host_id is not None}
        owned: dict[HostId, Lease | tuple[Lease, ...] | None] = dict.fromkeys(hosts)
        kept = [lease for host in hosts for lease in self.of(host) if lease.subnet not in changes]
        owned.update(_by_host((*kept, *filter(None, changes.values()))))
        made: Leases = Leases.__new__(Leases)
        made.by_subnet = by_subnet
        made._by_host = self._by_host.changed(owned)
        made._in_order = None
        return made

    def _sorted(self) -> tuple[Lease, ...]:
        if self._in_order is None:
            self._in_order = tuple(sorted(self.by_subnet.values(), key=_place_of))
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

    __hash__ = None  # type: ignore[assignment]  # large; nobody needs it

    def __repr__(self) -> str:
        return f"Leases({self._sorted()!r})"


def _place_of(lease: Lease) -> tuple[int, int]:
    return int(lease.subnet.network_address), lease.subnet.prefixlen


def _by_host(leases: Iterable[Lease]) -> dict[HostId, Lease | tuple[Lease, ...]]:
    """Each host's lease, by itself: a tuple around each would take 4 MB at 65,000 hosts."""
    found: dict[HostId, Lease | tuple[Lease, ...]] = {}
    for lease in leases:
        if lease.host_id is not None:
            before = found.get(lease.host_id)
            if before is None:
                found[lease.host_id] = lease
            else:
                others = (before,) if isinstance(before, Lease) else before
                found[lease.host_id] = (*others, lease)
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
        heartbeats, memory: Always a SharedMap, whatever mapping was given.
        memory: Last subnet of each host that held one in the last 30 days.
        reservations: Subnets only the named host may claim.
        clones: Hosts that found their identity in use by another, as they say of themselves.
        cached: From the host's own copy of the last complete view, while etcd is away.
    """

    cluster_id: int
    revision: int
    config: MeshConfig | None = None
    config_problem: str = ""
    leases: Sequence[Lease] = ()
    heartbeats: Mapping[HostId, Heartbeat] = field(default_factory=SharedMap)
    memory: Mapping[HostId, IPv4Network] = field(default_factory=SharedMap)
    reservations: Mapping[IPv4Network, HostId] = field(default_factory=lambda: MappingProxyType({}))
    clones: tuple[Heartbeat, ...] = ()
    set_aside: tuple[SetAside, ...] = ()
    cached: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.leases, Leases):
            object.__setattr__(self, "leases", Leases(self.leases))
        for name in ("heartbeats", "memory"):
            given = getattr(self, name)
            if not isinstance(given, SharedMap):
                object.__setattr__(self, name, SharedMap(given))

    @property
    def by_subnet(self) -> SharedMap[IPv4Network, Lease]:
        """Every lease by its subnet."""
        return _leases_of(self).by_subnet

    def leases_of(self, host_id: HostId) -> tuple[Lease, ...]:
        """Every lease of a host: one, but for a record that somebody forged."""
        return _leases_of(self).of(host_id)

    def lease_of(self, host_id: HostId) -> Lease | None:
        """The lease that ``host_id`` owns in this view, or None."""
        return next(iter(self.leases_of(host_id)), None)


def _leases_of(view: View) -> Leases:
    return view.leases if isinstance(view.leases, Leases) else Leases(view.leases)


class RouteKind(enum.StrEnum):
    """Route types Hostmesh writes (rtnetlink(7) rtm_type)."""

    UNICAST = "unicast"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One IPv4 route as the kernel keeps it.

    The kernel's key is (table, destination, tos, metric); protocol says who wrote it.
    Attributes ``gateway``, ``oif`` (interface index) and ``prefsrc`` are None when absent.
    """

    destination: IPv4Network
    kind: str = RouteKind.UNICAST
    gateway: IPv4Address | None = None
    oif: int | None = None
    prefsrc: IPv4Address | None = None
    protocol: int = 0
    table: int = 254
    metric: int = 0
    tos: int = 0
    scope: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface. ``kind`` is IFLA_INFO_KIND ("bridge", "veth", ...), "" for hardware."""

    index: int
    name: str
    kind: str
    up: bool
    mtu: int
    mac: str
    addresses: tuple[IPv4Interface, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the kernel says about this host: links with addresses, and every route not ours."""

    links: tuple[Link, ...]
    foreign_routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """The interface that carries the node address, with the node address and its on-link range."""

    index: int
    name: str
    mtu: int
    node_address: IPv4Address
    on_link: IPv4Network


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerNetwork:
    """A Docker network of driver ``bridge`` with an IPv4 subnet.

    Attributes:
        bridge: Name of its Linux bridge ("docker0", "br-0123456789ab").
        internal: Created with --internal.
        default: Docker's own network "bridge", on docker0.
    """

    id: str
    name: str
    bridge: str
    subnet: IPv4Network
    internal: bool = False
    default: bool = False
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerFacts:
    """What the engine says of itself now, or that it does not answer.

    Attributes:
        reachable: The API answered within its deadline.
        version: Engine version such as "26.1.5", "" when unknown.
        bridge: docker0's network, None when the engine has none.
        networks: All bridge networks, ``bridge`` included.
        running: Names of containers running, paused or restarting.
        firewall_backend: "iptables", "nftables" (29 and later) or "" when unknown.
        live_restore: The engine's live-restore as in GET /info.
        problem: Why it is not reachable.
    """

    reachable: bool
    version: str = ""
    bridge: DockerNetwork | None = None
    networks: tuple[DockerNetwork, ...] = ()
    pools: tuple[tuple[IPv4Network, int], ...] = ()
    running: tuple[str, ...] = ()
    firewall_backend: str = ""
    live_restore: bool = False
    problem: str = ""


class Severity(enum.StrEnum):
    """How much a condition matters: an error keeps the host from doing its part of the mesh."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Something the operator should know, the same in status, metrics and log.

    Attributes:
        name: Kebab-case, stable, documented in docs/conditions.md.
        subject: What it is about, so that two of one name can stand side by side.
        cause: What is the case, with values.
        hint: What to do about it.
    """

    name: str
    cause: str
    hint: str
    subject: str = ""
    severity: Severity = Severity.WARNING
