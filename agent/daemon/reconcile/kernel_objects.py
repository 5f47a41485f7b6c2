"""Every keyed object of the agent's in the kernel: follow the world, write only what differs.

Joins the desired objects (:mod:`agent.mesh.desired`), one reconciler for each kind
(:mod:`agent.reconcile`) and the kernel's tables (:mod:`agent.kernel`). Iptables chains are not
keyed objects; :mod:`agent.daemon.reconcile.kernel_pass` has both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import structlog

from agent.kernel.netlink_monitor import KernelEvent
from agent.kernel.tables.addresses import AddressTable
from agent.kernel.tables.links import LinkTable
from agent.kernel.tables.neighbours import FdbTable, NeighbourTable
from agent.kernel.tables.routes import RouteTable
from agent.kernel.wireguard.parts import WireGuardParts
from agent.mesh.backends import TunnelPort
from agent.mesh.desired import DesiredObjects, IngressMember, desired_objects, is_certain
from agent.mesh.firewall import slice_member, source_member
from agent.mesh.networks import SliceMembers
from agent.mesh.object_kinds import ADDRESS, FDB, LINK, NEIGHBOUR, route_kind
from agent.mesh.world import World
from agent.model import (
    Condition,
    FdbEntry,
    Link,
    LinkAddress,
    LinkSpec,
    Neighbour,
    Network,
    Route,
    SetMember,
    Uplink,
)
from agent.reconcile.interfaces import Operation, Result
from agent.reconcile.object_kind import Kind
from agent.reconcile.plan import Plan
from agent.reconcile.reconciler import Permission, Reconciler, Report, reconcile
from agent.reconcile.tracker import DeltaTracker, compare
from agent.retry import jittered

__all__ = ["KernelObjects", "ObjectsReport", "Plans"]

_LOGGED = 4

Plans = tuple[tuple[Kind[Any], Plan[Any]], ...]
"""Plans by kind, in the order in which kinds depend on each other."""


@dataclass(frozen=True, slots=True)
class ObjectsReport:
    """How the objects of every kind are after a pass."""

    by_kind: tuple[Report[Any], ...]
    conditions: tuple[Condition, ...]
    again_in_s: float | None

    @property
    def routes(self) -> Report[Route]:
        """Return the report on routes: operators count them."""
        return next(each for each in self.by_kind if each.kind and each.kind.name == "route")

    @property
    def complete(self) -> bool:
        """Return whether every desired object is known to exist."""
        return all(each.complete for each in self.by_kind)

    @property
    def failed(self) -> int:
        """Return how many operations and lists the kernel refused."""
        return sum(each.failed for each in self.by_kind)


class KernelObjects:
    """The agent's objects in one network namespace. Used by the loop's thread only.

    Args:
        protocol: rtm_protocol of the agent's routes.
        clock: Monotonic seconds.
        sources: Members of the sets of sources that may come in; None where the operator keeps
            the firewall. They are deleted before everything else and added after it.
        wireguard: None where no device of WireGuard is ever wanted.

    Attributes:
        permission: What the last pass might delete.
        sources_failed: Whether the last pass could not write the sources, such as where another
            program destroyed their set. The pass over the rules makes it again.
    """

    def __init__(
        self,
        routes: RouteTable,
        protocol: int,
        clock: Callable[[], float],
        sources: Reconciler[SetMember] | None = None,
        wireguard: WireGuardParts | None = None,
    ) -> None:
        self._table = routes
        self._addresses = AddressTable(session=routes.session)
        new = partial(Reconciler[Any], clock=clock, jitter=lambda: jittered(1.0))
        start = wireguard.userspace.start if wireguard else None
        kinds: dict[type[Any], tuple[Kind[Any], Any]] = {
            LinkSpec: (LINK, LinkTable(routes.session, start_wireguard=start)),
            LinkAddress: (ADDRESS, self._addresses),
            Neighbour: (NEIGHBOUR, NeighbourTable(session=routes.session)),
            FdbEntry: (FDB, FdbTable(session=routes.session)),
            **(wireguard.tables if wireguard else {}),
            Route: (route_kind(protocol), routes),
        }
        self._by_type = {kind: new(*pair) for kind, pair in kinds.items()}
        """In the order in which they depend on each other."""
        self._sources = sources
        self._handshakes = wireguard.handshakes if wireguard else None
        self._desired = DesiredObjects()
        self._slices = SliceMembers()
        self.permission = Permission(may_delete=False)
        self.sources_failed = False
        self._uplink: tuple[Uplink | None, Link | None] = (None, None)
        self._log = structlog.get_logger("agent.objects")

    @property
    def _all(self) -> tuple[Reconciler[Any], ...]:
        return tuple(self._by_type.values())

    @property
    def port_ids(self) -> frozenset[int]:
        """Netlink ports the agent writes from, by which the monitor knows its own changes."""
        return self._table.port_ids

    def observe(self, event: KernelEvent) -> None:
        """Follow the monitor's report."""
        for kind, each in self._by_type.items():
            each.observe(event.of(kind))
            if event.resync:
                each.look_again()
            each.links_changed(event.links | event.addresses, addresses=bool(event.addresses))

    def look_again(self) -> None:
        """List every object at the next pass."""
        for each in self._all:
            each.look_again()

    def forget(self) -> None:
        """Desire nothing any more, so that what is missing later is no drift."""
        self._list_servers(listed=False)
        for each in self._all:
            each.forget()
        if self._sources is not None:
            self._sources.forget()
        self._desired = DesiredObjects()
        self._slices = SliceMembers()

    def run(self, world: World, *, may_delete: bool, may_sweep: bool) -> ObjectsReport:
        """Make the objects as ``world`` wants them, as far as it may be done now.

        Args:
            may_delete: Objects may go whose lease was seen in this run and is gone.
            may_sweep: Objects of an earlier run may go, too (promises 3 and 4).
        """
        self._follow(world)
        self._follow_uplink(world)
        may_delete = may_delete and self._desired.certain
        self.permission = self._permission(world, may_delete=may_delete, may_sweep=may_sweep)
        sources = () if self._sources is None else (self._sources,)
        with self._table.session.links_listed_once():
            all_reports = reconcile((*self._all, *sources), self.permission)
        # The pass over the rules lists the sources again, and reports on them.
        reports = all_reports[: len(self._all)]
        self.sources_failed = any(each.failed for each in all_reports[len(self._all) :])
        self._log_changes([operation for each in reports for operation in each.done])
        later_s = self._handshakes.begin() if self._handshakes else None
        again = [each.again_in_s for each in all_reports]
        found = chain.from_iterable(each.conditions for each in reports)
        conditions = (*self._desired.conditions, *self._slices.conditions, *found)
        due_s = [each for each in (*again, later_s) if each is not None]
        return ObjectsReport(reports, conditions, min(due_s, default=None))

    @staticmethod
    def _permission(world: World, *, may_delete: bool, may_sweep: bool = True) -> Permission:
        return Permission(
            may_delete=may_delete,
            may_sweep=may_sweep,
            harmful=lambda each: isinstance(each, Route) and world.shuts_off(each),
        )

    def _follow(self, world: World) -> None:
        """Desire the objects of ``world``."""
        changes = self._desired.follow(world)
        for kind, each in self._by_type.items():
            each.want(changes.of(kind), known_gone=changes.known_gone)
        members = [
            *(
                (source_member(each.link, each.network), wanted)
                for each, wanted in changes.of(IngressMember).items()
            ),
            *(
                (slice_member(each.name, each.subnet), wanted)
                for each, wanted in self._slices.follow(world).items()
            ),
        ]
        if self._sources is not None:
            self._sources.want(
                {member: None if wanted is None else member for member, wanted in members},
                known_gone=changes.known_gone,
            )
        self._limit_foreign(world)
        self._list_servers(listed=world.config is not None and world.config.has_names)

    def _list_servers(self, *, listed: bool) -> None:
        """Look at the name servers' addresses or no longer: they stay where they are then."""
        if listed is not self._addresses.of_servers:
            self._addresses.of_servers = listed
            self._by_type[LinkAddress].look_again()

    def _limit_foreign(self, world: World) -> None:
        """List foreign routes in the mesh's ranges only; elsewhere one may be in the way now."""
        if self._table.limit_foreign(world.config.cidrs if world.config else None):
            self._by_type[Route].look_again()

    def _follow_uplink(self, world: World) -> None:
        """Retry what failed because of the uplink as soon as the uplink changes."""
        links = world.host.links if world.host and world.uplink else ()
        index = world.uplink.index if world.uplink else None
        uplink = (world.uplink, next((each for each in links if each.index == index), None))
        if uplink != self._uplink:
            self._uplink = uplink
            for each in self._all:
                each.retry_now()

    @property
    def ingress_links(self) -> tuple[str, ...]:
        """Return the names of links by which peers may deliver in the world of the last pass."""
        return self._desired.ingress_links

    @property
    def tunnels(self) -> tuple[TunnelPort, ...]:
        """Return the ports by which tunnels' packets come in, as :attr:`ingress_links`."""
        return self._desired.tunnels

    @property
    def usable(self) -> bool:
        """Return whether the mesh's backend could be set up once in this run."""
        return self._desired.usable

    def ingress(self, world: World) -> Mapping[str, frozenset[Network]]:
        """Return the sources that may come in by each link in ``world``."""
        self._follow(world)
        return self._desired.ingress

    def compare(self, world: World) -> dict[type[Any], DeltaTracker[Any]]:
        """Compare what ``world`` wants with fresh lists, without memory, by type of object.

        Raises:
            KernelError: One kind could not be listed completely.
        """
        self._limit_foreign(world)
        self._list_servers(listed=world.config is not None and world.config.has_names)
        desired = desired_objects(world)
        with self._table.session.links_listed_once():
            return {
                kind: compare(each.kind, desired.of(kind), each.table.list_all())
                for kind, each in self._by_type.items()
            }

    def plan(self, world: World, *, may_delete: bool) -> Plans:
        """Return what a full comparison says now; nothing is changed. As :meth:`compare`."""
        permission = self._permission(world, may_delete=may_delete and is_certain(world))
        return tuple(
            (
                self._by_type[kind].kind,
                tracker.plan(may_delete=permission.may_delete, harmful=permission.harmful),
            )
            for kind, tracker in self.compare(world).items()
        )

    def remove_all(self) -> tuple[Result[Any], ...]:
        """Delete every object with the owner mark, dependent kinds first.

        Raises:
            KernelError: They could not be listed completely; the rest was left as it is.
        """
        self.forget()
        results: list[Result[Any]] = []
        for each in reversed(self._all):
            plan = compare(each.kind, {}, each.table.list_all()).plan(may_delete=True)
            results += each.table.apply(plan.deletions)
        return tuple(results)

    def _log_changes(self, done: Sequence[Operation[Any]]) -> None:
        """Write one line for a pass; the objects themselves are named while they are few."""
        if done:
            shown = [f"{e.kind} {e.object} ({e.reason})" for e in done[:_LOGGED]]
            self._log.info("objects-changed", changed=len(done), objects=shown)
