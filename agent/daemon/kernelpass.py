"""One pass over the kernel: desired state of the world, compared with what is there, repaired.

Set, firewall, routes, in that order: what opens and closes stands before what carries. Each
part reports its own failure as a condition and leaves the others alone; what failed is tried
again by the loop's own backoff.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from agent.daemon.forwarding import Forwarding
from agent.errors import FirewallError, HostmeshError, KernelError
from agent.kernel.firewall.base import Firewall
from agent.kernel.ipset import PeerSet
from agent.kernel.routes import RouteTable
from agent.mesh.desired import desired_routes
from agent.mesh.firewall import FirewallWants, desired_firewall
from agent.mesh.plan import Operation, RoutePlan, plan_routes
from agent.mesh.world import World
from agent.model import Condition, Severity

__all__ = ["KernelPass", "PassReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """What one pass found and did.

    Attributes:
        desired, installed: Routes wanted, and of those there after the pass.
        operations: What was planned.
        failed: How many operations or parts failed; the loop tries again.
    """

    desired: int = 0
    installed: int = 0
    operations: tuple[Operation, ...] = ()
    failed: int = 0
    conditions: tuple[Condition, ...] = ()


class KernelPass:
    """The only caller of the kernel room's writers.

    Args:
        firewall: None when settings say that the operator keeps the rules.
        forwarding: Switches net.ipv4.ip_forward on, once, with what that needs.
    """

    def __init__(
        self,
        *,
        table: RouteTable,
        firewall: Firewall | None,
        peer_set: PeerSet,
        forwarding: Forwarding,
    ) -> None:
        self._table = table
        self._firewall = firewall
        self._peer_set = peer_set
        self._forwarding = forwarding
        self._log = structlog.get_logger("agent.kernel")

    def run(self, world: World, *, may_delete: bool) -> PassReport:
        """Make the kernel as ``world`` wants it, as far as it can be done now."""
        conditions: list[Condition] = []
        failed = 0
        failed += self._part(conditions, "forwarding", lambda: self._forward(world))
        failed += self._part(conditions, "firewall", lambda: self._filter(world))
        try:
            routes = self._route(world, may_delete=may_delete)
        except KernelError as error:
            conditions.append(refused("routes", error))
            return PassReport(failed=failed + 1, conditions=tuple(conditions))
        return PassReport(
            desired=routes.desired,
            installed=routes.installed,
            operations=routes.operations,
            failed=failed + routes.failed,
            conditions=(*conditions, *routes.conditions),
        )

    def plan(self, world: World, *, may_delete: bool) -> RoutePlan:
        """What :meth:`run` would do to the routes now, without doing it."""
        ours, foreign = self._table.list_routes()
        return plan_routes(desired_routes(world).routes, ours, foreign, may_delete=may_delete)

    def check_firewall(self, world: World) -> tuple[str, ...]:
        """What :meth:`run` would do to the rules now, a line each."""
        if self._firewall is None:
            return ()
        return self._firewall.check(self._firewall_wants(world)).differences

    def show_firewall(self) -> Mapping[str, Any]:
        """Our rules as they stand, with their place among the others."""
        return {"rules": list(self._firewall.show())} if self._firewall else {"rules": []}

    def remove(self) -> tuple[str, ...]:
        """Take everything of ours out of the kernel. Lines of what was done.

        Routes go last: as long as rules of ours stand, nothing new is let through.

        Raises:
            KernelError: Something would not go; the rest was removed, run it again.
        """
        done: list[str] = []
        if self._firewall is not None:
            done += self._firewall.remove()
        if self._peer_set.remove():
            done.append("removed the set of peers' addresses")
        done += self._forwarding.undo()
        ours, foreign = self._table.list_routes()
        plan = plan_routes({}, ours, foreign, may_delete=True)
        results = self._table.apply(plan)
        errors = [result.error for result in results if result.error]
        if errors:
            raise KernelError(
                f"{len(errors)} of {len(results)} routes would not go: {errors[0]}",
                hint="run agentctl cleanup again",
            )
        if results:
            done.append(f"removed {len(results)} routes")
        return tuple(done)

    def _forward(self, world: World) -> tuple[Condition, ...]:
        if not world.docker.reachable:
            return ()  # nothing to forward to yet, and Docker switches it on itself
        self._forwarding.ensure()
        return ()

    def _filter(self, world: World) -> tuple[Condition, ...]:
        if self._firewall is None:
            return ()
        wants = self._firewall_wants(world)
        self._peer_set.ensure(wants.peers)
        report = self._firewall.apply(wants)
        if report.differences:
            self._log.info("firewall repaired", changes=len(report.differences))
            for difference in report.differences:
                self._log.debug("firewall change", change=difference)
        return report.conditions

    @staticmethod
    def _firewall_wants(world: World) -> FirewallWants:
        return desired_firewall(world)

    def _route(self, world: World, *, may_delete: bool) -> PassReport:
        desired = desired_routes(world)
        ours, foreign = self._table.list_routes()
        plan = plan_routes(desired.routes, ours, foreign, may_delete=may_delete)
        results = self._table.apply(plan)
        conditions = [*desired.conditions, *plan.conditions]
        failed = 0
        for result in results:
            operation = result.operation
            if result.error is not None:
                failed += 1
                conditions.append(refused(str(operation.route.destination), result.error))
            else:
                self._log.info(
                    f"route {operation.action}",
                    destination=str(operation.route.destination),
                    gateway=str(operation.route.gateway or operation.route.kind),
                    reason=operation.reason,
                )
        missing = failed + len(plan.conditions)
        return PassReport(
            desired=len(desired.routes),
            installed=len(desired.routes) - missing,
            operations=plan.operations,
            failed=failed,
            conditions=tuple(conditions),
        )

    @staticmethod
    def _part(
        conditions: list[Condition], subject: str, run: Callable[[], tuple[Condition, ...]]
    ) -> int:
        try:
            conditions.extend(run())
        except HostmeshError as error:
            conditions.append(refused(subject, error))
            return 1
        return 0


def refused(subject: str, error: HostmeshError) -> Condition:
    """A failed operation as a condition; it stays until the operation succeeds."""
    name = "firewall-refused" if isinstance(error, FirewallError) else "kernel-refused"
    return Condition(
        name=name,
        subject=subject,
        severity=Severity.ERROR,
        cause=error.message,
        hint=error.hint or "it is tried again with increasing pauses",
    )
