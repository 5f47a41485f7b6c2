"""Every object that this host should hold, followed peer by peer. Pure.

:class:`DesiredObjects` follows the world at the cost of what changed: one peer's change costs
one call of the backend, whatever the size of the mesh. :func:`desired_objects` is the same for
one world alone; a stateful property test holds the two together.

Several peers may want one key. Two leases of one host share its forwarding entry; a forged record
may name another host's MAC or WireGuard key. The oldest lease has the key, one of a flannel host
after all others; this host's own objects come before every peer's, and the key goes when the last
that wants it goes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, starmap
from typing import Any, cast

from agent.mesh.backends import KernelObject, TunnelPort
from agent.mesh.peer_rules import PeerRules, aggregate_routes
from agent.mesh.world import World
from agent.model import Condition, Lease, summarise
from agent.model.family import Network, family_of, network_order
from agent.model.names import LOOPBACK, NAME_SERVERS
from agent.model.objects import LinkAddress
from agent.reconcile.interfaces import V
from agent.sharedmap import changed_keys

__all__ = [
    "Changes",
    "DesiredObjects",
    "IngressMember",
    "desired_objects",
    "is_certain",
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
_ByKind = defaultdict[type[_Object], dict[Hashable, "_Object | None"]]


@dataclass(frozen=True, slots=True)
class Changes:
    """Where desired objects differ from those before, by kind and key.

    Attributes:
        by_kind: None for a key under which nothing is desired any more. Where several peers
            want one key, an object may be among them that was desired before.
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
    """The desired objects. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._world = World()
        self._rules = PeerRules.of(self._world)
        self._usable: PeerRules | None = None
        """The last rules that there were."""
        self._wants: dict[_Owner, tuple[_Object, ...]] = {}
        self._ranks: dict[_Owner, tuple[int, ...]] = {None: ()}
        """Of each owner among those that want one key: the lowest has it."""
        self._owners: dict[type[_Object], dict[Hashable, Sequence[_Owner]]] = {}
        """Every owner of each key, in order: the first one has it. A list where there are several:
        one forged value in very many leases must not cost their number squared."""
        self._problems: dict[Network, Condition] = {}
        """Why a peer has no objects, or others than the config asks for."""
        self._shared: dict[tuple[type[_Object], Hashable], None] = {}
        """Keys that several want, but for those of objects that have nothing but their key."""
        self._summary: tuple[Condition, ...] | None = None
        self._ingress: Mapping[str, frozenset[Network]] | None = None

    @property
    def certain(self) -> bool:
        """Whether nothing is missing from the world that would bring more objects.

        False before the first complete view, while config, uplink or backend are unknown, and while
        one of two backends cannot be set up: then absence means nothing, and nothing may be deleted
        because of it.
        """
        return _are_certain(self._rules, self._world)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Conditions for the operator, bounded."""
        if isinstance(self._rules, Condition):
            return (self._rules,)
        if self._summary is None:
            clashes = chain.from_iterable(starmap(self._clashes, self._shared))
            self._summary = summarise(chain(self._problems.values(), clashes))
        return (*self._rules.conditions, *self._summary)

    @property
    def usable(self) -> bool:
        """Whether each backend could be set up once, so that links and tunnels are known."""
        rules = self._usable
        return rules is not None and (rules.accepted is not None or not rules.conditions)

    @property
    def ingress_links(self) -> tuple[str, ...]:
        """Names of the links by which peers may deliver, whether one does now or not.

        As it was while the backend cannot be set up (promise 3): so are its links and routes.
        """
        return self._usable.ingress if self._usable else ()

    @property
    def tunnels(self) -> tuple[TunnelPort, ...]:
        """UDP ports by which tunnels' packets come in. As it was, too."""
        return self._usable.tunnels if self._usable else ()

    @property
    def ingress(self) -> Mapping[str, frozenset[Network]]:
        """Ranges from which packets may come in now, by name of the link they come in by.

        A link by which no peer delivers now has none. The same object while nothing changes.
        """
        if self._ingress is None:
            found: dict[str, set[Network]] = {link: set() for link in self.ingress_links}
            for member in self.of(IngressMember).values():
                found.setdefault(member.link, set()).add(member.network)
            self._ingress = {link: frozenset(networks) for link, networks in found.items()}
        return self._ingress

    def count(self, kind: type[V]) -> int:
        """Return how many objects of one kind are desired."""
        return len(self._owners.get(cast("type[_Object]", kind), ()))

    def of(self, kind: type[V]) -> dict[Any, V]:
        """Return everything that is desired of one kind, by key. Made anew each time."""
        asked = cast("type[_Object]", kind)
        owners = self._owners.get(asked, {})
        found = {key: self._wanted_by(each[0], asked, key) for key, each in owners.items()}
        return cast("dict[Any, V]", found)

    def follow(self, world: World) -> Changes:
        """Follow the world. Costs what changed, when peers and deaths are all that did.

        Leases that stayed the same should be the same objects as before, in a ``SharedMap``;
        where they are not, they are computed anew, which costs time but changes nothing.
        """
        before, self._world = self._world, world
        old_rules, rules = self._rules, PeerRules.of(world)
        self._rules = rules
        if isinstance(rules, PeerRules):
            self._usable = rules.with_side_of(self._usable)
        changes = _ByKind(dict)
        if (
            isinstance(rules, PeerRules)
            and isinstance(old_rules, PeerRules)
            and rules.equal_for_peers(old_rules)
        ):
            subnets = changed_keys(before.peers, world.peers)
            subnets |= before.dead_subnets ^ world.dead_subnets
        else:
            owners = (*self._wants, *self._problems, *world.peers)
            subnets = {each for each in owners if each is not None}
            self._ingress = None
            self._want(None, _of_this_host(world, rules), changes)
        for subnet in subnets:
            self._follow_peer(subnet, rules, changes)
        if IngressMember in changes:
            self._ingress = None
        return Changes(changes, known_gone=before.complete)

    def _follow_peer(
        self,
        subnet: Network,
        rules: PeerRules | Condition,
        changes: _ByKind,
    ) -> None:
        """Follow one peer; its lease may be known to be gone."""
        if self._problems.pop(subnet, None) is not None:
            self._summary = None
        peer = self._world.peers.get(subnet)
        wanted: tuple[_Object, ...] = ()
        if peer is not None and isinstance(rules, PeerRules):
            outcome = rules.outcome(peer)
            problem = outcome if isinstance(outcome, Condition) else outcome.condition
            if problem is not None:
                self._problems[subnet] = problem
                self._summary = None
            if not isinstance(outcome, Condition):
                sources = (subnet, family_of(peer.node_address).host(peer.node_address))
                members = (
                    IngressMember(link, each) for link in outcome.ingress for each in sources
                )
                wanted = (*outcome.objects, *members)
        rank = None if peer is None else _rank(peer)
        if rank != self._ranks.get(subnet):
            self._want(subnet, (), changes)  # from the place that it has
            if rank is None:
                del self._ranks[subnet]
                return
            self._ranks[subnet] = rank
        self._want(subnet, wanted, changes)

    def _want(self, owner: _Owner, wanted: tuple[_Object, ...], changes: _ByKind) -> None:
        """Let ``owner`` want these objects and no others."""
        old = self._wants.get(owner, ())
        if wanted == old:
            return
        if wanted:
            self._wants[owner] = wanted
        else:
            del self._wants[owner]
        for each in old:
            if each not in wanted:
                self._own(each, owner, changes, owns=False)
        for each in wanted:
            if each not in old:
                self._own(each, owner, changes, owns=True)

    def _own(self, each: _Object, owner: _Owner, changes: _ByKind, *, owns: bool) -> None:
        """Note that ``owner`` wants an object now, or no longer does."""
        kind, key, only = type(each), each.key, (owner,)
        keys = self._owners.setdefault(kind, {})
        before = keys.setdefault(key, only)
        if before == only:  # no other peer wants the key: nearly always
            if owns:
                changes[kind][key] = each
            else:
                del keys[key]
                changes[kind][key] = None
            return
        owners = before if isinstance(before, list) else [*before]
        place = bisect_left(owners, self._ranks[owner], key=self._ranks.__getitem__)
        held = owners[place : place + 1] == [owner]
        owners[place : place + held] = only if owns else ()
        keys[key] = owners if len(owners) > 1 else tuple(owners)
        if each.key == each:
            return  # nothing but its key: all that want it want the same
        changes[kind][key] = self._wanted_by(owners[0], kind, key)
        self._summary = None
        if len(owners) > 1:
            self._shared[kind, key] = None
        else:
            self._shared.pop((kind, key), None)

    def _wanted_by(self, owner: _Owner, kind: type[_Object], key: Hashable) -> _Object:
        found = (each for each in self._wants[owner] if type(each) is kind)
        return next(each for each in found if each.key == key)

    def _clashes(self, kind: type[_Object], key: Hashable) -> Iterator[Condition]:
        """Yield a condition for each owner of a key that wants another object than is used."""
        first, *others = self._owners[kind][key]
        used = self._wanted_by(first, kind, key)
        for owner in others:
            wanted = self._wanted_by(owner, kind, key)
            if wanted != used:
                yield _clash(first, used, owner, wanted)


