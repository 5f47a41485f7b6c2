"""Desired and actual routes side by side, compared only where something changed. Pure.

A full pass over 65,000 peers is never needed for one of them: :class:`RouteDelta` remembers
which keys differ. What it plans equals what :func:`agent.mesh.plan.plan_routes` says about
:func:`agent.mesh.desired.desired_routes`; a stateful property test holds the two together.

It knows of the kernel only what it is told. So a new complete list is due
(:meth:`RouteDelta.actual_listed`) whenever :attr:`RouteDelta.needs_list` says so, messages may
have been lost, links or addresses changed, and now and then anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from agent.mesh.lists import in_order, only_in
from agent.mesh.peer_rules import PeerRules, aggregate_routes, on_link_ranges
from agent.mesh.plan import (
    Operation,
    OperationKind,
    OperationResult,
    PlanParts,
    Reason,
    RoutePlan,
    plan_key,
)
from agent.mesh.rivals import Rivals
from agent.mesh.world import ROUTE_PROTOCOL, World
from agent.model import Condition, Lease, Route, RouteKey, summarise
from agent.model.family import Address, Network
from agent.sharedmap import changed_keys

__all__ = ["RouteChange", "RouteDelta"]

_MANY: Final = 1000
"""When more routes than this changed since the last list, the next one is compared whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChange:
    """One notification: a route appeared, replaced what stood under its key, or went."""

    route: Route
    gone: bool = False
    replaced: bool = False


