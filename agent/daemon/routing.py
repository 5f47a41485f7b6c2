"""The route part of a pass: follow the world and the kernel, write only what differs.

Joins three pieces: what may differ (:class:`agent.mesh.delta.RouteDelta`), what may be tried
now (:class:`agent.mesh.pacing.Pacer`), and the kernel (:class:`agent.kernel.routes.RouteTable`).
A single change costs work for that one route; everything is listed again when messages were
lost, links or addresses changed, something was refused, or the timer says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from agent.daemon.timers import jittered
from agent.kernel.monitor import KernelEvent
from agent.kernel.routes import RouteListing, RouteTable
from agent.mesh.delta import RouteDelta
from agent.mesh.desired import desired_routes
from agent.mesh.pacing import Pacer
from agent.mesh.plan import (
    Operation,
    OperationResult,
    RoutePlan,
    plan_routes,
)
from agent.mesh.world import World
from agent.model import Condition, Link, Uplink
from agent.model.family import Address, Network

__all__ = ["PASS_S", "RoutesReport", "Routing"]

_ROUTES_TOLD = 4
PASS_S: Final = 5.0
"""How long one pass may write: the loop has more to do, and a watchdog. Only where each of tens of
thousands of peers has a next hop that the kernel looks for among all others does it matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutesReport:
    """How the routes stand after a pass.

    Attributes:
        desired, installed: Routes wanted, and how many of those are there; None: not known.
        drift: How many routes of ours differ from what is desired: missing, modified or extra.
            None: not known.
        failed: Operations that the kernel refused.
        again_in_s: When to come back for what was held back, None when nothing was.
        done: What this pass changed.
        repaired: Those of it that put right what somebody else had changed.
    """

    desired: int | None = None
    installed: int | None = None
    drift: int | None = None
    failed: int = 0
    again_in_s: float | None = None
    conditions: tuple[Condition, ...] = ()
    done: tuple[Operation, ...] = ()
    repaired: tuple[Operation, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every route that is wanted is known to be there."""
        return self.installed is not None and self.installed == self.desired

    def __str__(self) -> str:
        if self.desired is None:
            return "routes not known"
        if self.installed is None:
            return f"{self.desired} routes desired, not known which are in place"
        return f"{self.installed} of {self.desired} routes"


class Routing:
    """The routes of one protocol number in one table. Used by the loop's thread only.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, table: RouteTable, protocol: int, clock: Callable[[], float]) -> None:
        self._table = table
        self._clock = clock
        self._protocol = protocol
        self._delta = RouteDelta(protocol)
        self._pacer = Pacer(protocol=protocol, jitter=lambda: jittered(1.0))
        self._must_list = True
        self._listed_in: tuple[Network, ...] | None = None
        self._uplink: tuple[Uplink | None, Link | None] = (None, None)
        self._log = structlog.get_logger("agent.routes")

    @property
    def desired_count(self) -> int:
        """How many routes should be there."""
        return self._delta.desired_count

    @property
    def port_ids(self) -> frozenset[int]:
        """Netlink ports we write from, by which the monitor tells our own changes."""
        return self._table.port_ids

    def observe(self, event: KernelEvent) -> None:
        """Follow what the monitor saw."""
        for change in event.routes:
            self._delta.observed(change)
            self._pacer.observed(change)
        links = self._delta.links
        by_address = bool(event.addresses) and self._delta.have_sources  # which looks at each rival
        self._must_list = self._must_list or event.may_have_taken(links, by_address=by_address)
        if event.touches(links):
            self._pacer.links_changed()

    def look_again(self) -> None:
        """List everything at the next pass."""
        self._must_list = True

    def forget(self) -> None:
        """Want nothing any more, so that what is missing at the next world is no drift."""
        self._delta = RouteDelta(self._protocol)
        self._must_list = True

    def run(self, world: World, *, may_delete: bool, may_sweep: bool) -> RoutesReport:
        """Make the routes as ``world`` wants them, as far as it may be done now.

        Args:
            may_delete: Routes may go whose lease was seen in this life and is gone.
            may_sweep: Routes of an earlier life may go, too.

        Raises:
            KernelError: The routes could not be listed completely; nothing was changed.
        """
        self._delta.world_changed(world)
        self._follow_uplink(world)
        # Of foreign routes elsewhere nothing is known: one may stand where ours would go.
        moved = _ranges(world) != self._listed_in
        if moved or self._must_list or self._delta.needs_list:
            self._list(world)
        now_s = self._clock()
        plan = self._delta.plan(may_delete=may_delete, may_sweep=may_sweep)
        allowed, next_s = self._pacer.allow(plan, now_s)
        results = self._table.apply(allowed, for_s=PASS_S)
        self._delta.applied(results)
        # Somebody else added the very route meanwhile, or our list was older than an event:
        # no failure, only a reason to look again.
        outrun = [result for result in results if result.outrun]
        self._pacer.done([result for result in results if not result.outrun], now_s)
        self._must_list = self._must_list or bool(outrun)
        failed = sum(not result.ok for result in results) - len(outrun)
        unfinished = len(results) < len(allowed.operations)
        uncertain = self._delta.needs_list and not failed
        if outrun or unfinished or uncertain:
            again_in_s: float | None = 0.0
        elif next_s is not None:
            again_in_s = max(0.0, next_s - now_s)
        else:
            again_in_s = jittered(1.0) if failed else None
        return self._report(plan, results, failed, again_in_s)

    def _report(
        self,
        plan: RoutePlan,
        results: tuple[OperationResult, ...],
        failed: int,
        again_in_s: float | None,
    ) -> RoutesReport:
        done = tuple(result.operation for result in results if result.ok)
        self._tell(done)
        return RoutesReport(
            desired=self._delta.desired_count,
            installed=self._delta.desired_count - self._delta.missing_count,
            drift=self._delta.differing_count,
            failed=failed,
            again_in_s=again_in_s,
            done=done,
            repaired=self._delta.drifted(plan, results),
            conditions=(
                *self._delta.conditions,
                *plan.conditions,
                *self._pacer.conditions(self._delta),
            ),
        )

    def _follow_uplink(self, world: World) -> None:
        """What failed by the uplink as it was is due again as soon as it is otherwise."""
        links = world.host.links if world.host and world.uplink else ()
        index = world.uplink.index if world.uplink else None
        uplink = (world.uplink, next((each for each in links if each.index == index), None))
        if uplink != self._uplink:
            self._uplink = uplink
            self._pacer.uplink_changed()

    def gateways(self, world: World) -> frozenset[Address]:
        """Node addresses of the peers that ``world`` has routes to, without computing all of it."""
        self._delta.world_changed(world)
        return self._delta.gateways

    def plan(self, world: World, *, may_delete: bool) -> RoutePlan:
        """What a full comparison says now, from a fresh list and without memory."""
        desired = desired_routes(world)
        listing = self._table.list_routes(within=_ranges(world))
        return plan_routes(
            desired.routes,
            listing.ours,
            listing.foreign,
            may_delete=may_delete and desired.certain,
            harmful=world.shuts_off,
        )

    def listing(self, world: World) -> RouteListing:
        """Every route of ours and every foreign one in the mesh's range, from a fresh list."""
        return self._table.list_routes(within=_ranges(world))

    def remove_all(self) -> tuple[OperationResult, ...]:
        """Delete every route that bears our protocol.

        Raises:
            KernelError: They could not be listed completely; nothing was changed.
        """
        plan = plan_routes({}, self._table.list_ours(), (), may_delete=True)
        results = self._table.apply(plan)
        self._must_list = True
        return results

    def _list(self, world: World) -> None:
        listing = self._table.list_routes(within=_ranges(world), same=self._delta.same)
        self._delta.actual_listed(listing.ours, listing.foreign)
        self._listed_in = _ranges(world)
        self._must_list = False

    def _tell(self, done: tuple[Operation, ...]) -> None:
        """One line for a pass; the routes themselves are named while they are few."""
        if done:
            self._log.info(
                "routes-changed",
                changed=len(done),
                routes=[
                    f"{each.kind} {each.route} ({each.reason})" for each in done[:_ROUTES_TOLD]
                ],
            )


def _ranges(world: World) -> tuple[Network, ...] | None:
    """The ranges whose foreign routes matter."""
    return world.config.cidrs if world.config else None
