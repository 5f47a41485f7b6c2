"""What the kernel's routes should be: a pure function of the world, peer by peer.

:func:`desired_routes` is the full pass. It is nothing but :func:`aggregate_routes` and
:class:`PeerRules` applied to each peer, so that one peer's change can be computed alone
(:mod:`agent.mesh.delta`) and still be what a full pass would say.

Promise 8 is kept here a second time: whatever a record in etcd says, no route comes out of
this module that leaves the mesh's CIDR, meets the own subnet or the underlay, or points at a
gateway inside the mesh.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from agent.mesh.backends import RouteBackend, backend_by_name, backend_names
from agent.mesh.needed import needed_in
from agent.mesh.world import World
from agent.model import (
    Condition,
    Lease,
    MeshConfig,
    Route,
    RouteKey,
    RouteKind,
    Severity,
    Uplink,
    name_needed,
    summarise,
)
from agent.model.family import Address, Network

__all__ = ["DesiredRoutes", "PeerRules", "aggregate_routes", "desired_routes", "on_link_ranges"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredRoutes:
    """The routes this host should hold, and what stands in the way of more.

    Attributes:
        routes: By the kernel's key; the aggregate comes first.
        conditions: What the operator should know, bounded (:mod:`agent.model.condition`).
        certain: Nothing is missing from the world that would bring more routes. False before
            the first complete view, and while config or uplink are unknown: then absence from
            ``routes`` means nothing and no route may be deleted because of it.
    """

    routes: Mapping[RouteKey, Route] = field(default_factory=lambda: MappingProxyType({}))
    conditions: tuple[Condition, ...] = ()
    certain: bool = False


def desired_routes(world: World) -> DesiredRoutes:
    """The full pass: every route this host should hold in ``world``."""
    routes = {route.key: route for route in aggregate_routes(world)}
    rules = PeerRules.of(world)
    if isinstance(rules, Condition):
        return DesiredRoutes(routes=MappingProxyType(routes), conditions=(rules,))
    conditions: list[Condition] = []
    for peer in world.peers.values():
        outcome = rules.outcome(peer)
        if isinstance(outcome, Route):
            routes[outcome.key] = outcome
        else:
            conditions.append(outcome)
    return DesiredRoutes(
        routes=MappingProxyType(routes),
        conditions=summarise(conditions),
        certain=world.complete,
    )


def aggregate_routes(world: World) -> tuple[Route, ...]:
    """One ``unreachable`` route for each CIDR of the mesh, behind all that is more specific.

    It covers what nobody owns and the own subnet until Docker's bridge has it, so that neither
    ever follows the default gateway (promise 9). A mesh has one CIDR, and while it moves two.
    None where it would take the place of the default route to an address that this host needs
    (promise 8).
    """
    if world.config is None:
        return ()
    routes = (_unreachable(world, each) for each in world.config.cidrs)
    return tuple(each for each in routes if not world.shuts_off(each))


def _unreachable(world: World, destination: Network) -> Route:
    return Route(
        destination=destination,
        kind=RouteKind.UNREACHABLE,
        protocol=world.route_protocol,
        table=world.route_table,
        metric=world.route_metric,
    )


_SCOPE_LINK: Final = 253
"""RT_SCOPE_LINK of linux/rtnetlink.h: the destination is on the link, no gateway between."""


def on_link_ranges(world: World) -> tuple[Network, ...]:
    """Every range that the uplink reaches without a gateway, that of the node address first.

    Another route of the uplink may say so: a second address, or a cloud's /32 set-up. All that
    peers' routes depend on of the host's foreign routes.
    """
    uplink = world.uplink
    if uplink is None:
        return ()
    others = (
        route.destination
        for route in (world.host.foreign_routes if world.host else ())
        if route.link == uplink.name
        and route.scope == _SCOPE_LINK
        and route.gateway is None
        and route.destination.prefixlen > 0
    )
    return tuple(dict.fromkeys((uplink.on_link, *others)))


_Span = tuple[int, int]
"""First and last address of a range. Integers: networks compare a hundred times slower."""


def _span(network: Network) -> _Span:
    first = int(network.network_address)
    return first, first + (1 << (32 - network.prefixlen)) - 1


def _meet(one: _Span, other: _Span) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


@dataclass(frozen=True, slots=True)
class PeerRules:
    """All of a world that one peer's route depends on, prepared once for many peers."""

    world: World
    config: MeshConfig
    uplink: Uplink
    backend: RouteBackend
    cidr_spans: tuple[_Span, ...]
    own_spans: tuple[_Span, ...]
    on_link: tuple[Network, ...]
    underlay_span: _Span

    @classmethod
    def of(cls, world: World) -> PeerRules | Condition:
        """The rules of ``world``, or the condition that keeps it from routing to any peer."""
        if world.config is None:
            return Condition(
                name="mesh-config-missing",
                cause="the mesh's config is not known, so no peer can be routed to",
                hint="create it with agentctl config init, or see whether etcd is reachable",
                severity=Severity.ERROR,
            )
        if world.uplink is None:
            return Condition(
                name="uplink-missing",
                cause="no interface carries a node address, so no peer can be routed to",
                hint="bring the uplink up, or name it in agent.toml",
                severity=Severity.ERROR,
            )
        backend = backend_by_name(world.config.backend)
        if backend is None:
            return Condition(
                name="backend-unknown",
                subject=world.config.backend,
                cause=f"the mesh uses backend {world.config.backend!r}; this agent has "
                f"{', '.join(backend_names())}",
                hint="upgrade this agent, or change Backend.Type with agentctl config",
                severity=Severity.ERROR,
            )
        return cls(
            world=world,
            config=world.config,
            uplink=world.uplink,
            backend=backend,
            cidr_spans=tuple(map(_span, world.config.cidrs)),
            own_spans=tuple(map(_span, world.own_subnets)),
            on_link=on_link_ranges(world),
            underlay_span=_span(world.uplink.on_link),
        )

    def outcome(self, peer: Lease) -> Route | Condition:
        """The one route that ``peer`` is worth, or why it is worth none."""
        refusal = self._refusal(peer)
        if refusal:
            return Condition(
                name="peer-refused",
                subject=str(peer.subnet),
                cause=f"the lease of {peer.subnet} at {peer.node_address} is not used: {refusal}",
                hint="the record in etcd is wrong or forged: see agentctl leases -o wide",
            )
        if peer.backend != self.config.backend:
            return Condition(
                name="peer-backend-differs",
                subject=str(peer.subnet),
                cause=f"the owner of {peer.subnet} uses backend {peer.backend!r}, the mesh "
                f"{self.config.backend!r}",
                hint="set that host to the mesh's backend; until then its subnet is unreachable",
            )
        if peer.subnet in self.world.dead_subnets:
            outcome: Route | Condition = _unreachable(self.world, peer.subnet)
        else:
            outcome = self.backend.peer_route(peer, self.on_link, self.uplink, self.world)
        if self.world.needed and isinstance(outcome, Route) and self.world.shuts_off(outcome):
            return self._shut_off(peer)
        return outcome

    def _shut_off(self, peer: Lease) -> Condition:
        found = name_needed(needed_in((peer.subnet,), self.world.needed))
        return Condition(
            name="peer-refused",
            subject=str(peer.subnet),
            cause=f"the lease of {peer.subnet} at {peer.node_address} is not used: it holds"
            f" {found}, which this host needs",
            hint="a CIDR without that address: agentctl config set --cidr CIDR --move",
        )

    def _refusal(self, peer: Lease) -> str:
        """Why promise 8 forbids a route to ``peer``, or ""."""
        span = _span(peer.subnet)
        if span in self.cidr_spans:
            return "it is the mesh's whole CIDR"
        if not any(low <= span[0] and span[1] <= high for low, high in self.cidr_spans):
            return f"it is outside the mesh's CIDR {' or '.join(map(str, self.config.cidrs))}"
        if any(_meet(span, own) for own in self.own_spans):
            return "it overlaps this host's own subnet"
        if _meet(span, self.underlay_span):
            return f"it overlaps the underlay {self.uplink.on_link}"
        gateway = int(peer.node_address)
        if any(low <= gateway <= high for low, high in self.cidr_spans):
            return "its node address is inside the mesh's CIDR"
        return _unusable_gateway(peer.node_address, gateway, self.uplink.on_link)


_THIS_NETWORK_END: Final = 1 << 24
_LOOPBACK: Final = 127
_MULTICAST_START: Final = 224 << 24
_ADDRESSES_WITHOUT_ENDS: Final = 31
"""From /31 on every address is a host's (RFC 3021)."""


def _unusable_gateway(address: Address, value: int, on_link: Network) -> str:
    """Why no host can have this address: RFC 1122 section 3.2.1.3, or the link's own ends."""
    if value < _THIS_NETWORK_END or value >= _MULTICAST_START or value >> 24 == _LOOPBACK:
        return "its node address cannot be a host's"
    if on_link.prefixlen < _ADDRESSES_WITHOUT_ENDS and address in (
        on_link.network_address,
        on_link.broadcast_address,
    ):
        return f"its node address is an end of the underlay {on_link}"
    return ""
