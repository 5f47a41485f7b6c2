"""The document of a check: ``agentctl check -o json``, ``GET /v1/check``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.mesh.check.result import (
    CheckState,
    CheckSummary,
    HostCheck,
    PeerCheck,
    TestResult,
)

__all__ = ["check_document", "counts_document", "rtt_ms", "state_of"]

_VERSION = 1


def check_document(found: HostCheck | None, now_s: float) -> dict[str, Any]:
    """Describe the last check.

    Args:
        found: None before the first.
        now_s: Unix time.
    """
    summary = None if found is None else found.summary()
    return {
        "version": _VERSION,
        "state": state_of(summary),
        "checked_at": found.began_s if found else None,
        "checked_s_ago": round(max(0.0, now_s - found.began_s), 1) if found else None,
        "took_s": round(found.took_s, 2) if found else None,
        "untested": (found.untested or None) if found else None,
        "counts": counts_document(summary),
        "own": [_test(each) for each in found.own] if found else [],
        "peers": [_peer(each) for each in found.peers] if found else [],
    }


def state_of(summary: CheckSummary | None) -> str:
    """Sum a check up: "failed", "untested", "ok", or "none" without one.

    "ok" takes a container's answer from every peer. "untested": nothing failed, and some gave none.
    """
    if summary is None:
        return "none"
    if summary.failed:
        return "failed"
    return "untested" if summary.counts.get(CheckState.UNTESTED) else "ok"


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
        "rtt_ms": rtt_ms(peer.rtt_s),
        "tests": [_test(each) for each in peer.tests],
    }


def _test(found: TestResult) -> dict[str, Any]:
    return {
        "test": str(found.test),
        "result": str(found.verdict),
        "text": found.text,
        "hint": found.hint or None,
    }


def rtt_ms(rtt_s: float | None) -> float | None:
    """Return milliseconds."""
    return None if rtt_s is None else round(rtt_s * 1000, 3)
