"""Every object that this host should hold, followed peer by peer. Pure.

:class:`DesiredObjects` follows the world at the cost of what changed: one peer's change costs
one call of the backend, whatever the size of the mesh. :func:`desired_objects` is the same for
one world alone; a stateful property test holds the two together.

Several peers may want one key. Two leases of one host share its neighbour and its forwarding
entry; a forged record may name another host's MAC. The lowest subnet has the key, this host's
own objects come before every peer's, and the key goes when the last that wants it goes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Any, cast

from agent.mesh.backends import KernelObject
from agent.mesh.peer_rules import PeerRules, aggregate_routes
from agent.mesh.world import World
from agent.model import Condition, Lease, Route, RouteKey, summarise
from agent.model.family import Address, Network, family_of, is_host, network_order
from agent.reconcile.objects import V
from agent.sharedmap import changed_keys

__all__ = [
    "Changes",
    "DesiredObjects",
    "DesiredRoutes",
    "IngressMember",
    "desired_objects",
    "desired_routes",
]


@dataclass(frozen=True, slots=True)
class IngressMember:
    """A range from which packets may come in by a link: a peer's subnet or node address."""

    link: str
    network: Network

    @property
    def key(self) -> IngressMember:
        """A member has nothing but its key."""
        return self

    def __str__(self) -> str:
        return f"{self.network} by {self.link}"


_Object = KernelObject | IngressMember
_Owner = Network | None
"""The subnet of the lease that wants an object; None: this host itself."""
_Place = tuple[type[_Object], Hashable]


@dataclass(frozen=True, slots=True)
class Changes:
    """Where desired objects differ from those before, by kind and key.

    Attributes:
        by_kind: None for a key under which nothing is desired any more.
        known_gone: The objects before came from a complete view of etcd: the end of each that is
            desired no more was seen in this run of the agent.
    """

    by_kind: Mapping[type[_Object], Mapping[Hashable, _Object | None]]
    known_gone: bool

    def of(self, kind: type[V]) -> Mapping[Any, V | None]:
        """Return the changes of one kind."""
        found = cast("Mapping[type[V], Mapping[Any, V | None]]", self.by_kind)
        return found.get(kind, {})

    def __bool__(self) -> bool:
        return bool(self.by_kind)


