"""``hostmesh-agent --once``: one look at etcd, one pass over the kernel, no thread.

For image builds, rescue shells and seeing what an agent would do before it runs. It claims
nothing and touches neither Docker nor the lease.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from agent.daemon.membership.etcd_endpoint import look_up
from agent.daemon.reconcile.kernel_objects import ObjectsReport
from agent.daemon.reconcile.kernel_pass import KernelPass
from agent.daemon.state.agent_state import closed_endpoints, count_routes
from agent.daemon.store.host_lock import HostLock
from agent.daemon.store.state_file import StateFile
from agent.daemon.wiring import kernel_pass
from agent.errors import CannotTell, Refused, StateError
from agent.mesh.world import World
from agent.model import View
from agent.reconcile.plan import Plan
from agent.registry import trust
from agent.registry.copy import copy_file
from agent.settings import Settings
from agent.standalone.inspection import inspect_host

__all__ = ["run_once"]

_PASSES_MOST = 100
_RULES_WAIT = "Docker does not answer: rules that open something wait for it"


def run_once(settings: Settings, *, dry_run: bool) -> tuple[int, tuple[str, ...]]:
    """Reconcile once, or with ``dry_run`` say what would be done.

    Returns:
        The exit status, as ``agentctl diff``'s: 0 nothing differs (any more), 1 something
        does; and lines for the operator.

    Raises:
        CannotTell: This host has no lease, or has left.
        Refused: An agent runs here, or etcd says what an agent would not believe.
        HostmeshError: etcd, the kernel or iptables did not do what was needed.
    """
    if dry_run:
        return _would(*_found(settings))
    with HostLock(settings.agent.run_dir, "hostmesh-agent --once"):
        return _do(*_found(settings))


def _found(settings: Settings) -> tuple[KernelPass, World]:
    state = StateFile(settings.agent.state_dir)
    world = _world(settings, left=state.now.left)
    return kernel_pass(settings, state), world


def _do(kernel: KernelPass, world: World) -> tuple[int, tuple[str, ...]]:
    routes = _make_routes(kernel, world)
    rules = kernel.rules(world) if _docker_answers(world) else kernel.close(world)
    lines = [f"{each.name}: {each.cause}" for each in (*rules.conditions, *routes.conditions)]
    if not _docker_answers(world):
        lines.append(_RULES_WAIT)
    lines.append(f"in place: {count_routes(routes.routes)}")
    right = not routes.failed and not rules.failed and routes.complete
    return (0 if right else 1), tuple(lines)


def _make_routes(kernel: KernelPass, world: World) -> ObjectsReport:
    """Run as many passes as it takes: each is limited in time."""
    for _ in range(_PASSES_MOST):
        report = kernel.build(world, may_delete=True, may_sweep=True)
        if report.again_in_s != 0:
            break
    return report


def _refuse_doubt(settings: Settings, view: View) -> None:
    """Hold etcd's view against this host's copy of the last one, as the agent does (promise 4)."""
    try:
        copy = copy_file(settings).peek()
    except StateError:  # damaged: the agent goes on without it, too
        return
    if copy is None:
        return
    expired = time.time() - copy.saved_s > settings.lease.ttl_s
    verdict = trust.judge(copy.view, view, expired=expired)
    # One pass has no grace time in which hosts that are alive could register again.
    gone = "" if expired else trust.many_gone(copy.view, view)
    if verdict.alarm or gone:
        raise Refused(
            f"etcd is in doubt, nothing was touched: {verdict.reason or gone}",
            hint="start hostmesh-agent: it holds what is there until the hosts are back or"
            " agentctl etcd accept",
        )


def _docker_answers(world: World) -> bool:
    """Before Docker said which networks there are, a rule could close one (promise 3)."""
    return world.docker is not None and world.docker.reachable


def _without(plan: Plan[Any], former: int | None) -> Plan[Any]:
    """Leave out conflicts with the agent's own routes of a former protocol number."""
    others = (e for e in plan.conflicts if getattr(e.foreign, "protocol", None) != former)
    return plan if former is None else replace(plan, conflicts=tuple(others))


def _would(kernel: KernelPass, world: World) -> tuple[int, tuple[str, ...]]:
    plans = kernel.objects.plan(world, may_delete=True)
    lines = [
        f"would {each.kind} {each.object} ({each.reason})"
        for _, plan in plans
        for each in plan.operations
    ]
    former = kernel.former_protocol
    if former is not None:
        lines = [f"would first give routes of protocol {former} the number {world.route_protocol}"]
    lines += [
        f"conflict: {each.cause}"
        for kind, plan in plans
        for each in _without(plan, former).conditions(kind)
    ]
    if _docker_answers(world):
        edits = kernel.check_firewall(world)
    else:
        edits = kernel.close(world, dry_run=True).edits
    lines += [f"firewall: {each}" for each in edits]
    differs = bool(lines)
    lines += [] if differs else ["nothing differs"]
    lines += [] if _docker_answers(world) else [_RULES_WAIT]
    return int(differs), tuple(lines)


def _world(settings: Settings, *, left: bool) -> World:
    seen = inspect_host(settings, left=left)
    if seen.errors:
        raise seen.errors[0]
    mesh = seen.mesh
    if mesh.believed is not None:
        _refuse_doubt(settings, mesh.believed)
    world = mesh.world(route_protocol=settings.routes.protocol, route_table=settings.routes.table)
    if world is None:
        raise CannotTell(
            "this host has left the mesh" if left else "this host holds no subnet in etcd",
            hint="agentctl join" if left else "start hostmesh-agent: it claims one",
        )
    addresses = look_up(settings.etcd.endpoints).addresses
    closed = closed_endpoints(settings.etcd, world.config, addresses)
    allowed = settings.networks.allow
    return replace(world, closed_endpoints=closed, allowed_networks=allowed)
