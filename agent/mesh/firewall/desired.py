"""From the world to what this host's firewall should let pass. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import permutations
from typing import Final

from agent.errors import FirewallError
from agent.mesh.backends import TunnelPort
from agent.mesh.desired import desired_objects
from agent.mesh.firewall.access import judged
from agent.mesh.firewall.values import (
    PROTOCOLS,
    DesiredFirewall,
    Ingress,
    LocalBridge,
    PublishedPort,
    Sender,
    WantedNetwork,
    slices_set,
)
from agent.mesh.networks import own_slices, published_slices
from agent.mesh.networks.claims import spans_hosts
from agent.mesh.peer_rules import PeerRules
from agent.mesh.world import World
from agent.model import Access, Condition, Container, DockerFacts, DockerNetwork, MeshConfig
from agent.model.family import Address, Network, family_of, meet, network_order, within
from agent.model.names import NAME_SERVERS
from agent.model.network import NETWORK_LABEL, NetworkSlice

__all__ = ["desired_firewall", "judged_networks", "outside_links"]

_INTERFACE_NAME: Final = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")
"""Names iptables takes literally. A trailing ``+`` would be a wildcard (iptables(8), -i)."""

_DOCKERS_VETH: Final = "veth"
"""Docker's name for the host's end of a container's link (vethPrefix in libnetwork)."""

_NO_DOCKER: Final = DockerFacts(reachable=False)


def desired_firewall(
    world: World,
    access_limit: Access = Access.OPEN,
    ingress: Mapping[str, frozenset[Network]] | None = None,
    tunnels: tuple[TunnelPort, ...] | None = None,
) -> DesiredFirewall:
    """Return what the firewall should let pass in ``world``.

    A Docker network is open to the mesh only when it is known: one that Docker made a moment ago
    stays closed until the next pass. One outside the lease is never opened.

    Args:
        access_limit: No network of this host is opened wider than this.
        ingress: What may come in by each interface, where that is known already; else every peer
            is looked at. The uplink has a set in any case, empty where nothing may come by it.
        tunnels: By which ports tunnels' packets come in, where that is known already.

    Raises:
        FirewallError: The mesh, the lease or the uplink is not known, or an interface has no name
            that iptables takes literally.
    """
    config, own, uplink = world.config, world.own, world.uplink
    if config is None or own is None or uplink is None:
        raise FirewallError("the mesh, the lease or the uplink is not known")
    sources = desired_objects(world).ingress if ingress is None else ingress
    docker = world.docker or _NO_DOCKER
    leases = world.own_subnets
    known = _known(docker)
    usable = [network for network in known if _INTERFACE_NAME.fullmatch(network.bridge)]
    networks = judged_networks(world, access_limit)
    if tunnels is None:
        rules = PeerRules.of(world)
        tunnels = rules.tunnels if isinstance(rules, PeerRules) else ()
    return DesiredFirewall(
        cidr=config.cidr,
        previous=config.previous,
        lease=own.subnet,
        former=world.former.subnet if world.former else None,
        ingress=_ingress({uplink.name: frozenset(), **sources}),
        published=frozenset(_published(docker.containers, leases, uplink.node_address)),
        senders=frozenset(_senders(docker.containers, usable)),
        networks=tuple(wanted for wanted, _ in networks),
        bridges=_bridges(usable, docker.other_bridges),
        closed_endpoints=tuple(
            (address, port)
            for address, port in world.closed_endpoints
            if family_of(address) is family_of(config.cidr) and not address.is_loopback
        ),
        closed_ports=_ports_of_this_host(world),
        docker_backend=docker.firewall_backend,
        tunnels=tunnels,
        name_servers=_name_servers(config),
        conditions=(
            *(problem for _, problem in networks if problem),
            *(_odd_bridge(network) for network in known if network not in usable),
        ),
    )


def judged_networks(
    world: World, access_limit: Access
) -> tuple[tuple[WantedNetwork, Condition | None], ...]:
    """Return each Docker network inside the lease, with what is wrong with its label of access.

    A host that opens no more than published ports opens no more to a mesh network either: there
    membership lets nothing pass. A network whose subnet was a slice is closed while the slice is
    published: other hosts take what comes from there for a member's.
    """
    if world.config is None or world.docker is None:
        return ()
    members = own_slices(world).by_docker_id if access_limit is Access.OPEN else {}
    slices = published_slices(world) if spans_hosts(world) else ()
    found = []
    for network in _known(world.docker):
        inside = any(within(network.subnet, lease) for lease in world.own_subnets)
        if inside and _INTERFACE_NAME.fullmatch(network.bridge):
            wanted, problem = judged(network, world.config.access, access_limit, world.networks)
            if network.id in members:
                name = members[network.id].name
                wanted = replace(wanted, slices=slices_set(name, family_of(network.subnet)))
            label = network.labels.get(NETWORK_LABEL)
            former = (e for e in slices if e.network != label and meet(e.subnet, network.subnet))
            stale = next(former, None)
            if stale is not None and not wanted.closed:
                wanted = replace(wanted, access=Access.CLOSED)
                problem = problem or _still_published(network, stale)
            found.append((wanted, problem))
    return tuple(found)


