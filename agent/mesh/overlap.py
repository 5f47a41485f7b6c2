"""Find a host's own addresses and routes that overlap the mesh's CIDR. Pure.

Each joining host checks this before anything is written: a mesh laid over ranges that the host
already uses would cut it off from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from agent.mesh.world import protocol_name
from agent.model import OWN_BRIDGE, DockerFacts, HostFacts, Lease, Route, RouteKind
from agent.model.family import Network, is_default, meet, within

__all__ = ["host_overlaps", "networks_in_use"]

_DEFAULT_BRIDGE: Final = "docker0"
_NOBODY: Final[Mapping[Network, Lease]] = MappingProxyType({})


def host_overlaps(
    host: HostFacts,
    cidr: Network,
    docker: DockerFacts | None = None,
    own: Iterable[Network] = (),
    leases: Mapping[Network, Lease] = _NOBODY,
) -> tuple[str, ...]:
    """Describe every address and route of the host that overlaps ``cidr``; empty when none does.

    Not counted: default routes, which everything overlaps; Docker's default bridge, which is
    about to be renumbered, and the agent's own links; a refusal (blackhole and its like) of a wider
    range, which the mesh's more specific routes do not disturb; what lies in the own subnet; and
    a route to a peer's subnet by that peer, which flannel or an operator made before: it leads
    where the mesh's own would, and is reported as a conflict until it goes.

    Args:
        host: A complete look; our own routes are not in it.
        cidr: The mesh's CIDR, or one that is proposed.
        docker: Tells what Docker's default bridge is called here.
        own: This host's own subnets, once it has some.
        leases: The mesh's, by subnet.
    """
    return tuple(words for _, words in _overlaps(host, cidr, docker, tuple(own), leases))


def networks_in_use(
    host: HostFacts,
    cidr: Network,
    docker: DockerFacts | None = None,
    own: Iterable[Network] = (),
    leases: Mapping[Network, Lease] = _NOBODY,
) -> tuple[Network, ...]:
    """The parts of ``cidr`` that the host already uses: no subnet of its own may meet them.

    As :func:`host_overlaps`, without what is wider than the CIDR: that meets every subnet.
    """
    found = (network for network, _ in _overlaps(host, cidr, docker, tuple(own), leases))
    return tuple(dict.fromkeys(each for each in found if within(each, cidr)))


def _overlaps(
    host: HostFacts,
    cidr: Network,
    docker: DockerFacts | None,
    own: tuple[Network, ...],
    leases: Mapping[Network, Lease],
) -> Iterator[tuple[Network, str]]:
    """Yield each overlapping network, with text that names what has it."""
    bridge = docker.bridge.bridge if docker is not None and docker.bridge else _DEFAULT_BRIDGE
    ours = {bridge, _DEFAULT_BRIDGE, OWN_BRIDGE, *(link.name for link in host.links if link.own)}
    covered: set[tuple[str | None, Network]] = set()
    for link in host.links:
        if link.name in ours:
            continue
        for interface in link.addresses:
            if meet(interface.network, cidr) and not _within(interface.network, own):
                yield interface.network, f"the address {interface} of {link.name}"
                covered.add((link.name, interface.network))
    for route in host.foreign_routes:
        if (
            not meet(route.destination, cidr)
            or route.link in ours
            or (route.link, route.destination) in covered
            or _within(route.destination, own)
            or _leads_to_its_owner(route, leases)
            or not _disturbed(route, cidr)
        ):
            continue
        device = f" by {route.link}" if route.link is not None else ""
        yield (
            route.destination,
            f"the route to {route.destination}{device} written by {protocol_name(route.protocol)}",
        )


def _within(network: Network, own: tuple[Network, ...]) -> bool:
    return any(within(network, each) for each in own)


def _leads_to_its_owner(route: Route, leases: Mapping[Network, Lease]) -> bool:
    lease = leases.get(route.destination)
    return lease is not None and route.gateway == lease.node_address


def _disturbed(route: Route, cidr: Network) -> bool:
    """Whether routing ``cidr`` to the mesh and a route that meets it get in each other's way."""
    if is_default(route.destination):
        return False
    wider = route.destination.prefixlen < cidr.prefixlen
    return not wider or route.kind.startswith(RouteKind.UNICAST)
