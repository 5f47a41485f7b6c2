"""``GET /v1/check``, ``GET /v1/checks``: the last check of this host; those that hosts publish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.mesh.check.result import (
    CheckState,
    CheckSummary,
    HostCheck,
    PeerCheck,
    TestResult,
    WorstPeer,
)
from agent.model import HostId, Lease, View
from agent.model.family import Network, network_order

__all__ = ["check_document", "checks_document", "counts_document", "state_of"]

_VERSION = 1


def check_document(found: HostCheck | None, *, running: bool, now_s: float) -> dict[str, Any]:
    """Describe the last check.

    Args:
        found: None before the first.
        running: Whether one runs now.
        now_s: Unix time.
    """
    summary = None if found is None else found.summary()
    return {
        "version": _VERSION,
        "state": state_of(summary),
        "running": running,
        "checked_at": found.began_s if found else None,
        "checked_s_ago": round(max(0.0, now_s - found.began_s), 1) if found else None,
        "took_s": round(found.took_s, 2) if found else None,
        "untested": (found.untested or None) if found else None,
        "counts": counts_document(summary),
        "own": [_test(each) for each in found.own] if found else [],
        "peers": [_peer(each) for each in found.peers] if found else [],
    }


def state_of(summary: CheckSummary | None) -> str:
    """Sum a check up: "ok", "failed", or "none" without one."""
    if summary is None:
        return "none"
    return "failed" if summary.failed else "ok"


def counts_document(summary: CheckSummary | None) -> Mapping[str, int]:
    """Return the number of peers in each state."""
    return {str(each): summary.counts.get(each, 0) if summary else 0 for each in CheckState}


def _peer(peer: PeerCheck) -> dict[str, Any]:
    return {
        "host_id": peer.host_id,
        "host_name": peer.host_name,
        "subnet": str(peer.subnet),
        "node_address": str(peer.node_address),
        "state": str(peer.state),
        "rtt_ms": _ms(peer.rtt_s),
        "tests": [_test(each) for each in peer.tests],
    }


def _test(found: TestResult) -> dict[str, Any]:
    return {
        "test": str(found.test),
        "result": str(found.verdict),
        "text": found.text,
        "hint": found.hint or None,
    }


def checks_document(
    view: View,
    own: HostId,
    published: Mapping[HostId, CheckSummary],
    now_s: float,
    *,
    freshness: Mapping[str, Any],
) -> dict[str, Any]:
    """Describe the last check that each host published, of every host with a lease."""
    names = {each.subnet: each for each in view.leases}
    return {
        "version": _VERSION,
        **freshness,
        "hosts": [
            _host(each, view, published, names, now_s, own=each.host_id == own)
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
) -> dict[str, Any]:
    found = published.get(lease.host_id) if lease.host_id else None
    return {
        "host_id": lease.host_id,
        "host_name": lease.host_name,
        "subnet": str(lease.subnet),
        "own": own,
        "state": state_of(found),
        "reason": None if found else _no_check(lease, view),
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
    return "it has not published one"


def _worst(worst: WorstPeer, lease: Lease | None) -> dict[str, Any]:
    return {
        "host_id": lease.host_id if lease else None,
        "host_name": lease.host_name if lease else "",
        "subnet": str(worst.subnet),
        "state": str(worst.state),
        "failed": [str(each) for each in worst.failed],
        "rtt_ms": _ms(worst.rtt_s),
    }


def _ms(rtt_s: float | None) -> float | None:
    return None if rtt_s is None else round(rtt_s * 1000, 3)
