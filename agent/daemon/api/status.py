"""The status document, made of the agent's state. Pure.

docs/control-socket.md describes it; a change there is a change of ``version``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent import __version__
from agent.daemon.api.hosts import Hosts
from agent.daemon.state.agent_state import AgentState
from agent.daemon.state.freshness import CURRENT, Freshness
from agent.daemon.state.mesh_state import MeshState
from agent.daemon.telemetry.condition_registry import ActiveCondition
from agent.daemon.telemetry.counters import Counters
from agent.mesh.liveness import dead_subnets
from agent.mesh.ranges import count_subnets
from agent.mesh.ways import own_device
from agent.model import LEVEL, OWN_BRIDGE, Lease, Route, Severity, View
from agent.model.family import Network
from agent.reconcile.reconciler import Report

__all__ = ["host_state", "status_document"]

_VERSION = 1
_NOTHING = View(cluster_id=0, revision=0)


def host_state(state: AgentState, active: Iterable[ActiveCondition]) -> str:
    """Return left, waiting (no subnet yet), joining, degraded or ready.

    Ready: the lease is held, Docker has it, and every route and rule is as desired. A host without
    etcd can be degraded and still work.
    """
    mesh = state.mesh
    if mesh.left:
        return "left"
    if mesh.own is None:
        return "waiting"
    if not mesh.docker_in_place or not state.passed:
        return "joining"
    if state.lease_problem:
        return "degraded"
    if any(each.condition.severity is Severity.ERROR for each in active):
        return "degraded"
    return "ready" if mesh.complete else "degraded"


def status_document(
    state: AgentState,
    active: tuple[ActiveCondition, ...],
    *,
    host_name: str,
    etcd_source: Mapping[str, Any],
    last_contact_s: float,
    now_s: float,
    wall_s: float,
    freshness: Freshness = CURRENT,
    counters: Counters | None = None,
    source: str = "agent",
) -> Mapping[str, Any]:
    """``GET /v1/status``.

    Args:
        host_name: As peers see it.
        etcd_source: "endpoints", "source" and "told_by".
        last_contact_s: Monotonic seconds when etcd last answered, 0 if never.
        now_s: Monotonic seconds, as the conditions' own times.
        freshness: How old what is known of the mesh is.
        wall_s: Unix time.
        counters: What was counted since the agent started; None when none runs.
        source: "agent", or "host" when agentctl inspected the host without an agent.
    """
    mesh = state.mesh
    dead = None if counters is None else dead_subnets(mesh.lapsed, mesh.silent)
    silent_s = now_s - last_contact_s if last_contact_s else None
    hosts = Hosts(mesh.believed or _NOTHING, freshness)
    return {
        "version": _VERSION,
        "source": source,
        "agent_version": __version__,
        "level": LEVEL,
        "up_s": None if counters is None else max(0, round(wall_s - counters.started_s)),
        "state": host_state(state, active),
        **freshness.document(wall_s),
        "host": _host(mesh, host_name),
        "subnet": str(mesh.own.subnet) if mesh.own else None,
        "container": _own_container(mesh),
        "former_subnet": str(mesh.former.subnet) if mesh.former else None,
        "docker": _docker(mesh),
        "etcd": {**_etcd(state, silent_s), **etcd_source},
        "mesh": _mesh(state),
        "routes": _routes(state.report),
        "repairs": None if counters is None else _repairs(counters, now_s),
        "peers": [
            {**_peer(lease, state, freshness, wall_s, dead), **hosts.fields(lease.host_id)}
            for lease in peers_of(mesh)
        ],
        "conditions": [_condition(each, now_s) for each in active],
    }


def _routes(report: Report[Route]) -> Mapping[str, Any]:
    return {
        "desired": report.desired,
        "installed": report.installed,
        "drift": report.differing,
    }


def _host(mesh: MeshState, name: str) -> Mapping[str, Any]:
    uplink = mesh.uplink
    return {
        "id": mesh.host_id,
        "name": name,
        "node_address": str(uplink.node_address) if uplink else None,
        "uplink": uplink.name if uplink else None,
    }


def _own_container(mesh: MeshState) -> str | None:
    """Return the container that this host's heartbeat names to peers."""
    if mesh.own is None or mesh.believed is None:
        return None
    return Freshness.container(mesh.own, mesh.believed)


