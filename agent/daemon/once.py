"""``hostmesh-agent --once``: one look at etcd, one pass over the kernel, no thread.

For image builds, rescue shells and seeing what an agent would do before it runs. It claims
nothing and touches neither Docker nor the lease.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from agent.daemon.kernelpass import KernelPass
from agent.daemon.known import Known, own_leases
from agent.daemon.parts import kernel_pass
from agent.daemon.state import StateFile
from agent.docker.room import DockerRoom
from agent.errors import CannotTell
from agent.kernel.facts import choose_uplink, read_host_facts
from agent.leases.discovery import client_for
from agent.leases.identity import host_id, read_machine_id
from agent.leases.registry import Registry
from agent.mesh.plan import describe_route
from agent.mesh.world import World
from agent.model import DockerState
from agent.settings import Settings

__all__ = ["run_once"]


def run_once(settings: Settings, *, dry_run: bool) -> tuple[int, tuple[str, ...]]:
    """Reconcile once, or with ``dry_run`` say what would be done.

    Returns:
        The exit status, as ``agentctl diff``'s: 0 nothing differs (any more), 1 something
        does; and lines for the operator.

    Raises:
        CannotTell: This host has no lease, or has left.
        HostmeshError: etcd, the kernel or iptables did not do what was needed.
    """
    state = StateFile(settings.agent.state_dir)
    world = _world(settings, left=state.left)
    kernel = kernel_pass(settings, state)
    if dry_run:
        return _would(kernel, world)
    rules = kernel.rules(world)
    routes = kernel.routes(world, may_delete=True, may_sweep=True)
    lines = [f"{each.name}: {each.cause}" for each in (*rules.conditions, *routes.conditions)]
    lines.append(f"{routes.installed} of {routes.desired} routes are in place")
    return (1 if routes.failed or rules.failed else 0), tuple(lines)


def _would(kernel: KernelPass, world: World) -> tuple[int, tuple[str, ...]]:
    plan = kernel.plan(world, may_delete=True)
    lines = [
        f"would {each.kind} {describe_route(each.route)} ({each.reason})"
        for each in plan.operations
    ]
    lines += [f"conflict: {each.cause}" for each in plan.conditions]
    lines += [f"firewall: {each}" for each in kernel.check_firewall(world)]
    return (1, tuple(lines)) if lines else (0, ("nothing differs",))


def _world(settings: Settings, *, left: bool) -> World:
    own = host_id(read_machine_id())
    with closing(client_for(settings.etcd)) as client:
        view = Registry(client, settings.etcd.prefix).snapshot()
    facts = read_host_facts(settings.routes.protocol)
    host = settings.host
    uplink = choose_uplink(
        facts, f"{host.node_address}/32" if host.node_address else host.uplink, None
    )
    docker = DockerRoom.of(settings.docker, settings.agent.state_dir).engine.facts()
    lease, former = own_leases(view, own)
    known = replace(
        Known(host_id=own, left=left, host=facts, uplink=uplink), own=lease, former=former
    ).with_view(view)
    world = known.with_docker(docker, DockerState.READY).world(
        route_protocol=settings.routes.protocol, route_table=settings.routes.table
    )
    if world is None:
        raise CannotTell(
            "this host has left the mesh" if left else "this host holds no subnet in etcd",
            hint="agentctl join" if left else "start hostmesh-agent: it claims one",
        )
    return world
