"""``GET /v1/checks``: the last check that each host published. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.mesh.check.document import counts_document, rtt_ms, state_of
from agent.mesh.check.result import CheckSummary, WorstPeer
from agent.model import HostId, Lease, View
from agent.model.family import Network, network_order
from agent.registry.records.checks import CHECKS

__all__ = ["checks_document"]

_VERSION = 1


def checks_document(
    view: View,
    own: HostId | None,
    published: Mapping[HostId, CheckSummary],
    now_s: float,
    *,
    freshness: Mapping[str, Any],
    own_problem: str = "",
) -> dict[str, Any]:
    """Describe the last check that each host published, of every host with a lease.

    Args:
        own_problem: Why this host's is not published.
    """
    names = {each.subnet: each for each in view.leases}
    return {
        "version": _VERSION,
        **freshness,
        "hosts": [
            _host(each, view, published, names, now_s, own=each.host_id == own, problem=own_problem)
            for each in sorted(view.leases, key=lambda each: network_order(each.subnet))
        ],
    }


def _host(
    lease: Lease,
    view: View,
    published: Mapping[HostId, CheckSummary],
    leases: Mapping[Network, Lease],
    now_s: float,
    *,
    own: bool,
    problem: str,
) -> dict[str, Any]:
    found = published.get(lease.host_id) if lease.host_id else None
    return {
        "host_id": lease.host_id,
        "host_name": lease.host_name,
        "subnet": str(lease.subnet),
        "own": own,
        "state": state_of(found),
        "reason": None if found else (own and problem) or _no_check(lease, view),
        "checked_at": found.began_s if found else None,
        "checked_s_ago": round(max(0.0, now_s - found.began_s), 1) if found else None,
        "counts": counts_document(found),
        "own_failed": [str(each) for each in found.own_failed] if found else [],
        "worst": [_worst(each, leases.get(each.subnet)) for each in found.worst] if found else [],
    }


def _no_check(lease: Lease, view: View) -> str:
    if lease.host_id is None:
        return "a flannel host checks nothing"
    if lease.host_id not in view.heartbeats:
        return "its agent does not run"
    if view.config is not None and view.config.level < CHECKS.level:
        level = view.config.level
        return f"the mesh's level is {level}, and none is published below {CHECKS.level}"
    return "it has not published one"


def _worst(worst: WorstPeer, lease: Lease | None) -> dict[str, Any]:
    return {
        "host_id": lease.host_id if lease else None,
        "host_name": lease.host_name if lease else "",
        "subnet": str(worst.subnet),
        "state": str(worst.state),
        "failed": [str(each) for each in worst.failed],
        "rtt_ms": rtt_ms(worst.rtt_s),
    }
