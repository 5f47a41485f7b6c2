"""``GET /v1/routes``: every route of the mesh on this host, wanted or there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from typing import Any

from agent.mesh.desired import desired_routes
from agent.mesh.world import World, protocol_name
from agent.model import Lease, Route
from agent.model.family import network_order

__all__ = ["routes_document"]


def routes_document(
    world: World,
    ours: Iterable[Route],
    foreign: Iterable[Route],
    *,
    source: str,
    freshness: Mapping[str, Any],
) -> dict[str, Any]:
    """Compare what should be with what is, route by route, in order of destination.

    Args:
        ours: Routes that bear our protocol, from a complete list.
        foreign: Others in our table that meet the mesh's CIDR.
        source: "agent", or "host" when agentctl looked by itself.
        freshness: The fields that say how old what the routes are made of is.
    """
    desired = desired_routes(world)
    there = {route.key: route for route in ours}
    rivals = {route.place: route for route in foreign}
    rows = []
    for key, wanted in desired.routes.items():
        actual = there.pop(key, None)
        rival = rivals.get(key.place)
        state = "installed" if actual == wanted else "modified" if actual else "missing"
        if actual != wanted and rival is not None:
            state = "conflict"
        shown = rival if state == "conflict" else actual or wanted
        rows.append(_row(shown or wanted, state, world))
    rows += [_row(extra, "extra", world) for extra in there.values()]
    rows.sort(key=lambda row: network_order(ip_network(str(row["destination"]))))
    return {
        "version": 1,
        "source": source,
        "complete": desired.certain,
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