def _clash(first: _Owner, used: object, owner: _Owner, wanted: object) -> Condition:
    return Condition(
        name="peer-conflict",
        subject=str(owner),
        cause=f"{first or 'this host'} and {owner} claim one object:"
        f" {used} is used, {wanted} is not",
        hint="two hosts publish the same data, or a record is forged: see agentctl leases -o wide",
    )


def _rank(peer: Lease) -> tuple[int, ...]:
    """Sort peers by the age of their lease, those that flannel's format is all of last.

    With owner records the age is that of the record that only the owner may write.
    """
    return (peer.host_id is None, peer.create_revision, *network_order(peer.subnet))


def _of_this_host(world: World, rules: PeerRules | Condition) -> tuple[_Object, ...]:
    own = rules.objects if isinstance(rules, PeerRules) else ()
    return (*aggregate_routes(world), *own, *_of_name_servers(world))


def _of_name_servers(world: World) -> Iterator[LinkAddress]:
    """Yield the addresses at which name servers answer this host's containers."""
    if world.config is not None and world.own is not None and world.config.has_names:
        for each in NAME_SERVERS:
            interface = family_of(each).interface((each, each.max_prefixlen))
            yield LinkAddress(link=LOOPBACK, interface=interface)


def is_certain(world: World) -> bool:
    """Whether absence from the desired objects of ``world`` means anything; see DesiredObjects."""
    return _are_certain(PeerRules.of(world), world)


def _are_certain(rules: PeerRules | Condition, world: World) -> bool:
    return isinstance(rules, PeerRules) and not rules.conditions and world.complete


def desired_objects(world: World) -> DesiredObjects:
    """Return every object that this host should hold in ``world``, computed at once."""
    desired = DesiredObjects()
    desired.follow(world)
    return desired
