"""Desired and actual routes side by side, compared only where something changed. Pure.

A full pass over 65,000 peers is never needed for one of them: :class:`RouteDelta` remembers
which keys may differ. What it plans equals what :func:`agent.mesh.plan.plan_routes` says about
:func:`agent.mesh.desired.desired_routes`; a stateful property test holds the two together.

It knows of the kernel only what it is told. So a new complete list is due
(:meth:`RouteDelta.actual_listed`) whenever :attr:`RouteDelta.needs_list` says so, messages may
have been lost, links or addresses changed, and now and then anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final, TypeVar

from agent.mesh.desired import PeerRules, aggregate_routes, summarise
from agent.mesh.plan import (
    Operation,
    OperationKind,
    OperationResult,
    PlanParts,
    RoutePlan,
    plan_key,
)
from agent.mesh.world import ROUTE_PROTOCOL, RouteKey, World, route_key
from agent.model import Condition, Lease, Route

__all__ = ["RouteChange", "RouteDelta"]

_Place = tuple[int, IPv4Network]
_K = TypeVar("_K")

_FULL_PASS_SHARE: Final = 4
"""When more than one peer in four is new, computing everything is no slower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChange:
    """One notification: a route appeared, replaced what stood under its key, or went."""

    route: Route
    gone: bool = False
    replaced: bool = False


