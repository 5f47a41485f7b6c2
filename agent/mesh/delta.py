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
from typing import TypeVar

from agent.mesh.desired import PeerRules, aggregate_routes, summarise
from agent.mesh.plan import (
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
        self._desired: dict[RouteKey, Route] = {}
        self._refused: dict[IPv4Network, Condition] = {}
        self._ours: dict[RouteKey, tuple[Route, ...]] = {}
        self._foreign: dict[_Place, tuple[Route, ...]] = {}
        self._dirty: set[RouteKey] = set()
        self._ours_listed: tuple[Route, ...] | None = None
        self._foreign_listed: tuple[Route, ...] | None = None
        self._needs_list = True
        self._listed_once = False

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

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """As ``DesiredRoutes.conditions``."""
        if isinstance(self._rules, Condition):
            return (self._rules,)
        return summarise(list(self._refused.values()))

    def world_changed(self, world: World) -> None:
        """Compute desired anew from everything; keys that differ become dirty."""
        was_certain = self.certain
        self._world = world
        self._rules = PeerRules.of(world)
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
        self._dirty.update(key for key, route in wanted.items() if before.get(key) != route)
        self._dirty.update(key for key in before if key not in wanted)
        if self.certain != was_certain:
            self._dirty.update(key for key in self._ours if key not in wanted)
        self._desired = wanted

    def peer_changed(self, subnet: IPv4Network, peer: Lease | None) -> None:
        """One peer's lease appeared, changed or (None) is known to be gone.

        Everything else is as in the last :meth:`world_changed`; a change of own lease, config,
        uplink, host or dead peers goes there. The caller's next world has this change in it.
        """
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
        elif subnet != self._rules.config.cidr and self._desired.pop(key, None) is not None:
            self._dirty.add(key)

    def _key_at(self, place: _Place) -> RouteKey:
        """The only key a desired route to this place can have."""
        return RouteKey(place[0], place[1], 0, self._world.route_metric)

    def actual_listed(self, ours: tuple[Route, ...], foreign: tuple[Route, ...]) -> None:
        """A complete list from the kernel replaces all that was remembered of it.

        Handing in the very tuples of the last time (``RouteTable`` does when nothing changed)
        costs nothing.
        """
        self._needs_list = False
        self._listed_once = True
        if ours is self._ours_listed and foreign is self._foreign_listed:
            return
        self._ours_listed, self._foreign_listed = ours, foreign
        self._ours = {}
        for route in ours:
            key = route_key(route)
            self._ours[key] = (*self._ours.get(key, ()), route)
        self._foreign = {}
        for route in foreign:
            place = (route.table, route.destination)
            self._foreign[place] = (*self._foreign.get(place, ()), route)
        desired = self._desired
        self._dirty = {key for key, there in self._ours.items() if there != (desired.get(key),)}
        self._dirty.update(key for key in desired if key not in self._ours)
        contested = (self._key_at(place) for place in self._foreign)
        self._dirty.update(key for key in contested if key in desired)

    def observed(self, change: RouteChange) -> None:
        """A notification from the kernel about one route."""
        self._ours_listed = None
        route, key = change.route, route_key(change.route)
        place = (route.table, route.destination)
        if change.replaced and not change.gone:
            self._put(self._ours, key, ())
            kept = tuple(each for each in self._foreign.get(place, ()) if route_key(each) != key)
            self._put(self._foreign, place, kept)
        if route.protocol == self._protocol:
            others = tuple(each for each in self._ours.get(key, ()) if each != route)
            self._put(self._ours, key, others if change.gone else (*others, route))
        elif route.table == self._world.route_table:
            rivals = tuple(each for each in self._foreign.get(place, ()) if each != route)
            self._put(self._foreign, place, rivals if change.gone else (*rivals, route))
        there = len(self._ours.get(key, ())) + sum(
            route_key(each) == key for each in self._foreign.get(place, ())
        )
        if there > 1 or change.replaced:
            # Which of several stands first, and which of them was replaced, no message says.
            self._needs_list = True
        self._dirty.add(key)
        if self._key_at(place) in self._desired:
            self._dirty.add(self._key_at(place))

    @staticmethod
    def _put(held: dict[_K, tuple[Route, ...]], key: _K, routes: tuple[Route, ...]) -> None:
        if routes:
            held[key] = routes
        else:
            held.pop(key, None)

    def plan(self, *, may_delete: bool) -> RoutePlan:
        """What has to be done where something may differ. Empty before the first list.

        Args:
            may_delete: The grace time is over; deletion also needs :attr:`certain`.
        """
        parts = PlanParts()
        if not self._listed_once:
            return parts.plan()
        may_delete = may_delete and self.certain
        settled: list[RouteKey] = []
        for key in self._dirty:
            found = plan_key(
                self._desired.get(key),
                self._ours.get(key, ()),
                self._foreign.get((key.table, key.destination), ()),
                may_delete=may_delete,
            )
            if found:
                parts.add(found)
            else:
                settled.append(key)
        self._dirty.difference_update(settled)
        return parts.plan()

    def applied(self, results: Iterable[OperationResult]) -> None:
        """What the kernel made of a plan. Failed operations stay dirty and call for a list."""
        for result in results:
            self._ours_listed = None
            operation = result.operation
            key = route_key(operation.route)
            there = self._ours.get(key, ())
            if not result.ok:
                self._needs_list = True
            elif operation.kind is OperationKind.REPLACE:
                others = tuple(each for each in there if each != operation.actual)
                self._ours[key] = (operation.route, *others)
            else:
                left = tuple(each for each in there if each != operation.route)
                self._put(self._ours, key, left)