class RouteDelta:
    """What is desired, what is there, and where they differ.

    What is there is kept as its difference from what is desired: nothing for a route that stands
    as it should, which in a large mesh is nearly every one.

    Not for use by two threads at once. Before the first :meth:`actual_listed` its plans are
    empty: an unknown kernel is not an empty one (promise 4).

    Args:
        protocol: rtm_protocol that marks a route as ours; every world must have the same.
    """

    def __init__(self, protocol: int = ROUTE_PROTOCOL) -> None:
        self._protocol = protocol
        self._world = World(route_protocol=protocol)
        self._rules = PeerRules.of(self._world)
        self._desired: dict[Network, Route] = {}
        self._gateways: frozenset[Address] | None = frozenset()
        self._refused: dict[Network, Condition] = {}
        self._summary: tuple[Condition, ...] | None = ()
        self._odd: dict[RouteKey, tuple[Route, ...]] = {}
        """Our routes under each key where they are not just the desired one."""
        self._listed: tuple[Route, ...] | None = None
        self._at_list: dict[RouteKey, tuple[Route, ...]] = {}
        """What the last list said under each key where it is known to be otherwise by now."""
        self._rivals = Rivals(
            lambda place: place[1] in self._desired and place == self._key_of(place[1]).place
        )
        self._needs_list = True
        self._from_complete = False  # what is desired came from a complete world
        self._ended: set[RouteKey] = set()
        self._news: set[RouteKey] = set()  # what is desired changed here; the rest is drift

    @property
    def needs_list(self) -> bool:
        """Whether something happened that only a new complete list can settle."""
        return self._needs_list

    @property
    def certain(self) -> bool:
        """As ``DesiredRoutes.certain``."""
        return isinstance(self._rules, PeerRules) and self._world.complete

    @property
    def desired(self) -> Mapping[RouteKey, Route]:
        """What should be there, by the kernel's key. Made anew each time."""
        return {self._key_of(each): route for each, route in self._desired.items()}

    @property
    def desired_count(self) -> int:
        """How many routes should be there."""
        return len(self._desired)

    @property
    def missing_count(self) -> int:
        """How many of those are not there, or are there otherwise."""
        return sum(self._wanted(key) not in (None, *there) for key, there in self._odd.items())

    @property
    def differing_count(self) -> int:
        """Under how many keys our routes are not just the desired one: missing, modified, extra."""
        return len(self._odd)

    @property
    def gateways(self) -> frozenset[Address]:
        """Node addresses that a desired route leads to; the same object while none changes.

        A pass asks for it every few seconds, and most passes find nothing changed.
        """
        if self._gateways is None:
            found = (route.gateway for route in self._desired.values())
            self._gateways = frozenset(gateway for gateway in found if gateway is not None)
        return self._gateways

    @property
    def links(self) -> frozenset[str]:
        """Names of the links by which desired routes and their rivals lead."""
        uplink = self._world.uplink
        return self._rivals.links if uplink is None else self._rivals.links | {uplink.name}

    @property
    def have_sources(self) -> bool:
        """Whether a rival goes with an address of whichever link; no desired route does."""
        return self._rivals.have_sources

    def __contains__(self, key: object) -> bool:
        """Whether something is desired or still to be done under ``key``."""
        return isinstance(key, RouteKey) and (key in self._odd or self._wanted(key) is not None)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """As ``DesiredRoutes.conditions``."""
        if isinstance(self._rules, Condition):
            return (self._rules,)
        if self._summary is None:
            self._summary = summarise(list(self._refused.values()))
        return self._summary

    def same(self, route: Route) -> Route:
        """The desired route itself where it equals this one: both are kept as one object."""
        wanted = self._desired.get(route.destination)
        return wanted if wanted is not None and wanted == route else route

    def world_changed(self, world: World) -> None:
        """Follow the world. Costs what changed, when peers and deaths are all that did.

        Leases that stayed the same should be the same objects as before, in a ``SharedMap``;
        where they are not, they are computed anew, which costs time but changes nothing.
        """
        before = self._world
        self._from_complete = before.complete
        rules = PeerRules.of(world)
        if isinstance(rules, PeerRules) and _frame(world) == _frame(before):
            subnets = changed_keys(before.peers, world.peers)
            subnets |= before.dead_subnets ^ world.dead_subnets
            self._world, self._rules = world, rules
            for subnet in subnets:
                self._peer_changed(subnet, world.peers.get(subnet), rules)
        else:
            self._compute_all(world, rules)
        self._from_complete = world.complete

    def _peer_changed(self, subnet: Network, peer: Lease | None, rules: PeerRules) -> None:
        """Follow one peer. None: its lease is known to be gone."""
        if self._refused.pop(subnet, None) is not None:
            self._summary = None
        outcome = None if peer is None else _route_of(peer, rules)
        if isinstance(outcome, Condition):
            self._refused[subnet] = outcome
            self._summary = None
        if isinstance(outcome, Route):
            self._want(subnet, outcome)
        elif not _is_aggregate(self._world, subnet):
            self._want(subnet, None)

    def _want(self, destination: Network, route: Route | None) -> None:
        """Desire this route and no other to its destination; what is there stays as it is."""
        key = self._key_of(destination)
        there = self._ours_at(key)
        before = self._desired.get(destination)
        if before != route:
            self._gateways = None
        if route is None:
            self._desired.pop(destination, None)
        elif before != route:
            self._desired[destination] = route
        self._is_there(key, there)
        self._follow_end(key, ended=before is not None and route is None)
        if before != route and key in self._odd:
            self._news.add(key)
        self._rivals.settle(key.place)

    def _follow_end(self, key: RouteKey, *, ended: bool) -> None:
        """Remember what ended in this life: it waits for no grace time."""
        if not ended:
            self._ended.discard(key)
        elif self._from_complete and key in self._odd:
            self._ended.add(key)

    def _compute_all(self, world: World, rules: PeerRules | Condition) -> None:
        """Compute every peer anew, and follow where that makes a difference."""
        before = self._desired
        wanted = {route.destination: route for route in aggregate_routes(world)}
        self._refused, self._summary = {}, None
        if isinstance(rules, PeerRules):
            for subnet, peer in world.peers.items():
                outcome = _route_of(peer, rules)
                if isinstance(outcome, Route):
                    wanted[subnet] = before[subnet] if before.get(subnet) == outcome else outcome
                else:
                    self._refused[subnet] = outcome
        old_keys = [self._key_of(each) for each in before if wanted.get(each) != before[each]]
        there = {key: self._ours_at(key) for key in old_keys}
        was_wanted = set(old_keys)
        new = [each for each, route in wanted.items() if before.get(each) != route]
        new_keys = [_key_in(world, each) for each in new]
        there.update((key, self._ours_at(key)) for key in new_keys if key not in there)
        self._world, self._rules, self._desired, self._gateways = world, rules, wanted, None
        now_wanted = set(new_keys)
        for key, routes in there.items():
            self._is_there(key, routes)
            self._follow_end(key, ended=key in was_wanted and key not in now_wanted)
        self._news.update(key for key in there if key in self._odd)
        self._rivals.settle_all()

    def _key_of(self, destination: Network) -> RouteKey:
        """The only key a desired route to this place can have."""
        return _key_in(self._world, destination)

    def _wanted(self, key: RouteKey) -> Route | None:
        route = self._desired.get(key.destination)
        return route if route is not None and self._key_of(key.destination) == key else None

    def _ours_at(self, key: RouteKey) -> tuple[Route, ...]:
        """Our routes under a key as far as is known: the list, and what was heard since."""
        odd = self._odd.get(key)
        if odd is not None:
            return odd
        wanted = self._wanted(key)
        return () if wanted is None else (wanted,)

    def _is_there(self, key: RouteKey, routes: tuple[Route, ...]) -> None:
        """Take down that these are our routes under the key."""
        wanted = self._wanted(key)
        if routes == (() if wanted is None else (wanted,)):
            self._odd.pop(key, None)
            self._ended.discard(key)
        else:
            self._odd[key] = routes

    def _heard(self, key: RouteKey, routes: tuple[Route, ...]) -> None:
        """As :meth:`_is_there`, and that this is news since the list."""
        if len(self._at_list) <= _MANY:
            self._at_list.setdefault(key, self._ours_at(key))
        self._is_there(key, routes)

    def actual_listed(self, ours: tuple[Route, ...], foreign: tuple[Route, ...]) -> None:
        """A complete list from the kernel replaces all that was remembered of it.

        Routes that stayed the same should be the same objects as in the last list, as
        ``RouteTable`` hands them out: then only the others cost time.
        """
        self._needs_list = False
        if self._listed is None:
            self._list_first(ours)
            self._news = set(self._odd)  # what an earlier life left is nobody's doing now
        elif len(self._at_list) > _MANY:
            self._list_first(ours)
        elif ours is not self._listed or self._at_list:
            self._list_again(self._listed, ours)
        self._listed = ours
        self._at_list = {}
        self._rivals.listed(foreign)

    def _list_first(self, ours: tuple[Route, ...]) -> None:
        missing = dict.fromkeys(self._desired)
        odd: list[RouteKey] = []
        for route in ours:
            if route == self._desired.get(route.destination) and route.destination in missing:
                del missing[route.destination]
            else:
                odd.append(route.key)
        self._odd = {self._key_of(each): () for each in missing}
        for key, routes in in_order(ours, odd).items():
            self._is_there(key, routes)

    def _list_again(self, before: tuple[Route, ...], ours: tuple[Route, ...]) -> None:
        gone, new = only_in(before, ours), only_in(ours, before)
        held: dict[RouteKey, list[Route]] = {}
        for key in (*(each.key for each in (*gone, *new)), *self._at_list):
            held.setdefault(key, list(self._at_list.get(key, self._ours_at(key))))
        for route in gone:
            at = held[route.key]
            if route in at:
                at.remove(route)
        for route in new:
            held[route.key].append(route)
        # Where several stand under one key their order counts.
        several = in_order(ours, [key for key, routes in held.items() if len(routes) > 1])
        for key, routes in held.items():
            self._is_there(key, several.get(key, tuple(routes)))

    def observed(self, change: RouteChange) -> None:
        """A notification from the kernel about one route."""
        route, key = change.route, change.route.key
        if change.replaced and not change.gone:
            if self._standing(key) != 1:
                # Which of several was replaced, no message says.
                self._needs_list = True
            self._heard(key, ())
            self._rivals.replaced(key)
        if route.protocol == self._protocol:
            others = tuple(each for each in self._ours_at(key) if each != route)
            self._heard(key, others if change.gone else (*others, route))
        elif route.table == self._world.route_table:
            (self._rivals.went if change.gone else self._rivals.appeared)(route)
        if self._standing(key) > 1:
            # Which of them stands first, no message says.
            self._needs_list = True

    def drifted(self, plan: RoutePlan, results: Iterable[OperationResult]) -> tuple[Operation, ...]:
        """Which of a plan's results were repairs: what is desired had not changed, actual had.

        What of the plan was not done stays news: a wish that takes several tries is no drift.
        A route that gives way to another program's is no repair.
        """
        done = [each.operation for each in results if each.ok]
        found = tuple(
            each
            for each in done
            if each.route.key not in self._news and each.reason is not Reason.CONFLICT
        )
        left = {each.route.key for each in plan.operations}
        left.update(each.key for each in plan.held)
        self._news &= left.difference(each.route.key for each in done)
        return found

    def _standing(self, key: RouteKey) -> int:
        """How many routes stand under a key, of whomever."""
        return len(self._ours_at(key)) + self._rivals.under(key)

    def plan(self, *, may_delete: bool, may_sweep: bool = True) -> RoutePlan:
        """What has to be done where something differs. Empty before the first list.

        Args:
            may_delete: Nothing speaks against deletion; it also needs :attr:`certain`.
            may_sweep: The grace time is over, so that routes of an earlier life may go too.
                A route that was desired in this life, and whose lease was then seen to be
                gone, does not wait for it.
        """
        parts = PlanParts()
        if self._listed is None:
            return parts.plan()
        may_delete = may_delete and self.certain
        contested = map(self._key_of, self._rivals.contested)
        for key in dict.fromkeys((*contested, *self._odd)):
            parts.add(
                plan_key(
                    self._wanted(key),
                    self._ours_at(key),
                    self._rivals.of(key),
                    may_delete=(may_delete and (may_sweep or key in self._ended))
                    or self._shuts_off(key),
                )
            )
        return parts.plan()

    def _shuts_off(self, key: RouteKey) -> bool:
        """Whether a route of ours there cuts the host off: it goes without a view of etcd."""
        return bool(self._world.needed) and any(map(self._world.shuts_off, self._ours_at(key)))

    def applied(self, results: Iterable[OperationResult]) -> None:
        """What the kernel made of a plan; what failed stays due.

        A list is called for where that does not say all: :attr:`needs_list`.
        """
        for result in results:
            operation = result.operation
            key = operation.route.key
            there = self._ours_at(key)
            if not result.ok:
                self._needs_list = True
            elif operation.kind is OperationKind.REPLACE:
                others = tuple(each for each in there if each != operation.actual)
                self._heard(key, (operation.route, *others))
            else:
                # Beside another, the kernel may have taken that one: it matches next hops only.
                self._needs_list = self._needs_list or len(there) > 1
                self._heard(key, tuple(each for each in there if each != operation.route))
        if len(self._odd) < _MANY:
            # One that was large once takes long to walk even when it is nearly empty.
            self._odd = dict(self._odd)


def _route_of(peer: Lease, rules: PeerRules) -> Route | Condition:
    outcome = rules.outcome(peer)
    if isinstance(outcome, Condition):
        return outcome
    return next(each for each in outcome.objects if isinstance(each, Route))


def _key_in(world: World, destination: Network) -> RouteKey:
    return RouteKey(world.route_table, destination, 0, world.route_metric)


def _is_aggregate(world: World, destination: Network) -> bool:
    return any(route.destination == destination for route in aggregate_routes(world))


def _frame(world: World) -> tuple[object, ...]:
    """All of a world that every peer's route depends on."""
    return (
        world.config,
        world.own_subnets,
        world.uplink,
        on_link_ranges(world),
        world.needed,
        world.route_protocol,
        world.route_table,
        world.route_metric,
    )