def _docker(mesh: MeshState) -> Mapping[str, Any]:
    return {
        "state": str(mesh.docker_state),
        "config": str(mesh.docker_config),
        "version": mesh.docker.version,
        "bridge": str(mesh.docker.bridge.subnet) if mesh.docker.bridge else None,
        "network": _own_network(mesh),
    }


def _own_network(mesh: MeshState) -> str | None:
    """Return the range of the agent's own network (``docker.attach = "network"``)."""
    own = (each.subnet for each in mesh.docker.networks if each.bridge == OWN_BRIDGE)
    return next(map(str, own), None)


def peers_of(mesh: MeshState) -> tuple[Lease, ...]:
    """Return the leases in the believed view that are not this host's."""
    if mesh.believed is None:
        return ()
    return tuple(
        lease
        for lease in mesh.believed.leases
        if lease.host_id is None or lease.host_id != mesh.host_id
    )


def _etcd(state: AgentState, silent_s: float | None) -> Mapping[str, Any]:
    view = state.mesh.alarming or state.mesh.believed
    return {
        "connected": not state.contact_problem,
        "problem": state.contact_problem or None,
        "last_contact_s_ago": None if silent_s is None else round(silent_s, 1),
        "cluster_id": f"{view.cluster_id:x}" if view else None,
        "revision": view.revision if view else None,
        "cached": bool(state.mesh.believed and state.mesh.believed.cached),
    }


def _repairs(counters: Counters, now_s: float) -> Mapping[str, Any]:
    """Drift that was put right since the agent started."""
    text, at_s = counters.last_repair or (None, now_s)
    return {
        "count": sum(counters.repairs.values()),
        "last": text,
        "last_s_ago": None if text is None else round(now_s - at_s, 1),
    }


def _mesh(state: AgentState) -> Mapping[str, Any] | None:
    config, world = state.mesh.config, state.world()
    if config is None:
        return None
    device = None if world is None else own_device(world)
    return {
        "cidr": str(config.cidr),
        "previous": [str(each) for each in config.previous],
        "subnet_len": config.subnet_len,
        "subnets": count_subnets(config),
        "backend": config.backend,
        "accepted_backend": config.accepted.name if config.accepted else None,
        "device": device.name if device else None,
        "device_mtu": device.mtu if device else None,
        "container_mtu": device.container_mtu if device else None,
        "level": config.level,
    }


def _peer(
    lease: Lease,
    state: AgentState,
    freshness: Freshness,
    wall_s: float,
    dead: frozenset[Network] | None,
) -> Mapping[str, Any]:
    view = state.mesh.believed or _NOTHING
    return {
        "host_name": lease.host_name,
        "host_id": lease.host_id,
        "subnet": str(lease.subnet),
        "node_address": str(lease.node_address),
        "backend": lease.backend,
        "accepted_backend": lease.accepted.name if lease.accepted else None,
        "container": freshness.container(lease, view),
        "reachable": None if dead is None else lease.subnet not in dead,
        **freshness.heartbeat(lease.host_id, view, wall_s, state.last_seen.last_heartbeat_s),
    }


def _condition(active: ActiveCondition, now_s: float) -> Mapping[str, Any]:
    condition = active.condition
    return {
        "name": condition.name,
        "subject": condition.subject,
        "severity": str(condition.severity),
        "cause": condition.cause,
        "hint": condition.hint,
        "since_s_ago": round(now_s - active.since_s, 1),
    }
