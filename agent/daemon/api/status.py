"""What the control socket says about this host: documents made of a snapshot. Pure.

docs/control-socket.md describes them; a change there is a change of ``version``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from agent import __version__
from agent.daemon.state.agent_state import Snapshot
from agent.daemon.state.freshness import CURRENT, Freshness
from agent.daemon.state.mesh_state import Known
from agent.daemon.telemetry.condition_registry import Standing
from agent.daemon.telemetry.counters import Tally
from agent.model import LEVEL, OWN_BRIDGE, HostId, Lease, Severity, View

__all__ = ["host_state", "status_document"]

_VERSION = 1
_NEVER: Mapping[HostId, float] = MappingProxyType({})
_NOTHING = View(cluster_id=0, revision=0)


def host_state(snapshot: Snapshot, standing: Iterable[Standing]) -> str:
    """One word: left, waiting (no subnet yet), joining, degraded or ready.

    Ready means what an operator means: the lease is held, Docker has it, and every route and
    rule is as it should be. While etcd is away a host can be degraded and work all the same.
    """
    known = snapshot.known
    if known.left:
        return "left"
    if known.own is None:
        return "waiting"
    if not known.docker_in_place or not snapshot.passed:
        return "joining"
    if snapshot.lease_problem:
        return "degraded"
    if any(each.condition.severity is Severity.ERROR for each in standing):
        return "degraded"
    return "ready" if known.complete else "degraded"


def status_document(
    snapshot: Snapshot,
    standing: tuple[Standing, ...],
    *,
    host_name: str,
    etcd_source: Mapping[str, Any],
    last_contact_s: float,
    now_s: float,
    wall_s: float,
    freshness: Freshness = CURRENT,
    last_heartbeat_s: Mapping[HostId, float] = _NEVER,
    tally: Tally | None = None,
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
        last_heartbeat_s: When each host whose heartbeat lapsed was last seen alive.
        tally: What was counted since the agent started; None when none runs.
        source: "agent", or "host" when agentctl looked by itself.
    """
    known = snapshot.known
    return {
        "version": _VERSION,
        "source": source,
        "agent_version": __version__,
        "level": LEVEL,
        "state": host_state(snapshot, standing),
        **freshness.document(wall_s),
        "host": _host(known, host_name),
        "subnet": str(known.own.subnet) if known.own else None,
        "container": _own_container(known),
        "former_subnet": str(known.former.subnet) if known.former else None,
        "docker": _docker(known),
        "etcd": {
            **_etcd(snapshot, now_s - last_contact_s if last_contact_s else None),
            **etcd_source,
        },
        "mesh": _mesh(known),
        "routes": {
            "desired": snapshot.report.desired,
            "installed": snapshot.report.installed,
            "drift": snapshot.report.differing,
        },
        "repairs": None if tally is None else _repairs(tally, now_s),
        "peers": [
            _peer(lease, known, freshness, wall_s, last_heartbeat_s) for lease in peers_of(known)
        ],
        "conditions": [_condition(each, now_s) for each in standing],
    }


def _host(known: Known, name: str) -> Mapping[str, Any]:
    uplink = known.uplink
    return {
        "id": known.host_id,
        "name": name,
        "node_address": str(uplink.node_address) if uplink else None,
        "uplink": uplink.name if uplink else None,
    }


def _own_container(known: Known) -> str | None:
    """Return the container that this host's heartbeat names to peers."""
    if known.own is None or known.believed is None:
        return None
    return Freshness.container(known.own, known.believed)


def _docker(known: Known) -> Mapping[str, Any]:
    return {
        "state": str(known.docker_state),
        "config": str(known.docker_config),
        "version": known.docker.version,
        "bridge": str(known.docker.bridge.subnet) if known.docker.bridge else None,
        "network": _own_network(known),
    }


def _own_network(known: Known) -> str | None:
    """The range of the network that is ours (``docker.attach = "network"``)."""
    own = (each.subnet for each in known.docker.networks if each.bridge == OWN_BRIDGE)
    return next(map(str, own), None)


def peers_of(known: Known) -> tuple[Lease, ...]:
    """Every lease in the believed view that is not this host's."""
    if known.believed is None:
        return ()
    return tuple(
        lease
        for lease in known.believed.leases
        if lease.host_id is None or lease.host_id != known.host_id
    )


def _etcd(snapshot: Snapshot, silent_s: float | None) -> Mapping[str, Any]:
    view = snapshot.known.alarming or snapshot.known.believed
    return {
        "connected": not snapshot.contact_problem,
        "problem": snapshot.contact_problem or None,
        "last_contact_s_ago": None if silent_s is None else round(silent_s, 1),
        "cluster_id": f"{view.cluster_id:x}" if view else None,
        "revision": view.revision if view else None,
        "cached": bool(snapshot.known.believed and snapshot.known.believed.cached),
    }


def _repairs(tally: Tally, now_s: float) -> Mapping[str, Any]:
    """Drift that was put right since the agent started."""
    text, at_s = tally.last_repair or (None, now_s)
    return {
        "count": sum(tally.repairs.values()),
        "last": text,
        "last_s_ago": None if text is None else round(now_s - at_s, 1),
    }


def _mesh(known: Known) -> Mapping[str, Any] | None:
    config = known.config
    if config is None:
        return None
    return {
        "cidr": str(config.cidr),
        "previous": [str(each) for each in config.previous],
        "subnet_len": config.subnet_len,
        "backend": config.backend,
        "level": config.level,
    }


def _peer(
    lease: Lease,
    known: Known,
    freshness: Freshness,
    wall_s: float,
    last_heartbeat_s: Mapping[HostId, float],
) -> Mapping[str, Any]:
    view = known.believed or _NOTHING
    return {
        "host_name": lease.host_name,
        "host_id": lease.host_id,
        "subnet": str(lease.subnet),
        "node_address": str(lease.node_address),
        "backend": lease.backend,
        "container": freshness.container(lease, view),
        **freshness.heartbeat(lease.host_id, view, wall_s, last_heartbeat_s),
    }


def _condition(standing: Standing, now_s: float) -> Mapping[str, Any]:
    condition = standing.condition
    return {
        "name": condition.name,
        "subject": condition.subject,
        "severity": str(condition.severity),
        "cause": condition.cause,
        "hint": condition.hint,
        "since_s_ago": round(now_s - standing.since_s, 1),
    }