class RouteDelta:
    """What is desired, what is there, and where they may differ.

    Not for use by two threads at once. Before the first :meth:`actual_listed` its plans are
    empty: an unknown kernel is not an empty one (promise 4).

    Args:
        protocol: rtm_protocol that marks a route as ours; every world must have the same.
    """

    def __init__(self, protocol: int = ROUTE_PROTOCOL) -> None:
        self._protocol = protocol
        self._world = World(route_protocol=protocol)
        self._rules = PeerRules.of(self._world)
        self._peers: dict[IPv4Network, Lease] = {}
        self._desired: dict[RouteKey, Route] = {}
        self._refused: dict[IPv4Network, Condition] = {}
        self._listed: dict[RouteKey, tuple[Route, ...]] = {}
        self._listed_routes: dict[int, Route] = {}
        self._since: dict[RouteKey, tuple[Route, ...]] = {}  # what changed since the list
        self._foreign: dict[_Place, tuple[Route, ...]] = {}
        self._foreign_listed: tuple[Route, ...] | None = None
        self._dirty: set[RouteKey] = set()
        self._needs_list = True
        self._listed_once = False
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
        """What should be there, by the kernel's key."""
        return self._desired

    def __contains__(self, key: object) -> bool:
        """Whether something is desired or still to be done under ``key``."""
        return key in self._desired or key in self._dirty

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """As ``DesiredRoutes.conditions``."""
        if isinstance(self._rules, Condition):
            return (self._rules,)
        return summarise(list(self._refused.values()))

    def world_changed(self, world: World) -> None:
        """Follow the world. Costs one look at each peer, and work for those that differ.

        Leases that stayed the same should be the same objects as before; where they are not,
        they are computed anew, which costs time but changes nothing.
        """
        before = self._world
        was_certain = self.certain
        self._from_complete = before.complete
        self._world = world
        self._rules = PeerRules.of(world)
        known = {id(peer) for peer in self._peers.values()}
        fresh = [peer for peer in world.peers.values() if id(peer) not in known]
        if (
            isinstance(self._rules, PeerRules)
            and _frame(world) == _frame(before)
            and len(fresh) * _FULL_PASS_SHARE <= len(world.peers)
        ):
            self._peers_changed(before, world, fresh)
        else:
            self._compute_all(world)
        self._from_complete = world.complete
        if self.certain != was_certain:
            self._dirty.update(self._extras())

    def _peers_changed(self, before: World, world: World, fresh: list[Lease]) -> None:
        """Only these peers are new or changed; find those that went or died."""
        for peer in fresh:
            self.peer_changed(peer.subnet, peer)
        remaining = {id(peer) for peer in world.peers.values()}
        gone = [subnet for subnet, peer in self._peers.items() if id(peer) not in remaining]
        for subnet in gone:
            self.peer_changed(subnet, None)
        for subnet in before.dead_subnets ^ world.dead_subnets:
            self.peer_changed(subnet, world.peers.get(subnet))

    def _compute_all(self, world: World) -> None:
        self._peers = dict(world.peers)
        wanted = {route_key(route): route for route in aggregate_routes(world)}
        self._refused = {}
        if isinstance(self._rules, PeerRules):
            for subnet, peer in world.peers.items():
                outcome = self._rules.outcome(peer)
                if isinstance(outcome, Route):
                    wanted[route_key(outcome)] = outcome
                else:
                    self._refused[subnet] = outcome
        before = self._desired
        gone = [key for key in before if key not in wanted]
        changed = [key for key, route in wanted.items() if before.get(key) != route]
        for keys in (changed, gone):
            self._dirty.update(keys)
            self._news.update(keys)
        if self._from_complete:
            self._ended.update(gone)
        self._ended.difference_update(wanted)
        self._desired = wanted

    def _extras(self) -> list[RouteKey]:
        """Keys of ours that nobody wants: what may be done to them depends on certainty."""
        keys = [key for key in self._listed if key not in self._desired]
        keys.extend(key for key in self._since if key not in self._desired)
        return keys

    def peer_changed(self, subnet: IPv4Network, peer: Lease | None) -> None:
        """One peer's lease appeared, changed or (None) is known to be gone.

        The short way for a caller that knows which; everything else is as in the last
        :meth:`world_changed`. The caller's next world has this change in it.
        """
        if peer is None:
            self._peers.pop(subnet, None)
        else:
            self._peers[subnet] = peer
        if not isinstance(self._rules, PeerRules):
            return
        self._refused.pop(subnet, None)
        key = self._key_at((self._world.route_table, subnet))
        outcome = None if peer is None else self._rules.outcome(peer)
        if isinstance(outcome, Condition):
            self._refused[subnet] = outcome
        if isinstance(outcome, Route):
            if self._desired.get(key) != outcome:
                self._desired[key] = outcome
                self._dirty.add(key)
                self._news.add(key)
                self._ended.discard(key)
        elif subnet not in self._rules.config.cidrs and self._desired.pop(key, None) is not None:
            self._dirty.add(key)
            self._news.add(key)
            if self._from_complete:
                self._ended.add(key)

    def _key_at(self, place: _Place) -> RouteKey:
        """The only key a desired route to this place can have."""
        return RouteKey(place[0], place[1], 0, self._world.route_metric)

    def _ours_at(self, key: RouteKey) -> tuple[Route, ...]:
        """Our routes under a key as far as is known: the list, and what was heard since."""
        since = self._since.get(key)
        return self._listed.get(key, ()) if since is None else since

    def actual_listed(self, ours: tuple[Route, ...], foreign: tuple[Route, ...]) -> None:
        """A complete list from the kernel replaces all that was remembered of it.

        Routes that stayed the same should be the same objects as in the last list, as
        ``RouteTable`` hands them out: then only the others cost time.
        """
        self._needs_list = False
        if not self._listed_once:  # what an earlier life left is nobody's doing now
            self._news.update(map(route_key, ours))
        self._listed_once = True
        self._dirty.update(self._since)
        self._since = {}
        now = {id(route): route for route in ours}
        before = self._listed_routes
        self._listed_routes = now
        touched: set[RouteKey] = set()
        for route in [route for number, route in before.items() if number not in now]:
            key = route_key(route)
            touched.add(key)
            self._put(self._listed, key, tuple(r for r in self._listed[key] if r is not route))
        for route in [route for number, route in now.items() if number not in before]:
            key = route_key(route)
            touched.add(key)
            self._listed[key] = (*self._listed.get(key, ()), route)
        for key in touched:
            if len(self._listed.get(key, ())) > 1:  # then their order counts
                self._listed[key] = tuple(r for r in ours if route_key(r) == key)
        self._dirty.update(touched)
        if foreign is not self._foreign_listed:
            self._list_foreign(foreign)

    def _list_foreign(self, foreign: tuple[Route, ...]) -> None:
        places = set(self._foreign)
        self._foreign_listed = foreign
        self._foreign = {}
        for route in foreign:
            place = (route.table, route.destination)
            self._foreign[place] = (*self._foreign.get(place, ()), route)
        places.update(self._foreign)
        self._dirty.update(key for key in map(self._key_at, places) if key in self._desired)

    def observed(self, change: RouteChange) -> None:
        """A notification from the kernel about one route."""
        route, key = change.route, route_key(change.route)
        place = (route.table, route.destination)
        if change.replaced and not change.gone:
            if self._standing(key) != 1:
                # Which of several was replaced, no message says.
                self._needs_list = True
            self._since[key] = ()
            kept = tuple(each for each in self._foreign.get(place, ()) if route_key(each) != key)
            self._put_foreign(place, kept)
        if route.protocol == self._protocol:
            others = tuple(each for each in self._ours_at(key) if each != route)
            self._since[key] = others if change.gone else (*others, route)
        elif route.table == self._world.route_table:
            rivals = tuple(each for each in self._foreign.get(place, ()) if each != route)
            self._put_foreign(place, rivals if change.gone else (*rivals, route))
        if self._standing(key) > 1:
            # Which of them stands first, no message says.
            self._needs_list = True
        self._dirty.add(key)
        if self._key_at(place) in self._desired:
            self._dirty.add(self._key_at(place))

    def drifted(
        self, results: Iterable[OperationResult], held: Iterable[Route]
    ) -> tuple[Operation, ...]:
        """Which of these were repairs: actual differed and what is desired had not changed.

        Args:
            results: All of one pass.
            held: Extra routes that the pass left for later.
        """
        told = list(results)
        found = tuple(
            each.operation
            for each in told
            if each.ok and route_key(each.operation.route) not in self._news
        )
        undone = {route_key(each.operation.route) for each in told if not each.ok}
        self._news.intersection_update(undone | set(map(route_key, held)))
        return found

    def _standing(self, key: RouteKey) -> int:
        """How many routes stand under a key, of whomever."""
        rivals = self._foreign.get((key.table, key.destination), ())
        return len(self._ours_at(key)) + sum(route_key(each) == key for each in rivals)

    def _put_foreign(self, place: _Place, routes: tuple[Route, ...]) -> None:
        if routes != self._foreign.get(place, ()):
            self._foreign_listed = None
        self._put(self._foreign, place, routes)

    @staticmethod
    def _put(held: dict[_K, tuple[Route, ...]], key: _K, routes: tuple[Route, ...]) -> None:
        if routes:
            held[key] = routes
        else:
            held.pop(key, None)

    def plan(self, *, may_delete: bool, may_sweep: bool = True) -> RoutePlan:
        """What has to be done where something may differ. Empty before the first list.

        Args:
            may_delete: Nothing speaks against deletion; it also needs :attr:`certain`.
            may_sweep: The grace time is over, so that routes of an earlier life may go too.
                A route that was desired in this life, and whose lease was then seen to be
                gone, does not wait for it.
        """
        parts = PlanParts()
        if not self._listed_once:
            return parts.plan()
        may_delete = may_delete and self.certain
        unsettled: set[RouteKey] = set()
        for key in self._dirty:
            found = plan_key(
                self._desired.get(key),
                self._ours_at(key),
                self._foreign.get((key.table, key.destination), ()),
                may_delete=may_delete and (may_sweep or key in self._ended),
            )
            if found:
                parts.add(found)
                unsettled.add(key)
            else:
                self._ended.discard(key)
        # A new set: one that was large once takes long to walk even when it is empty.
        self._dirty = unsettled
        return parts.plan()

    def applied(self, results: Iterable[OperationResult]) -> None:
        """What the kernel made of a plan. Failed operations stay dirty and call for a list."""
        for result in results:
            operation = result.operation
            key = route_key(operation.route)
            there = self._ours_at(key)
            if not result.ok:
                self._needs_list = True
            elif operation.kind is OperationKind.REPLACE:
                others = tuple(each for each in there if each != operation.actual)
                self._since[key] = (operation.route, *others)
            else:
                self._since[key] = tuple(each for each in there if each != operation.route)


def _frame(world: World) -> tuple[object, ...]:
    """All of a world that every peer's route depends on."""
    return (
        world.config,
        world.own_subnets,
        world.uplink,
        None if world.host is None else world.host.foreign_routes,
        world.route_protocol,
        world.route_table,
        world.route_metric,
    )
