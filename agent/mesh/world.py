"""The immutable world that desired state is computed from.

The daemon's loop folds every event into a new :class:`World`; this package reads nothing else.
There is no clock here: values that depend on time arrive as a part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from agent.model import (
    DockerFacts,
    HostFacts,
    HostId,
    Lease,
    MeshConfig,
    Need,
    Needed,
    Route,
    RouteKind,
    Uplink,
    View,
)
from agent.model.family import Address, Network
from agent.model.network import MeshNetwork, NetworkSlice
from agent.sharedmap import SharedMap

__all__ = [
    "MAIN_TABLE",
    "ROUTE_PROTOCOL",
    "World",
    "peers_by_subnet",
    "peers_of_view",
    "protocol_name",
]

ROUTE_PROTOCOL: Final = 140
"""Default rtm_protocol of the agent's routes: no other program of iproute2's rt_protos uses it."""

MAIN_TABLE: Final = 254
"""RT_TABLE_MAIN of linux/rtnetlink.h."""

_PROTOCOL_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "unspec", 1: "redirect", 2: "kernel", 3: "boot", 4: "static", 8: "gated", 9: "ra",
        10: "mrt", 11: "zebra", 12: "bird", 13: "dnrouted", 14: "xorp", 15: "ntk", 16: "dhcp",
        17: "mrouted", 18: "keepalived", 42: "babel", 84: "ovn", 99: "openr", 186: "bgp",
        187: "isis", 188: "ospf", 189: "rip", 192: "eigrp",
    }
)  # fmt: skip


def protocol_name(protocol: int) -> str:
    """Name the writer of routes with this rtm_protocol: ``"dhcp (16)"``, or ``"protocol 77"``.

    The names are RTPROT_* of linux/rtnetlink.h, as ``ip route`` prints them.
    """
    name = _PROTOCOL_NAMES.get(protocol)
    return f"{name} ({protocol})" if name else f"protocol {protocol}"


def peers_by_subnet(leases: Iterable[Lease], own: Lease | None) -> Mapping[Network, Lease]:
    """Return every lease that is not this host's, by subnet.

    A lease counts as this host's by identity or by subnet: while a claim is being renewed the
    two may differ for a moment, and a route to the own subnet must not come from either.
    """
    return MappingProxyType(
        {
            lease.subnet: lease
            for lease in leases
            if own is None
            or not (
                lease.subnet == own.subnet
                or (own.host_id is not None and lease.host_id == own.host_id)
            )
        }
    )


def peers_of_view(view: View, own: Lease) -> Mapping[Network, Lease]:
    """As :func:`peers_by_subnet` of a view's leases; it shares with other views what they share."""
    owned = () if own.host_id is None else view.leases_of(own.host_id)
    return view.by_subnet.changed({own.subnet: None, **{each.subnet: None for each in owned}})


_UNKNOWN_HOST: Final = HostId("")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that desired state depends on, at one moment.

    Attributes:
        host_id: This host, "" while it is not known.
        config: The mesh's; None while it is not known.
        own: This host's lease; None before the first claim and after leaving.
        former: While the mesh moves to another CIDR: the lease that this host had before and
            still holds, since Docker has networks in it.
        peers: Every other lease, keyed by subnet (see :func:`peers_by_subnet`).
        uplink: The interface that carries the node address; None while there is none.
        host: The kernel's facts at the last look; None before the first.
        docker: The engine's facts at the last look; None before the first.
        slices: Each host's part of each mesh network, as the hosts say.
        networks: The operator's records of mesh networks.
        allowed_networks: Patterns of names of the mesh networks that this host takes part in.
        complete: A complete view from etcd was seen in this run of the agent. Nothing is deleted
            before (promise 4); a host's own copy of an earlier view does not count.
        dead_subnets: Subnets of peers whose heartbeat is known to have lapsed and that answer
            no probe (promise 3's one exception): unreachable until they answer.
        closed_endpoints: Addresses and ports of etcd that containers are kept from. Loopback is the
            etcd of this host.
        route_protocol: rtm_protocol of the agent's routes.
        route_table: Their table.
        route_metric: Their priority, 0 as with ``ip route add``.
    """

    host_id: HostId = _UNKNOWN_HOST
    config: MeshConfig | None = None
    own: Lease | None = None
    former: Lease | None = None
    peers: Mapping[Network, Lease] = field(default_factory=lambda: MappingProxyType({}))
    uplink: Uplink | None = None
    host: HostFacts | None = None
    docker: DockerFacts | None = None
    slices: Mapping[tuple[HostId, str], NetworkSlice] = field(default_factory=SharedMap)
    networks: Mapping[str, MeshNetwork] = field(default_factory=SharedMap)
    allowed_networks: tuple[str, ...] = ("*",)
    complete: bool = False
    dead_subnets: frozenset[Network] = frozenset()
    closed_endpoints: tuple[tuple[Address, int], ...] = ()
    route_protocol: int = ROUTE_PROTOCOL
    route_table: int = MAIN_TABLE
    route_metric: int = 0

    @property
    def needed(self) -> tuple[Needed, ...]:
        """Addresses beside the mesh that this host must reach."""
        return self.host.needed if self.host else ()

    def shuts_off(self, route: Route) -> bool:
        """Whether ``route``, one of the agent's, would lead a needed address away.

        A resolver may be a container of the mesh: the route to its host is no harm then.
        """
        unreachable = route.kind == RouteKind.UNREACHABLE
        return any(
            each.address in route.destination and (unreachable or each.need is not Need.RESOLVER)
            for each in self.needed
        )

    def unreachable(self, destination: Network) -> Route:
        """Return a route of the agent's that refuses packets at once."""
        return Route(
            destination=destination,
            kind=RouteKind.UNREACHABLE,
            protocol=self.route_protocol,
            table=self.route_table,
            metric=self.route_metric,
        )

    @property
    def own_subnets(self) -> tuple[Network, ...]:
        """Every subnet that is this host's, the one for new networks first."""
        return tuple(each.subnet for each in (self.own, self.former) if each is not None)
