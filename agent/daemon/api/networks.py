"""``GET /v1/networks``: the mesh networks, and each host's part of them. Pure."""

from __future__ import annotations

from typing import Any

from agent.daemon.state.freshness import CURRENT, Freshness
from agent.model import HostId, View
from agent.registry.operations.network_hosts import Counts, HostPart, Slices, parts_of

__all__ = ["networks_document"]


def networks_document(
    view: View,
    own: HostId | None,
    now_s: float,
    *,
    counts: Counts | None = None,
    freshness: Freshness = CURRENT,
) -> dict[str, Any]:
    """Describe every mesh network that has a record or a slice, in order of name.

    Args:
        view: A complete view.
        own: This host's id, None when it is not known.
        now_s: Unix time.
        counts: None where endpoints are not known.
        freshness: How old ``view`` is.
    """
    config, slices = view.config, Slices(view)
    return {
        "version": 1,
        **freshness.document(now_s),
        "cached": view.cached,
        "level": None if config is None else config.level,
        "declared_only": None if config is None else config.declared_networks,
        "networks": [
            {
                **_network(view, name),
                "parts": [
                    _part(each, own, now_s, stale=freshness.stale)
                    for each in parts_of(view, name, slices, counts)
                ],
            }
            for name in sorted({*view.networks, *slices.names})
        ],
    }


def _network(view: View, name: str) -> dict[str, Any]:
    record = view.networks.get(name)
    return {
        "name": name,
        "record": record is not None,
        "access": record.access if record else None,
        "hosts": list(record.hosts) if record else [],
        "size": record.length if record else None,
        "removed": record is not None and record.removed,
    }


def _part(part: HostPart, own: HostId | None, now_s: float, *, stale: bool) -> dict[str, Any]:
    """Describe a host's part. A heartbeat that is missing from an old view proves nothing."""
    since_s = part.slice.since_s if part.slice else None
    return {
        "host_id": part.host_id,
        "host_name": part.host_name,
        "own": own is not None and part.host_id == own,
        "subnet": str(part.slice.subnet) if part.slice else None,
        "since_s_ago": None if since_s is None else round(max(0.0, now_s - since_s), 1),
        "state": str(part.state),
        "waits_for": None if stale else part.waits_for or None,
        "containers": part.containers,
    }
