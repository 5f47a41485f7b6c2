"""``GET /v1/containers``: the running containers of every host. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from agent.daemon.state.freshness import CURRENT, Freshness
from agent.mesh.endpoints import AcceptedEndpoints
from agent.model import HostId, View
from agent.model.endpoint import Endpoint, EndpointView
from agent.registry.operations.network_hosts import Counts
from agent.registry.records import endpoint_key

__all__ = ["accepted_endpoints", "containers_document", "counts_by_network"]


def accepted_endpoints(view: View, endpoints: Iterable[Endpoint]) -> Collection[Endpoint]:
    """Return endpoints with the addresses that their hosts may speak for."""
    published = EndpointView(endpoints={endpoint_key(each): each for each in endpoints})
    return AcceptedEndpoints().follow(published, view).endpoints.values()


def counts_by_network(view: View, endpoints: Iterable[Endpoint]) -> Counts:
    """Return how many containers each host has on each mesh network."""
    return Counter(
        (each.host_id, place.mesh_network)
        for each in accepted_endpoints(view, endpoints)
        for place in each.addresses
        if place.mesh_network
    )


def containers_document(
    view: View,
    endpoints: Iterable[Endpoint],
    own: HostId | None,
    now_s: float,
    *,
    freshness: Freshness = CURRENT,
) -> dict[str, Any]:
    """Describe the containers that count, in order of host and name.

    Args:
        view: A complete view, by whose leases and slices the addresses are judged.
        endpoints: As the hosts publish them.
        own: This host's id, None when it is not known.
        now_s: Unix time.
        freshness: How old both are.
    """
    found = [
        _container(each, view, own, now_s, freshness)
        for each in accepted_endpoints(view, endpoints)
    ]
    found.sort(key=lambda each: (each["host_name"], each["host_id"], each["name"], each["id"]))
    return {
        "version": 1,
        **freshness.document(now_s),
        "cached": view.cached,
        "level": view.config.level if view.config else None,
        "containers": found,
    }


def _container(
    endpoint: Endpoint, view: View, own: HostId | None, now_s: float, freshness: Freshness
) -> dict[str, Any]:
    lease = view.lease_of(endpoint.host_id)
    beat = freshness.heartbeat(endpoint.host_id, view, now_s, {})
    return {
        "host_id": endpoint.host_id,
        "host_name": lease.host_name if lease else "",
        "own": own is not None and endpoint.host_id == own,
        "alive": beat["alive"],
        "heartbeat": beat["heartbeat"],
        "id": endpoint.container_id,
        "name": endpoint.name,
        "project": endpoint.project or None,
        "service": endpoint.service or None,
        "health": str(endpoint.health),
        "addresses": [
            {
                "network": place.network,
                "mesh_network": place.mesh_network or None,
                "address": str(place.address),
                "access": str(place.access),
                "aliases": list(place.aliases),
            }
            for place in endpoint.addresses
        ],
    }
