"""Desired and actual routes side by side, compared only where something changed. Pure.

A full pass over 65,000 peers is never needed for one of them: :class:`RouteDelta` remembers
which keys may differ. Its plan equals what :func:`agent.mesh.plan.plan_routes` says about the
same state; a property test holds the two together. It only remembers what it is told, so a new
complete list (:meth:`RouteDelta.actual_listed`) is due whenever messages may have been lost,
links or addresses changed, or the timer says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from agent.mesh.desired import DesiredRoutes, PeerRules, desired_routes, summarise
from agent.mesh.plan import (
    Conflict,
    Operation,
    OperationKind,
    OperationResult,
    RoutePlan,
    order_operations,
    plan_key,
)
from agent.mesh.world import RouteKey, World, route_key
from agent.model import Condition, Lease, Route

__all__ = ["RouteChange", "RouteDelta"]


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
    """

    def __init__(self) -> None:
        self._desired: dict[RouteKey, Route] = {}
        self._key_of_peer: dict[IPv4Network, RouteKey] = {}
        self._refused: dict[IPv4Network, Condition] = {}
        self._general: tuple[Condition, ...] = ()
        self._ours: dict[RouteKey, tuple[Route, ...]] = {}
        self._foreign: dict[tuple[int, IPv4Network], tuple[Route, ...]] = {}
        self._dirty: set[RouteKey] = set()
        self._listed = False
        self._rules: PeerRules | Condition | None = None
        self._certain = False

    @property
    def certain(self) -> bool:
        """As ``DesiredRoutes.certain`` of the last world."""
        return self._certain

    @property
    def desired(self) -> Mapping[RouteKey, Route]:
        """What should be there."""
        return self._desired

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """As ``DesiredRoutes.conditions`` of the world so far."""
        return self._general or summarise(list(self._refused.values()))

    def world_changed(self, world: World) -> None:
        """Compute desired anew from everything; keys that differ become dirty."""
        wanted = desired_routes(world)
        for key, route in wanted.routes.items():
            if self._desired.get(key) != route:
                self._dirty.add(key)
        self._dirty.update(key for key in self._desired if key not in wanted.routes)
        self._desired = dict(wanted.routes)
        if wanted.certain != self._certain:
            self._dirty.update(self._ours)
        self._certain = wanted.certain
        self._rules = PeerRules.of(world)
        self._remember_peers(world, wanted)

    def _remember_peers(self, world: World, wanted: DesiredRoutes) -> None:
        """What each peer brought, so that its change alone can be told apart later."""
        self._key_of_peer = {}
        self._refused = {}
        self._general = ()
        if not isinstance(self._rules, PeerRules):
            self._general = wanted.conditions
            return
        by_place = {(key.table, key.destination): key for key in wanted.routes}
        for subnet, peer in world.peers.items():
            key = by_place.get((world.route_table, subnet))
            if key is not None:
                self._key_of_peer[subnet] = key
            else:
                outcome = self._rules.outcome(peer)
                if isinstance(outcome, Condition):
                    self._refused[subnet] = outcome

    def peer_changed(self, subnet: IPv4Network, peer: Lease | None) -> None:
        """One peer's lease appeared, changed or (None) is known to be gone.

        Everything else of the world is as in the last :meth:`world_changed`; a change of own
        lease, config, uplink, host or dead peers goes there.
        """
        if not isinstance(self._rules, PeerRules):
            return
        outcome = None if peer is None else self._rules.outcome(peer)
        before = self._key_of_peer.pop(subnet, None)
        self._refused.pop(subnet, None)
        if isinstance(outcome, Condition):
            self._refused[subnet] = outcome
        after = route_key(outcome) if isinstance(outcome, Route) else None
        if before is not None and before != after:
            self._desired.pop(before, None)
            self._dirty.add(before)
        if after is not None and isinstance(outcome, Route):
            self._key_of_peer[subnet] = after
            if self._desired.get(after) != outcome:
                self._desired[after] = outcome
                self._dirty.add(after)

    def actual_listed(self, ours: Iterable[Route], foreign: Iterable[Route]) -> None:
        """A complete list from the kernel replaces all that was remembered of it."""
        by_key: dict[RouteKey, tuple[Route, ...]] = {}
        for route in ours:
            key = route_key(route)
            by_key[key] = (*by_key.get(key, ()), route)
        by_place: dict[tuple[int, IPv4Network], tuple[Route, ...]] = {}
        for route in foreign:
            place = (route.table, route.destination)
            by_place[place] = (*by_place.get(place, ()), route)
        self._ours = by_key
        self._foreign = by_place
        self._listed = True
        desired = self._desired
        self._dirty = {key for key, there in by_key.items() if there != (desired.get(key),)}
        self._dirty.update(key for key in desired if key not in by_key)
        if by_place:
            self._dirty.update(key for key in desired if (key.table, key.destination) in by_place)

    def observed(self, change: RouteChange, protocol: int) -> None:
        """A notification from the kernel about one route."""
        route, key = change.route, route_key(change.route)
        place = (route.table, route.destination)
        if change.replaced and not change.gone:
            self._forget_key(key)
        if route.protocol == protocol:
            there = tuple(each for each in self._ours.get(key, ()) if each != route)
            self._put_ours(key, there if change.gone else (*there, route))
        else:
            rivals = tuple(each for each in self._foreign.get(place, ()) if each != route)
            self._put_foreign(place, rivals if change.gone else (*rivals, route))
        self._dirty.add(key)
        self._dirty.update(
            each
            for each in (RouteKey(route.table, route.destination, 0, 0), *self._keys_at(place))
            if each in self._desired
        )

    def _keys_at(self, place: tuple[int, IPv4Network]) -> tuple[RouteKey, ...]:
        key = self._key_of_peer.get(place[1])
        return (key,) if key is not None else ()

    def _forget_key(self, key: RouteKey) -> None:
        self._ours.pop(key, None)
        place = (key.table, key.destination)
        rivals = tuple(each for each in self._foreign.get(place, ()) if route_key(each) != key)
        self._put_foreign(place, rivals)

    def _put_ours(self, key: RouteKey, routes: tuple[Route, ...]) -> None:
        if routes:
            self._ours[key] = routes
        else:
            self._ours.pop(key, None)

    def _put_foreign(self, place: tuple[int, IPv4Network], routes: tuple[Route, ...]) -> None:
        if routes:
            self._foreign[place] = routes
        else:
            self._foreign.pop(place, None)

    def plan(self, *, may_delete: bool) -> RoutePlan:
        """What has to be done to the keys that may differ. Empty before the first list.

        Args:
            may_delete: The grace time is over; deletion also needs :attr:`certain`.
        """
        if not self._listed:
            return RoutePlan()
        operations: list[Operation] = []
        conflicts: list[Conflict] = []
        held: list[Route] = []
        settled: list[RouteKey] = []
        for key in self._dirty:
            parts = plan_key(
                self._desired.get(key),
                self._ours.get(key, ()),
                self._foreign.get((key.table, key.destination), ()),
                may_delete=may_delete and self._certain,
            )
            if not parts:
                settled.append(key)
            for part in parts:
                if isinstance(part, Operation):
                    operations.append(part)
                elif isinstance(part, Conflict):
                    conflicts.append(part)
                else:
                    held.append(part)
        self._dirty.difference_update(settled)
        return RoutePlan(
            operations=order_operations(operations),
            conflicts=tuple(conflicts),
            held=tuple(held),
        )

    def applied(self, results: Iterable[OperationResult]) -> None:
        """What the kernel made of a plan. Failed operations stay dirty."""
        for result in results:
            if result.error is not None:
                continue
            operation = result.operation
            key = route_key(operation.route)
            if operation.kind is OperationKind.REPLACE:
                there = tuple(each for each in self._ours.get(key, ()) if each != operation.actual)
                self._ours[key] = (operation.route, *there)
            else:
                self._put_ours(
                    key,
                    tuple(each for each in self._ours.get(key, ()) if each != operation.route),
                )
