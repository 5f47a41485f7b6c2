"""Turn running containers into the endpoints that other hosts may know. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from agent.docker.endpoints.containers import RunningContainer
from agent.mesh.firewall.access import judged
from agent.model import Access, Condition, DockerNetwork, HostId, first_few
from agent.model.endpoint import (
    ENDPOINTS_MOST,
    NAMES_MOST,
    Endpoint,
    EndpointAddress,
    usable_name,
)
from agent.model.family import Network, within
from agent.model.network import NETWORK_LABEL, MeshNetwork, parse_network_name

__all__ = ["EndpointTerms", "bound_conditions", "endpoint_of", "is_routable"]

_NAMES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointTerms:
    """The terms on which other hosts may know a container.

    Attributes:
        host_id: This host.
        subnets: Its leases' subnets.
        boot_id: Of this run of it.
        access: The mesh's default for networks without a label.
        limit: No network of this host is opened wider than this.
        records: The operator's, of mesh networks.
    """

    host_id: HostId
    subnets: tuple[Network, ...]
    boot_id: str = ""
    access: Access = Access.PUBLISHED
    limit: Access = Access.OPEN
    records: Mapping[str, MeshNetwork] = field(default_factory=lambda: MappingProxyType({}))


def is_routable(network: DockerNetwork, terms: EndpointTerms) -> bool:
    """Return whether other hosts have a route to a Docker network."""
    return not network.internal and any(within(network.subnet, each) for each in terms.subnets)


def endpoint_of(
    container: RunningContainer, networks: Mapping[str, DockerNetwork], terms: EndpointTerms
) -> Endpoint | None:
    """Return the endpoint of a container; None where it is on no routable network.

    Args:
        container: One that runs.
        networks: This host's, by id.
        terms: What other hosts may know.
    """
    found = []
    for place in container.places:
        network = networks.get(place.network)
        if network is None or place.address not in network.subnet:
            continue
        if is_routable(network, terms):
            wanted, _ = judged(network, terms.access, terms.limit, terms.records)
            address = EndpointAddress(
                network=usable_name(network.name, network.id),
                address=place.address,
                mesh_network=_mesh_network(network),
                access=wanted.access,
                aliases=place.aliases,
            )
            found.append(address)
    if not found:
        return None
    return Endpoint(
        host_id=terms.host_id,
        container_id=container.id,
        name=container.name,
        project=container.project,
        service=container.service,
        health=container.health,
        addresses=tuple(sorted(found, key=lambda each: each.network)),
        boot_id=terms.boot_id,
    )


def bound_conditions(containers: Iterable[RunningContainer], beyond: int) -> tuple[Condition, ...]:
    """Report the containers and names that other hosts are not shown.

    Args:
        containers: Those that are shown.
        beyond: How many more there are.
    """
    found = []
    if beyond:
        found.append(
            Condition(
                name="endpoints-too-many",
                cause=f"{ENDPOINTS_MOST + beyond} containers run on routable networks; other hosts"
                f" are shown the {ENDPOINTS_MOST} oldest",
                hint="run the others on another host: the mesh has no names for them",
            )
        )
    cut = sorted(each.name for each in containers if each.left_out)
    if cut:
        found.append(
            Condition(
                name="endpoint-names-left-out",
                cause=f"not all names of {first_few(cut, _NAMES_SHOWN)} are used: a container has"
                f" {NAMES_MOST} in a network, of letters, digits, hyphens, dots and underscores",
                hint="give it fewer and shorter names: docker run --name, --network-alias",
            )
        )
    return tuple(found)


def _mesh_network(network: DockerNetwork) -> str:
    try:
        return parse_network_name(network.labels.get(NETWORK_LABEL, ""))
    except ValueError:
        return ""