class DesiredObjects:
    """What should be there. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._world = World()
        self._rules = PeerRules.of(self._world)
        self._wants: dict[_Owner, tuple[_Object, ...]] = {}
        self._owners: dict[type[_Object], dict[Hashable, tuple[_Owner, ...]]] = {}
        """Every owner of each key, the one that has it first."""
        self._refused: dict[Network, Condition] = {}
        self._clashes: dict[_Place, tuple[Condition, ...]] = {}
        self._summary: tuple[Condition, ...] | None = None
        self._ingress: Mapping[str, frozenset[Network]] | None = None
        self._gateways: frozenset[Address] | None = None

    @property
    def certain(self) -> bool:
        """Whether nothing is missing from the world that would bring more objects.

        False before the first complete view, and while config, uplink or backend are unknown:
        then absence means nothing, and nothing may be deleted because of it.
        """
        return isinstance(self._rules, PeerRules) and self._world.complete

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What the operator should know, bounded."""
        if isinstance(self._rules, Condition):
            return (self._rules,)
        if self._summary is None:
            self._summary = summarise(chain(self._refused.values(), *self._clashes.values()))
        return self._summary

    @property
    def ingress(self) -> Mapping[str, frozenset[Network]]:
        """Ranges from which packets may come in now, by name of the link they come in by.

        A link by which no peer delivers now has none. The same object while nothing changes.
        """
        if self._ingress is None:
            own = self._rules.own.ingress if isinstance(self._rules, PeerRules) else ()
            found: dict[str, set[Network]] = {link: set() for link in own}
            for member in self.of(IngressMember).values():
                found.setdefault(member.link, set()).add(member.network)
            self._ingress = {link: frozenset(networks) for link, networks in found.items()}
        return self._ingress

    @property
    def gateways(self) -> frozenset[Address]:
        """Node addresses of the peers that may deliver; the same object while none changes."""
        if self._gateways is None:
            found = (each.network for each in self.of(IngressMember))
            self._gateways = frozenset(each.network_address for each in found if is_host(each))
        return self._gateways

    def count(self, kind: type[V]) -> int:
        """Return how many objects of one kind are desired."""
        return len(self._owners.get(cast("type[_Object]", kind), ()))

    def of(self, kind: type[V]) -> dict[Any, V]:
        """Return everything that is desired of one kind, by key. Made anew each time."""
        asked = cast("type[_Object]", kind)
        keys = self._owners.get(asked, {})
        return {key: cast("V", self._at((asked, key))) for key in keys}

    def follow(self, world: World) -> Changes:
        """Follow the world. Costs what changed, when peers and deaths are all that did.

        Leases that stayed the same should be the same objects as before, in a ``SharedMap``;
        where they are not, they are computed anew, which costs time but changes nothing.
        """
        before, self._world = self._world, world
        old_rules, rules = self._rules, PeerRules.of(world)
        self._rules = rules
        changed: dict[_Place, _Object | None] = {}
        if (
            isinstance(rules, PeerRules)
            and isinstance(old_rules, PeerRules)
            and rules.equal_for_peers(old_rules)
        ):
            subnets = changed_keys(before.peers, world.peers)
            subnets |= before.dead_subnets ^ world.dead_subnets
        else:
            owners = (*self._wants, *self._refused, *world.peers)
            subnets = {each for each in owners if each is not None}
            self._ingress = None
            self._want(None, _of_this_host(world, rules), changed)
        for subnet in subnets:
            self._follow_peer(subnet, rules, changed)
        return self._changes(changed, known_gone=before.complete)

    def _follow_peer(
        self,
        subnet: Network,
        rules: PeerRules | Condition,
        changed: dict[_Place, _Object | None],
    ) -> None:
        """Follow one peer; its lease may be known to be gone."""
        if self._refused.pop(subnet, None) is not None:
            self._summary = None
        peer = self._world.peers.get(subnet)
        wanted: tuple[_Object, ...] = ()
        if peer is not None and isinstance(rules, PeerRules):
            outcome = rules.outcome(peer)
            if isinstance(outcome, Condition):
                self._refused[subnet] = outcome
                self._summary = None
            else:
                sources = (subnet, family_of(peer.node_address).host(peer.node_address))
                members = (
                    IngressMember(link, each) for link in outcome.ingress for each in sources
                )
                wanted = (*outcome.objects, *members)
        self._want(subnet, wanted, changed)

    def _want(
        self,
        owner: _Owner,
        wanted: tuple[_Object, ...],
        changed: dict[_Place, _Object | None],
    ) -> None:
        """Let ``owner`` want these objects and no others.

        Args:
            changed: Takes what was desired before under each key that may differ.
        """
        old = self._wants.get(owner, ())
        if wanted == old:
            return
        places = dict.fromkeys(map(_place_of, old), False)
        places.update((place, True) for place in map(_place_of, wanted))
        for place in places:
            if place not in changed:
                changed[place] = self._at(place)
        if wanted:
            self._wants[owner] = wanted
        else:
            del self._wants[owner]
        for place, owns in places.items():
            self._own(place, owner, owns=owns)

    def _own(self, place: _Place, owner: _Owner, *, owns: bool) -> None:
        """Note whether ``owner`` is one of those that want something at a place."""
        kind, key = place
        keys = self._owners.setdefault(kind, {})
        owners = tuple(each for each in keys.get(key, ()) if each != owner)
        if owns:
            owners = (*owners, owner)
            owners = owners if len(owners) == 1 else tuple(sorted(owners, key=_precedence))
        if owners:
            keys[key] = owners
        else:
            keys.pop(key, None)

    def _wanted_by(self, owner: _Owner, place: _Place) -> _Object:
        return next(each for each in self._wants[owner] if _place_of(each) == place)

    def _at(self, place: _Place) -> _Object | None:
        """Return what is desired at a place."""
        kind, key = place
        owners = self._owners.get(kind, {}).get(key)
        return self._wanted_by(owners[0], place) if owners else None

    def _changes(self, before: Mapping[_Place, _Object | None], *, known_gone: bool) -> Changes:
        """Compare what is desired with what was, at the places that may differ."""
        by_kind: dict[type[_Object], dict[Hashable, _Object | None]] = {}
        for place, was in before.items():
            now = self._at(place)
            if now != was:
                kind, key = place
                by_kind.setdefault(kind, {})[key] = now
            self._settle_clash(place, now)
        if IngressMember in by_kind:
            self._ingress = self._gateways = None
        return Changes(by_kind, known_gone)

    def _settle_clash(self, place: _Place, used: _Object | None) -> None:
        """Note where owners of one key want different objects under it."""
        kind, key = place
        owners = self._owners[kind].get(key, ())
        clashes = tuple(
            _clash(owners[0], used, owner, wanted)
            for owner in owners[1:]
            if (wanted := self._wanted_by(owner, place)) != used
        )
        if clashes:
            self._clashes[place] = clashes
            self._summary = None
        elif self._clashes.pop(place, None) is not None:
            self._summary = None


def _clash(first: _Owner, used: object, owner: _Owner, wanted: object) -> Condition:
    return Condition(
        name="peer-conflict",
        subject=str(owner),
        cause=f"{first or 'this host'} and {owner} claim one object:"
        f" {used} is used, {wanted} is not",
        hint="two hosts publish the same data, or a record is forged: see agentctl leases -o wide",
    )


def _place_of(each: _Object) -> _Place:
    return type(each), each.key


def _precedence(owner: _Owner) -> tuple[int, ...]:
    """Sort this host before every peer, and peers by subnet."""
    return () if owner is None else network_order(owner)


def _members(peer: Lease, links: Iterable[str]) -> Iterator[IngressMember]:
    sources = (peer.subnet, family_of(peer.node_address).host(peer.node_address))
    return (IngressMember(link, each) for link in links for each in sources)


def _of_this_host(world: World, rules: PeerRules | Condition) -> tuple[_Object, ...]:
    own = rules.own.objects if isinstance(rules, PeerRules) else ()
    return (*aggregate_routes(world), *own)


def desired_objects(world: World) -> DesiredObjects:
    """Return every object that this host should hold in ``world``, computed at once."""
    desired = DesiredObjects()
    desired.follow(world)
    return desired


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredRoutes:
    """The routes this host should hold, and the conditions that stand in the way of more.

    Attributes:
        routes: By the kernel's key; the aggregate comes first.
        conditions, certain: As those of :class:`DesiredObjects`.
    """

    routes: Mapping[RouteKey, Route] = field(default_factory=lambda: MappingProxyType({}))
    conditions: tuple[Condition, ...] = ()
    certain: bool = False


def desired_routes(world: World) -> DesiredRoutes:
    """Return every route that this host should hold in ``world``."""
    desired = desired_objects(world)
    return DesiredRoutes(
        routes=MappingProxyType(desired.of(Route)),
        conditions=desired.conditions,
        certain=desired.certain,
    )
