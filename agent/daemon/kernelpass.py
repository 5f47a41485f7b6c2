"""One pass over the kernel: desired state of the world, compared with what is there, repaired.

Set, firewall, routes, in that order: what opens and closes stands before what carries. Each
part reports its own failure as a condition and leaves the others alone; what failed is tried
again by the loop's own backoff.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network

import structlog

from agent.daemon.forwarding import Forwarding
from agent.errors import FirewallError, HostmeshError, KernelError
from agent.kernel.firewall import Firewall
from agent.kernel.routes import RouteTable
from agent.mesh.desired import DesiredRoutes, desired_routes
from agent.mesh.firewall import FirewallWants, desired_firewall
from agent.mesh.plan import Operation, RoutePlan, describe_route, plan_routes
from agent.mesh.world import World
from agent.model import Condition, Severity

__all__ = ["KernelPass", "PassReport"]

_ROUTES_TOLD = 4


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
        forwarding: Forwarding,
    ) -> None:
        self._table = table
        self._firewall = firewall
        self._forwarding = forwarding
        self._log = structlog.get_logger("agent.kernel")

    @property
    def port_ids(self) -> frozenset[int]:
        """Netlink ports we write from, by which the monitor tells our own changes."""
        return self._table.port_ids

    def run(self, world: World, *, may_delete: bool, docker_seen: bool) -> PassReport:
        """Make the kernel as ``world`` wants it, as far as it can be done now.

        Args:
            may_delete: Routes of ours that are not wanted may go (promises 3 and 4).
            docker_seen: Docker has said which networks there are. Before that rules are
                left as they are: not knowing a network must not close it.
        """
        desired = desired_routes(world)
        conditions: list[Condition] = []
        failed = 0
        if docker_seen:
            failed += self._part(conditions, "forwarding", lambda: self._forward(world))
            failed += self._part(conditions, "firewall", lambda: self._filter(world, desired))
        try:
            routes = self._route(world, desired, may_delete=may_delete)
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
        listing = self._table.list_routes(within=cidr_of(world))
        return plan_routes(
            desired_routes(world).routes, listing.ours, listing.foreign, may_delete=may_delete
        )

    def check_firewall(self, world: World) -> tuple[str, ...]:
        """What :meth:`run` would do to the rules now, a line each."""
        if self._firewall is None:
            return ()
        return self._firewall.check(firewall_wants(world, desired_routes(world))).edits

    def show_firewall(self) -> str:
        """Our rules as they stand, with their place among the others; "" when not managed."""
        return self._firewall.show() if self._firewall else ""

    def remove(self) -> tuple[str, ...]:
        """Take everything of ours out of the kernel. Lines of what was done.

        Routes go last: as long as rules of ours stand, nothing new is let through.

        Raises:
            KernelError: Something would not go; the rest was removed, run it again.
        """
        done: list[str] = []
        if self._firewall is not None:
            done += self._firewall.remove().edits
        done += self._forwarding.undo()
        plan = plan_routes({}, self._table.list_ours(), (), may_delete=True)
        results = self._table.apply(plan)
        errors = [result.problem for result in results if not result.ok]
        if errors:
            raise KernelError(
                f"{len(errors)} of {len(results)} routes would not go: {errors[0]}",
                hint="run agentctl cleanup again",
            )
        if results:
            done.append(f"removed {len(results)} routes")
        return tuple(done)

    def _forward(self, world: World) -> tuple[Condition, ...]:
        if world.docker is not None and world.docker.reachable:
            self._forwarding.ensure()  # Docker off: nothing to forward to, and it does it itself
        return ()

    def _filter(self, world: World, desired: DesiredRoutes) -> tuple[Condition, ...]:
        if self._firewall is None:
            return ()
        wants = firewall_wants(world, desired)
        return (*wants.conditions, *self._firewall.apply(wants).conditions)

    def _route(self, world: World, desired: DesiredRoutes, *, may_delete: bool) -> PassReport:
        listing = self._table.list_routes(within=cidr_of(world))
        plan = plan_routes(
            desired.routes,
            listing.ours,
            listing.foreign,
            may_delete=may_delete and desired.certain,
        )
        results = self._table.apply(plan)
        conditions = [*desired.conditions, *plan.conditions]
        conditions.extend(
            refused(str(result.operation.route.destination), KernelError(result.problem))
            for result in results
            if not result.ok
        )
        failed = sum(not result.ok for result in results)
        self._tell(tuple(result.operation for result in results if result.ok))
        missing = failed + len(plan.conditions)
        return PassReport(
            desired=len(desired.routes),
            installed=len(desired.routes) - missing,
            operations=plan.operations,
            failed=failed,
            conditions=tuple(conditions),
        )

    def _tell(self, done: tuple[Operation, ...]) -> None:
        """One line for a pass; the routes themselves are named while they are few."""
        if done:
            self._log.info(
                "routes-changed",
                changed=len(done),
                routes=[
                    f"{each.kind} {describe_route(each.route)} ({each.reason})"
                    for each in done[:_ROUTES_TOLD]
                ],
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


def cidr_of(world: World) -> IPv4Network | None:
    """The range whose foreign routes matter."""
    return world.config.cidr if world.config else None


def firewall_wants(world: World, desired: DesiredRoutes) -> FirewallWants:
    """What the firewall should let pass in ``world``.

    Raises:
        FirewallError: The world cannot be said in rules (an odd interface name).
    """
    if world.config is None or world.own is None or world.uplink is None:
        raise FirewallError("the mesh, the lease or the uplink is not known")
    docker = world.docker
    try:
        return desired_firewall(
            cidr=world.config.cidr,
            lease=world.own.subnet,
            uplink=world.uplink.name,
            peers=(route.gateway for route in desired.routes.values() if route.gateway),
            networks=docker.networks if docker else (),
            docker_backend=docker.firewall_backend if docker else "",
        )
    except ValueError as error:
        raise FirewallError(str(error), hint="name another uplink in agent.toml") from error


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