def _known(docker: DockerFacts) -> list[DockerNetwork]:
    """Return Docker's networks in order of subnet."""
    return sorted(docker.networks, key=lambda each: (network_order(each.subnet), each.bridge))


def _name_servers(config: MeshConfig) -> tuple[Network, ...]:
    """Return the addresses of this host's name servers; none of another family than the rules'."""
    family = family_of(config.cidr)
    found = NAME_SERVERS if config.has_names else ()
    return tuple(family.host(each) for each in found if family_of(each) is family)


def _ports_of_this_host(world: World) -> tuple[int, ...]:
    """Return the closed ports of an etcd that runs on this host."""
    links = world.host.links if world.host else ()
    own = {interface.ip for link in links for interface in link.addresses}
    here = (port for at, port in world.closed_endpoints if at.is_loopback or at in own)
    return tuple(sorted(set(here)))


def _ingress(sources: Mapping[str, frozenset[Network]]) -> tuple[Ingress, ...]:
    for name in sources:
        if not _INTERFACE_NAME.fullmatch(name):
            raise FirewallError(
                f"iptables does not take the interface name {name!r} literally",
                hint="name another uplink in agent.toml",
            )
    return tuple(Ingress(name, sources[name]) for name in sorted(sources))


def outside_links(world: World) -> tuple[str, ...]:
    """Return the interfaces by which packets from outside may come.

    While the uplink is not known, that is every link but bridges and the links on them.
    """
    if world.uplink is not None:
        return (world.uplink.name,)
    links = world.host.links if world.host else ()
    return tuple(
        each.name
        for each in links
        if each.kind != "bridge" and each.name != "lo" and not each.name.startswith(_DOCKERS_VETH)
    )


def _bridges(networks: Iterable[DockerNetwork], others: Iterable[str]) -> tuple[LocalBridge, ...]:
    subnets: dict[str, Network | None] = {
        name: None for name in others if _INTERFACE_NAME.fullmatch(name)
    }
    subnets |= {network.bridge: network.subnet for network in networks}
    return tuple(LocalBridge(name, subnets[name]) for name in sorted(subnets))


def _published(
    containers: Iterable[Container],
    leases: tuple[Network, ...],
    node_address: Address,
) -> Iterator[PublishedPort]:
    """Ports that the host shows to everybody or at the node address.

    One that it shows at 127.0.0.1 or at an address of another LAN is not meant for the mesh.
    """
    for container in containers:
        addresses = [
            each.address
            for each in container.attachments
            if any(each.address in lease for lease in leases)
        ]
        for each in container.bindings:
            everywhere = each.host_address.is_unspecified or each.host_address == node_address
            if everywhere and each.protocol in PROTOCOLS:
                for address in addresses:
                    yield PublishedPort(address, each.protocol, each.port)


def _senders(
    containers: Iterable[Container], networks: Iterable[DockerNetwork]
) -> Iterator[Sender]:
    """Addresses of containers that have several networks, by the bridges of the other ones.

    What comes to such a container by one network is answered by the network that has its default
    route. Docker does nothing against it.
    """
    bridges = {network.id: network.bridge for network in networks if not network.internal}
    for container in containers:
        places = [each for each in container.attachments if each.network in bridges]
        for one, other in permutations(places, 2):
            yield Sender(one.address, bridges[other.network])


def _still_published(network: DockerNetwork, stale: NetworkSlice) -> Condition:
    return Condition(
        name="network-subnet-published",
        subject=network.name,
        cause=f"Docker network {network.name} has {network.subnet}, and this host still publishes"
        f" {stale.subnet} as its part of mesh network {stale.network}; the network is closed to the"
        " mesh until that is withdrawn",
        hint="if it lasts, see etcd and slices-not-published in agentctl status",
    )


def _odd_bridge(network: DockerNetwork) -> Condition:
    return Condition(
        name="network-bridge-unusable",
        subject=network.name,
        cause=f"bridge name {network.bridge!r} of Docker network {network.name} cannot be"
        " written in a firewall rule; the network is closed to the mesh, and its containers can"
        " send with any source address",
        hint="make the network again with another com.docker.network.bridge.name",
    )
