"""``GET /v1/routes``: mesh routes of this host, expected and installed. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from ipaddress import ip_network
from typing import Any

from agent.mesh.desired import is_certain
from agent.mesh.world import World, protocol_name
from agent.model import Lease, Route
from agent.model.family import network_order
from agent.reconcile.tracker import DeltaTracker

__all__ = ["routes_document"]


def routes_document(
    world: World,
    tracker: DeltaTracker[Route],
    *,
    source: str,
    freshness: Mapping[str, Any],
) -> dict[str, Any]:
    """Return every route of the mesh, desired or installed, in order of destination.

    Args:
        tracker: Compares what ``world`` wants with a complete list.
        source: "agent", or "host" when agentctl looked without an agent.
        freshness: The fields that say how old the data behind the routes is.
    """
    plan = tracker.plan(may_delete=False)
    differing: dict[Hashable, tuple[str, Route]] = {
        each.object.key: (str(each.reason), each.actual or each.object)
        for each in plan.replacements
    }
    differing |= {c.wanted.key: ("conflict", c.foreign) for c in reversed(plan.conflicts)}
    rows = []
    for key, wanted in tracker.desired.items():
        state, shown = differing.get(key, ("installed", wanted))
        rows.append(_row(shown, state, world))
    removed = (op.object for op in plan.deletions if op.object.key not in tracker.desired)
    rows += [_row(extra, "extra", world) for extra in (*plan.held, *removed)]
    rows.sort(key=lambda row: network_order(ip_network(str(row["destination"]))))
    return {
        "version": 1,
        "source": source,
        "complete": is_certain(world),
        **freshness,
        "routes": rows,
    }


def _row(route: Route, state: str, world: World) -> dict[str, Any]:
    peer: Lease | None = world.peers.get(route.destination)
    return {
        "destination": str(route.destination),
        "kind": str(route.kind),
        "gateway": str(route.gateway) if route.gateway else None,
        "link": route.link,
        "state": state,
        "host_name": peer.host_name if peer else None,
        "reachable": route.destination not in world.dead_subnets if peer else None,
        "protocol": protocol_name(route.protocol)
        if route.protocol != world.route_protocol
        else "hostmesh",
        "text": str(route),
    }
