"""Decide which objects one peer's lease gets on this host, and why not. Pure.

Promise 8 is kept here a second time: whatever a record in etcd says, no object comes out of
this module for a subnet that leaves the mesh's CIDR, meets the own subnet or the underlay, or
has its node address inside the mesh.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from agent.mesh.backends import (
    Backend,
    HostObjects,
    KernelObject,
    PeerObjects,
    ThisHost,
    TunnelPort,
    any_host,
    backend_by_name,
    backend_names,
)
from agent.mesh.liveness import probe_addresses
from agent.mesh.needed import needed_in
from agent.mesh.world import World
from agent.model import (
    BackendChoice,
    Condition,
    Lease,
    MeshConfig,
    Published,
    Route,
    Severity,
    first_few,
)
from agent.model.family import Address, Network, can_be_host, family_of, meet, reserved_ends, within

__all__ = ["PeerRules", "aggregate_routes", "on_link_ranges", "unusable_data"]


def aggregate_routes(world: World) -> tuple[Route, ...]:
    """One ``unreachable`` route for each CIDR of the mesh, behind all that is more specific.

    It covers ranges without an owner, and the own subnet until Docker's bridge has it. So neither
    ever follows the default gateway (promise 9). A mesh has one CIDR, and while it moves two.
    None where it would take the place of the default route to an address that this host needs
    (promise 8).
    """
    if world.config is None:
        return ()
    routes = map(world.unreachable, world.config.cidrs)
    return tuple(each for each in routes if not world.shuts_off(each))


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


@dataclass(frozen=True, slots=True)
class _Side:
    """One backend that this host has set up.

    Attributes:
        host: With the backend's options as the config's.
        own: What the backend needs on this host.
    """

    backend: Backend
    host: ThisHost
    own: HostObjects

    @classmethod
    def of(cls, choice: BackendChoice, host: ThisHost) -> _Side | Condition:
        """Set the backend up, or say why that cannot be."""
        backend = backend_by_name(choice.name)
        if backend is None:
            return Condition(
                name="backend-unknown",
                subject=choice.name,
                cause=f"the mesh uses backend {choice.name!r}; this agent has "
                f"{', '.join(backend_names())}",
                hint="upgrade this agent, or change Backend.Type with agentctl config",
                severity=Severity.ERROR,
            )
        host = replace(host, config=host.config.using(choice))
        try:
            own = backend.host_objects(host)
        except ValueError as error:
            own = Condition(
                name="backend-options-unusable",
                subject=choice.name,
                cause=f"the options of backend {choice.name!r} in the mesh's config are not usable:"
                f" {error}",
                hint="correct them: agentctl config set --backend NAME --backend-options KEY=VALUE",
                severity=Severity.ERROR,
            )
        return own if isinstance(own, Condition) else cls(backend, host, own)

    @property
    def published(self) -> BackendChoice:
        """The data that peers need to send by this backend."""
        return BackendChoice(self.backend.name, self.own.published)

    def can_use(self, peer: Lease) -> bool:
        """Return whether this backend can read the peer's data."""
        try:
            self.backend.peer_objects(peer, self.host)
        except ValueError:
            return False
        return True

    def objects(self, peer: Lease) -> PeerObjects | Condition:
        """Return the objects by which this backend leads to ``peer``."""
        try:
            return self.backend.peer_objects(peer, self.host)
        except ValueError as error:
            return Condition(
                name="peer-data-unusable",
                subject=str(peer.subnet),
                cause=f"what the owner of {peer.subnet}, {peer.host_name or 'a host'} at"
                f" {peer.node_address}, publishes for backend {self.backend.name!r} is not usable:"
                f" {error}",
                hint="upgrade that host, or see its record: agentctl leases -o json",
            )


def _as_of(peer: Lease, backend: str) -> Lease | None:
    """Return the lease with what its owner publishes for ``backend``, None if it does not."""
    if peer.backend == backend:
        return peer
    other = peer.accepted
    if other is None or other.name != backend:
        return None
    return replace(peer, backend=other.name, backend_data=other.data)


