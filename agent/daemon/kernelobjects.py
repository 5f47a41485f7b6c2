"""Every keyed object of the agent's in the kernel: follow the world, write only what differs.

Joins the desired objects (:mod:`agent.mesh.desired`), one reconciler for each kind
(:mod:`agent.reconcile`) and the kernel's tables (:mod:`agent.kernel`). Iptables chains are not
keyed objects; :mod:`agent.daemon.kernelpass` has both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from agent.daemon.timers import jittered
from agent.kernel.monitor import KernelEvent
from agent.kernel.tables.routes import RouteTable
from agent.mesh.desired import DesiredObjects, IngressMember, desired_routes
from agent.mesh.firewall import source_member
from agent.mesh.kinds import route_kind
from agent.mesh.world import World
from agent.model import Link, Route, Uplink
from agent.model.family import Network
from agent.model.objects import SetMember
from agent.reconcile.objects import Operation, Result
from agent.reconcile.plan import Plan
from agent.reconcile.reconciler import Permission, Reconciler, Report, reconcile
from agent.reconcile.tracker import DeltaTracker, compare

__all__ = ["KernelObjects"]

_ROUTES_LOGGED = 4


class KernelObjects:
    """The agent's objects in one network namespace. Used by the loop's thread only.

    Args:
        protocol: rtm_protocol of the agent's routes.
        clock: Monotonic seconds.
        sources: Members of the sets of sources that may come in; None where the operator keeps
            the firewall. They are deleted before everything else and added after it.

    Attributes:
        permission: What the last pass might delete.
    """

    def __init__(
        self,
        routes: RouteTable,
        protocol: int,
        clock: Callable[[], float],
        sources: Reconciler[SetMember] | None = None,
    ) -> None:
        self._table = routes
        self._routes = Reconciler(
            route_kind(protocol), routes, clock=clock, jitter=lambda: jittered(1.0)
        )
        self._sources = sources
        self._desired = DesiredObjects()
        self.permission = Permission(may_delete=False)
        self._uplink: tuple[Uplink | None, Link | None] = (None, None)
        self._log = structlog.get_logger("agent.routes")

    @property
    def desired_count(self) -> int:
        """How many routes are desired."""
        return len(self._routes.desired)

    @property
    def port_ids(self) -> frozenset[int]:
        """Netlink ports the agent writes from, by which the monitor knows its own changes."""
        return self._table.port_ids

    def observe(self, event: KernelEvent) -> None:
        """Follow the monitor's report."""
        self._routes.observe(event.routes)
        if event.resync:
            self._routes.look_again()
        self._routes.links_changed(event.links | event.addresses, addresses=bool(event.addresses))

    def look_again(self) -> None:
        """List every object at the next pass."""
        self._routes.look_again()

    def forget(self) -> None:
        """Desire nothing any more, so that what is missing later is no drift."""
        self._routes.forget()
        if self._sources is not None:
            self._sources.forget()
        self._desired = DesiredObjects()

    def run(self, world: World, *, may_delete: bool, may_sweep: bool) -> Report[Route]:
        """Make the objects as ``world`` wants them, as far as it may be done now.

        Args:
            may_delete: Objects may go whose lease was seen in this run and is gone.
            may_sweep: Objects of an earlier run may go, too (promises 3 and 4).

        Returns:
            How the routes are after it; conditions and errors are those of all kinds.
        """
        self._follow(world)
        self._follow_uplink(world)
        self.permission = Permission(
            may_delete=may_delete and self._desired.certain, may_sweep=may_sweep
        )
        kinds = (self._routes,) if self._sources is None else (self._routes, self._sources)
        permission = replace(
            self.permission,
            harmful=lambda each: isinstance(each, Route) and world.shuts_off(each),
        )
        # The pass over the rules lists the members again, and reports on them.
        report = reconcile(kinds, permission)[0]
        self._log_changes(report.done)
        return report.with_conditions(self._desired.conditions)

    def _follow(self, world: World) -> None:
        """Desire the objects of ``world``."""
        changes = self._desired.follow(world)
        self._routes.want(changes.of(Route), known_gone=changes.known_gone)
        if self._sources is not None:
            members = (
                (source_member(each.link, each.network), wanted)
                for each, wanted in changes.of(IngressMember).items()
            )
            self._sources.want(
                {member: None if wanted is None else member for member, wanted in members},
                known_gone=changes.known_gone,
            )
        # Of foreign routes elsewhere nothing is known: one may be in the way now.
        if self._table.limit_foreign(world.config.cidrs if world.config else None):
            self._routes.look_again()

    def _follow_uplink(self, world: World) -> None:
        """Retry what failed because of the uplink as soon as the uplink changes."""
        links = world.host.links if world.host and world.uplink else ()
        index = world.uplink.index if world.uplink else None
        uplink = (world.uplink, next((each for each in links if each.index == index), None))
        if uplink != self._uplink:
            self._uplink = uplink
            self._routes.retry_now()

    def ingress(self, world: World) -> Mapping[str, frozenset[Network]]:
        """Return the sources that may come in by each link in ``world``."""
        self._follow(world)
        return self._desired.ingress

    def compare(self, world: World) -> DeltaTracker[Route]:
        """Compare the routes that ``world`` wants with a fresh list, without memory.

        Raises:
            KernelError: The routes could not be listed completely.
        """
        self._table.limit_foreign(world.config.cidrs if world.config else None)
        return compare(self._routes.kind, desired_routes(world).routes, self._table.list_all())

    def plan(self, world: World, *, may_delete: bool) -> Plan[Route]:
        """Return what a full comparison says now; nothing is changed. As :meth:`compare`."""
        certain = desired_routes(world).certain
        tracker = self.compare(world)
        return tracker.plan(may_delete=may_delete and certain, harmful=world.shuts_off)

    def remove_all(self) -> tuple[Result[Route], ...]:
        """Delete every route that bears the agent's protocol.

        Raises:
            KernelError: They could not be listed completely; nothing was changed.
        """
        tracker = compare(self._routes.kind, {}, self._table.list_all())
        results = self._table.apply(tracker.plan(may_delete=True).deletions)
        self._routes.look_again()
        return results

    def _log_changes(self, done: Sequence[Operation[Route]]) -> None:
        """Write one line for a pass; the routes themselves are named while they are few."""
        if done:
            shown = [f"{e.kind} {e.object} ({e.reason})" for e in done[:_ROUTES_LOGGED]]
            self._log.info("routes-changed", changed=len(done), routes=shown)
