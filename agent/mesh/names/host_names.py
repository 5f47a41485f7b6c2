"""Find all names of one host and its containers. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from agent.mesh.names.labels import labels_of
from agent.model.endpoint import Endpoint, EndpointAddress, Health
from agent.model.family import Address, Network
from agent.model.mesh import HostId
from agent.model.names import (
    MOST_ADDRESSES,
    OWN_LABEL,
    HostNames,
    Name,
    NamedAddress,
    NameKind,
)

__all__ = ["NamedHost", "names_of_host"]

_Labels = Mapping[str, str]
_HEALTHY = frozenset({Health.NONE, Health.HEALTHY})


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedHost:
    """A host that can be reached.

    Attributes:
        label: Its name as a label, which no other host has.
        address: By which others reach the host itself.
        subnets: Those of its leases.
    """

    host_id: HostId
    label: str
    address: Address
    subnets: tuple[Network, ...]

    def has(self, address: Address) -> bool:
        """Return whether an address is in one of its subnets."""
        return any(address in each for each in self.subnets)


@dataclass(slots=True)
class _Scopes:
    """The labels of each scope in which a label has one meaning.

    Attributes:
        networks: By Docker network: containers, services and aliases.
        services: By project: its services.
        projects, containers: Of the host.
    """

    networks: Mapping[str, _Labels] = field(default_factory=dict)
    services: Mapping[str, _Labels] = field(default_factory=dict)
    projects: _Labels = field(default_factory=dict)
    containers: _Labels = field(default_factory=dict)

    @classmethod
    def of(cls, found: Iterable[tuple[Endpoint, EndpointAddress]]) -> _Scopes:
        networks, services = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
        containers = set()
        for endpoint, place in found:
            networks[place.network].update(_names_in(endpoint, place))
            containers.add(endpoint.name)
            if endpoint.project and endpoint.service:
                services[endpoint.project].add(endpoint.service)
        projects = labels_of(services)
        return cls(
            networks={each: labels_of(names) for each, names in networks.items()},
            services={each: labels_of(names) for each, names in services.items()},
            projects={name: each for name, each in projects.items() if each != OWN_LABEL},
            containers=labels_of(containers),
        )


def _names_in(endpoint: Endpoint, place: EndpointAddress) -> Iterator[str]:
    yield endpoint.name
    if endpoint.service:
        yield endpoint.service
    yield from place.aliases


def names_of_host(host: NamedHost, endpoints: Iterable[Endpoint]) -> HostNames:
    """Return every name of a host; addresses that are not in its leases have none.

    Args:
        endpoints: Those that the host publishes, in any order.
    """
    ordered = sorted(endpoints, key=lambda each: each.container_id)
    found = [
        (endpoint, place)
        for endpoint in ordered
        if endpoint.host_id == host.host_id
        for place in endpoint.addresses
        if host.has(place.address)
    ]
    found = list(islice(found, MOST_ADDRESSES - 1))
    scopes = _Scopes.of(found)
    named = (_named(host, endpoint, place, scopes) for endpoint, place in found)
    return HostNames(host_id=host.host_id, addresses=(_own(host), *named))


def _own(host: NamedHost) -> NamedAddress:
    name = f"{host.label}.{OWN_LABEL}"
    return NamedAddress(
        address=host.address,
        names=(Name(name, NameKind.OWN),),
        pointer=name if host.has(host.address) else "",
    )


def _named(
    host: NamedHost, endpoint: Endpoint, place: EndpointAddress, scopes: _Scopes
) -> NamedAddress:
    in_network = scopes.networks[place.network]
    labels = dict.fromkeys(
        in_network[name] for name in _names_in(endpoint, place) if name in in_network
    )
    mesh_network = place.mesh_network
    in_mesh = labels if mesh_network else ()
    names = [Name(f"{each}.{mesh_network}", NameKind.NETWORK) for each in in_mesh]
    service = scopes.services.get(endpoint.project, {}).get(endpoint.service)
    project = scopes.projects.get(endpoint.project)
    if service and project:
        names.append(Name(f"{service}.{project}", NameKind.PROJECT))
    container = scopes.containers.get(endpoint.name)
    if container:
        names.append(Name(f"{container}.{host.label}", NameKind.HOST))
    names += (Name(each, NameKind.PLAIN) for each in labels)
    return NamedAddress(
        address=place.address,
        names=tuple(names),
        network=place.network,
        mesh_network=mesh_network,
        access=place.access,
        healthy=endpoint.health in _HEALTHY,
        pointer=_pointer(host, endpoint, place, scopes),
    )


def _pointer(host: NamedHost, endpoint: Endpoint, place: EndpointAddress, scopes: _Scopes) -> str:
    """Return the name that the address has: in its mesh network, else on its host."""
    in_network = scopes.networks[place.network].get(endpoint.name)
    if place.mesh_network and in_network:
        return f"{in_network}.{place.mesh_network}"
    container = scopes.containers.get(endpoint.name)
    return f"{container}.{host.label}" if container else ""