def unusable_data(leases: Iterable[Lease], config: MeshConfig) -> tuple[Lease, ...]:
    """Return those whose owners publish what no host can use to send by the config's backend."""
    side = _Side.of(config.choices[0], any_host(config))
    if isinstance(side, Condition):  # nothing is known of any host then
        return ()
    found = ((each, _as_of(each, side.backend.name)) for each in leases)
    return tuple(each for each, lease in found if lease is not None and not side.can_use(lease))


@dataclass(frozen=True, slots=True)
class PeerRules:
    """All of a world that one peer's objects depend on, prepared once for many peers.

    Attributes:
        sending: The backend by which this host sends: the config's.
        accepted: While the mesh changes its backend: the one that this host accepts beside it.
            A peer that does not publish for ``sending`` is reached by it.
        conditions: Why ``accepted`` could not be set up.
        ends: Addresses of the underlay that no host can have.
    """

    world: World
    host: ThisHost
    sending: _Side
    accepted: _Side | None
    conditions: tuple[Condition, ...]
    ends: tuple[Address, ...]

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
        config = world.config
        host = ThisHost(
            config=config,
            uplink=world.uplink,
            on_link=on_link_ranges(world),
            subnets=world.own_subnets,
            host_id=world.host_id,
            protocol=world.route_protocol,
            table=world.route_table,
            metric=world.route_metric,
        )
        sending, *others = (_Side.of(each, host) for each in config.choices)
        if isinstance(sending, Condition):
            return sending
        return cls(
            world,
            host,
            sending,
            next((each for each in others if isinstance(each, _Side)), None),
            conditions=tuple(each for each in others if isinstance(each, Condition)),
            ends=reserved_ends(world.uplink.on_link),
        )

    @property
    def objects(self) -> tuple[KernelObject, ...]:
        """Objects that the backends need on this host, independent of peers."""
        return tuple(each for side in self.sides for each in side.own.objects)

    @property
    def ingress(self) -> tuple[str, ...]:
        """Names of the links by which peers may deliver, and of the uplink.

        By the uplink what bears an address of the mesh comes from a peer that may deliver by it,
        or is dropped: where no peer may, all of it is.
        """
        links = (each for side in self.sides for each in side.own.ingress)
        return tuple(dict.fromkeys((*links, self.host.uplink.name)))

    @property
    def tunnels(self) -> tuple[TunnelPort, ...]:
        """UDP ports by which tunnels' packets come in."""
        return tuple(each for side in self.sides for each in side.own.ports)

    def with_side_of(self, before: PeerRules | None) -> PeerRules:
        """Return these rules, with the accepted side as it was where it cannot be set up now.

        Its links and ports stay as its objects do (promise 3).
        """
        if not self.conditions or before is None:
            return self
        names = [each.name for each in self.host.config.choices[1:]]
        kept = (each for each in before.sides if each.backend.name in names)
        return replace(self, accepted=next(kept, None))

    @property
    def sides(self) -> tuple[_Side, ...]:
        """Return the backends that are set up, the one by which this host sends first."""
        return (self.sending,) if self.accepted is None else (self.sending, self.accepted)

    def published(self, sends_by: str) -> Published:
        """Return what this host publishes.

        Args:
            sends_by: The backend by which it is known to send now; flannel hosts and operators
                see by it how far the change of a backend has come.
        """
        first, *others = (each.published for each in self.sides)
        if others and others[0].name == sends_by:
            first, others = others[0], [first]
        accepted, uplink = others[0] if others else None, self.host.uplink
        return Published(first.name, first.data, accepted, uplink.link, uplink.mtu)

    def equal_for_peers(self, other: PeerRules) -> bool:
        """Whether every peer is worth the same by both rules, but for its own death."""
        return self.host == other.host and self.world.needed == other.world.needed

    def outcome(self, peer: Lease) -> PeerObjects | Condition:
        """Return the objects that ``peer`` is worth, or why it is worth none."""
        refusal = self._refusal(peer)
        if refusal:
            return Condition(
                name="peer-refused",
                subject=str(peer.subnet),
                cause=f"the lease of {peer.subnet} at {peer.node_address} is not used: {refusal}",
                hint="the record in etcd is wrong or forged: see agentctl leases -o wide",
            )
        found = [(side, _as_of(peer, side.backend.name)) for side in self.sides]
        used = [(side, lease) for side, lease in found if lease is not None]
        if not used:
            return Condition(
                name="peer-backend-differs",
                subject=str(peer.subnet),
                cause=f"the owner of {peer.subnet} uses backend {peer.backend!r}, the mesh "
                f"{self.sending.backend.name!r}",
                hint="set that host to the mesh's backend; until then its subnet is unreachable",
            )
        outcome = _joined([(side.backend.name, side.objects(lease)) for side, lease in used])
        if peer.subnet in self.world.dead_subnets:
            outcome = self._silent(peer, outcome)
        if self.world.needed and isinstance(outcome, PeerObjects) and self._shuts_off(outcome):
            return self._shut_off(peer)
        return outcome

    def _silent(self, peer: Lease, alive: PeerObjects | Condition) -> PeerObjects:
        """Refuse packets to a peer, but those that ask whether it is back (promise 3).

        Those to its address in a tunnel still pass: behind NAT only the tunnel leads to it.
        """
        refused = self.world.unreachable(peer.subnet)
        inner = [each for each in probe_addresses(peer) if each in peer.subnet]
        if not inner or isinstance(alive, Condition):
            return PeerObjects((refused,))
        asked = family_of(inner[0]).host(inner[0])
        way = (
            replace(each, destination=asked) if isinstance(each, Route) else each
            for each in alive.objects
        )
        return replace(alive, objects=(refused, *way))

    def _shuts_off(self, wanted: PeerObjects) -> bool:
        routes = (each for each in wanted.objects if isinstance(each, Route))
        return any(map(self.world.shuts_off, routes))

    def _shut_off(self, peer: Lease) -> Condition:
        found = first_few(needed_in((peer.subnet,), self.world.needed))
        return Condition(
            name="peer-refused",
            subject=str(peer.subnet),
            cause=f"the lease of {peer.subnet} at {peer.node_address} is not used: it holds"
            f" {found}, which this host needs",
            hint="a CIDR without that address: agentctl config set --cidr CIDR --move",
        )

    def _refusal(self, peer: Lease) -> str:
        """Why promise 8 forbids anything for ``peer``, or ""."""
        subnet, cidrs, underlay = peer.subnet, self.host.config.cidrs, self.host.uplink.on_link
        if not any(within(subnet, each) for each in cidrs):
            return f"it is outside the mesh's CIDR {' or '.join(map(str, cidrs))}"
        if subnet in cidrs:
            return "it is the mesh's whole CIDR"
        if any(meet(subnet, own) for own in self.host.subnets):
            return "it overlaps this host's own subnet"
        if meet(subnet, underlay):
            return f"it overlaps the underlay {underlay}"
        return self._refusal_of(peer.node_address)

    def _refusal_of(self, node: Address) -> str:
        """Why no host of a mesh can have this node address, or ""."""
        if any(node in each for each in self.host.config.cidrs):
            return "its node address is inside the mesh's CIDR"
        if not can_be_host(node):
            return "its node address cannot be a host's"
        if node in self.ends:
            return f"its node address is an end of the underlay {self.host.uplink.on_link}"
        return ""


def _joined(answers: list[tuple[str, PeerObjects | Condition]]) -> PeerObjects | Condition:
    """Send as the first usable answer says; be ready to receive as all of them say.

    Args:
        answers: Of each backend by its name, that of the mesh's config first.
    """
    _, why = answers[0]
    usable = [(name, each) for name, each in answers if isinstance(each, PeerObjects)]
    if not usable:
        return why
    (name, first), *others = usable
    ready = (each for _, other in others for each in other.objects if not isinstance(each, Route))
    ingress = tuple(dict.fromkeys(link for _, answer in usable for link in answer.ingress))
    condition = None
    if isinstance(why, Condition):
        cause = f"{why.cause}; {name} is used until the change of backend ends"
        condition = replace(why, cause=cause)
    return PeerObjects((*first.objects, *ready), ingress, condition)
