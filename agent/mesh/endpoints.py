"""Decide which addresses of other hosts' containers count. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from agent.model import Lease
from agent.model.endpoint import Endpoint, EndpointAddress
from agent.model.family import Network

__all__ = ["accepted_endpoint"]


def accepted_endpoint(
    endpoint: Endpoint, leases: Iterable[Lease], slices: Mapping[str, Network]
) -> Endpoint | None:
    """Return an endpoint with the addresses that its host may speak for; None without any.

    Args:
        leases: Those of the endpoint's host that count.
        slices: Its slices that count, by the name of the mesh network.
    """
    subnets = tuple(each.subnet for each in leases)

    def counts(place: EndpointAddress) -> bool:
        inside = any(place.address in each for each in subnets)
        if not place.mesh_network:
            return inside
        found = slices.get(place.mesh_network)
        return inside and found is not None and place.address in found

    kept = tuple(filter(counts, endpoint.addresses))
    if kept == endpoint.addresses:
        return endpoint if kept else None
    return replace(endpoint, addresses=kept) if kept else None
