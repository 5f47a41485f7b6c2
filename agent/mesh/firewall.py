"""What the host's firewall should let pass: addresses, devices and access, not yet rules.

Pure. The kernel's room turns a :class:`DesiredFirewall` into chains (agent/kernel/firewall).
A network is open to the mesh only when it is listed here as such: what is not known yet
(a network that Docker made a moment ago) stays closed until the next pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from types import MappingProxyType
from typing import Final, NamedTuple

from agent.mesh.backends.base import TunnelPort
from agent.model import Access, Condition, Container, DockerNetwork
from agent.model.family import (
    IPV4,
    Address,
    Family,
    Network,
    family_of,
    is_host,
    network_order,
    within,
)
from agent.model.objects import SetMember

__all__ = [
    "ACCESS_LABEL",
    "Access",
    "DesiredFirewall",
    "Ingress",
    "LocalBridge",
    "PublishedPort",
    "Sender",
    "WantedNetwork",
    "desired_firewall",
    "is_closed",
    "set_name",
    "source_member",
]

ACCESS_LABEL: Final = "hostmesh.access"
"""Label of a Docker network that says how open it is to the mesh."""


def set_name(what: str, family: Family, interface: str = "") -> str:
    """Name an ipset of the agent's; every one begins with "hostmesh-".

    Args:
        what: "in", sources that may come in by ``interface`` (hash:net); "published", addresses
            and ports that containers publish (hash:ip,port); "senders", addresses that may come
            by another bridge than their own (hash:net,iface). Rules of version 0.1.1 name
            "peers", node addresses (hash:ip).
    """
    suffix = "" if family is IPV4 else str(family.version)
    return f"hostmesh-{what}{suffix}" + (f"-{interface}" if interface else "")


def source_member(interface: str, source: Network) -> SetMember:
    """Return the member that lets a source come in by an interface."""
    packed = source.network_address.packed + bytes([source.prefixlen])
    return SetMember(set_name("in", family_of(source), interface), packed)


_INTERFACE_NAME: Final = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")
"""Names iptables takes literally. A trailing ``+`` would be a wildcard (iptables(8), -i)."""

_PROTOCOLS: Final = MappingProxyType({"tcp": 6, "udp": 17, "sctp": 132})
"""What Docker can publish, and the numbers of these protocols."""

_TIGHTNESS: Final = {Access.OPEN: 0, Access.PUBLISHED: 1, Access.CLOSED: 2}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class WantedNetwork:
    """One Docker network inside the lease, and what the mesh may do with it.

    Attributes:
        bridge: Its Linux bridge ("docker0", "br-0123456789ab").
        access: "open", every port; "published", published ports and ICMP; "closed", nothing.
        internal: Made with --internal: closed, and kept from talking to the mesh as well.
    """

    subnet: Network
    bridge: str
    access: Access
    internal: bool = False

    @property
    def closed(self) -> bool:
        """Nothing of ours opens this network, in either direction."""
        return self.internal or self.access is Access.CLOSED


class LocalBridge(NamedTuple):
    """A bridge of this host's Docker, and the only addresses that its containers may send from.

    A network without IPv4 has no subnet.
    """

    name: str
    subnet: Network | None


class PublishedPort(NamedTuple):
    """A port that a container shows to the mesh, at its own address."""

    address: Address
    protocol: str
    port: int

    @property
    def member(self) -> SetMember:
        """It as a member of the set of such ports."""
        packed = bytes([_PROTOCOLS[self.protocol]]) + self.port.to_bytes(2)
        return SetMember(
            set_name("published", family_of(self.address)), self.address.packed + packed
        )


class Sender(NamedTuple):
    """A container that has several networks may answer from ``address`` by another's bridge."""

    address: Address
    bridge: str

    @property
    def member(self) -> SetMember:
        """It as a member of the set of such senders."""
        family = family_of(self.address)
        packed = self.address.packed + bytes([family.bits]) + self.bridge.encode()
        return SetMember(set_name("senders", family), packed)


class Ingress(NamedTuple):
    """An interface by which mesh traffic comes in, and the sources that may come by it now.

    Sources are subnets and node addresses of the peers that may deliver by this interface. They
    are members of a set, never rules.
    """

    interface: str
    sources: frozenset[Network]


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredFirewall:
    """All that the firewall's rules depend on.

    Attributes:
        cidr: The mesh's range: source of container traffic from other hosts.
        lease: This host's subnet.
        previous: CIDRs that the mesh moves away from; they count as ``cidr`` does.
        former: The subnet that this host had before the move, while it still holds it.
        ingress: The interfaces by which mesh traffic comes in and goes out, in order of name.
        published: Ports that containers publish; members of a set, never rules.
        senders: What may come from another bridge than its address says; members of a set.
        networks: Docker networks inside the lease, in order of subnet.
        bridges: Bridges of every Docker network of this host, inside the lease or not, in order
            of name. Where their traffic goes on this host is Docker's to judge.
        docker_backend: Docker's firewall backend: "iptables", "nftables" or "" when unknown.
        tunnels: UDP ports by which tunnels' packets come in.
        conditions: What was wrong with the input; nothing of it was guessed.
    """

    cidr: Network
    lease: Network
    ingress: tuple[Ingress, ...]
    published: frozenset[PublishedPort] = frozenset()
    senders: frozenset[Sender] = frozenset()
    networks: tuple[WantedNetwork, ...] = ()
    bridges: tuple[LocalBridge, ...] = ()
    docker_backend: str = ""
    tunnels: tuple[TunnelPort, ...] = ()
    conditions: tuple[Condition, ...] = ()
    previous: tuple[Network, ...] = ()
    former: Network | None = None

    @property
    def family(self) -> Family:
        """The family of every address here."""
        return family_of(self.cidr)

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Every interface by which mesh traffic may come."""
        return tuple(each.interface for each in self.ingress)

    @property
    def carrying(self) -> tuple[str, ...]:
        """The interfaces by which it comes now; all of them while there is no peer."""
        return tuple(each.interface for each in self.ingress if each.sources) or self.interfaces

    @property
    def nodes(self) -> tuple[Network, ...]:
        """Node addresses of the peers, in order."""
        found = {each for ingress in self.ingress for each in ingress.sources if is_host(each)}
        return tuple(sorted(found, key=network_order))

    @property
    def cidrs(self) -> tuple[Network, ...]:
        """Every range of the mesh."""
        return (self.cidr, *self.previous)

    @property
    def leases(self) -> tuple[Network, ...]:
        """Every subnet of this host."""
        return (self.lease,) if self.former is None else (self.lease, self.former)


def desired_firewall(
    *,
    cidr: Network,
    lease: Network,
    ingress: Mapping[str, frozenset[Network]],
    networks: Iterable[DockerNetwork],
    other_bridges: Iterable[str] = (),
    containers: Iterable[Container] = (),
    node_address: Address | None = None,
    docker_backend: str = "",
    tunnels: tuple[TunnelPort, ...] = (),
    default_access: Access = Access.PUBLISHED,
    host_limit: Access = Access.OPEN,
    previous: tuple[Network, ...] = (),
    former: Network | None = None,
) -> DesiredFirewall:
    """What the firewall should let pass on this host.

    Args:
        cidr, lease: The mesh's range and this host's part of it.
        ingress: By interface: subnets and node addresses of the peers that may deliver by it
            now. An interface by which nothing may come at the moment has an empty set.
        networks: Every bridge network Docker has, docker0 included. Those outside the
            lease are never opened. Pass the last known ones while Docker does not answer.
        other_bridges: Bridges of Docker's networks without IPv4.
        containers: Every container with a network. Pass the last known ones, too.
        node_address: Address of this host to which its peers send.
        docker_backend: ``DockerFacts.firewall_backend``.
        tunnels: See :class:`DesiredFirewall`.
        default_access: The mesh's default for user-defined networks without a label.
        host_limit: No network of this host is opened wider than this.
        previous, former: See :class:`DesiredFirewall`.

    Raises:
        ValueError: An interface of ``ingress`` has no name that iptables takes literally.
    """
    for interface in ingress:
        if not _INTERFACE_NAME.fullmatch(interface):
            raise ValueError(f"iptables does not take the interface name {interface!r} literally")
    leases = (lease,) if former is None else (lease, former)
    known = sorted(networks, key=lambda network: (network_order(network.subnet), network.bridge))
    usable = [network for network in known if _INTERFACE_NAME.fullmatch(network.bridge)]
    judged = [
        _judged(network, default_access, host_limit)
        for network in usable
        if any(within(network.subnet, each) for each in leases)
    ]
    odd = (_odd_bridge(network) for network in known if network not in usable)
    containers = tuple(containers)
    return DesiredFirewall(
        cidr=cidr,
        lease=lease,
        ingress=tuple(Ingress(name, ingress[name]) for name in sorted(ingress)),
        published=frozenset(_published(containers, leases, node_address)),
        senders=frozenset(_senders(containers, usable)),
        networks=tuple(wanted for wanted, _ in judged),
        bridges=_bridges(usable, other_bridges),
        docker_backend=docker_backend,
        tunnels=tunnels,
        conditions=(*(problem for _, problem in judged if problem), *odd),
        previous=previous,
        former=former,
    )


def is_closed(network: DockerNetwork, default: Access, limit: Access) -> bool:
    """Whether the mesh may send nothing into ``network``; see :func:`desired_firewall`."""
    return _judged(network, default, limit)[0].closed


def _bridges(networks: Iterable[DockerNetwork], others: Iterable[str]) -> tuple[LocalBridge, ...]:
    subnets: dict[str, Network | None] = {
        name: None for name in others if _INTERFACE_NAME.fullmatch(name)
    }
    subnets |= {network.bridge: network.subnet for network in networks}
    return tuple(LocalBridge(name, subnets[name]) for name in sorted(subnets))


def _published(
    containers: Iterable[Container],
    leases: tuple[Network, ...],
    node_address: Address | None,
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
            if everywhere and each.protocol in _PROTOCOLS:
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


def _judged(
    network: DockerNetwork, default: Access, limit: Access
) -> tuple[WantedNetwork, Condition | None]:
    access, problem = _access(network, default, limit)
    wanted = WantedNetwork(
        subnet=network.subnet, bridge=network.bridge, access=access, internal=network.internal
    )
    return wanted, problem


def _access(
    network: DockerNetwork, default: Access, limit: Access
) -> tuple[Access, Condition | None]:
    """How open ``network`` is, never wider than ``limit``; an unreadable label closes it."""
    if network.internal:
        return Access.CLOSED, None
    label = network.labels.get(ACCESS_LABEL)
    problem: Condition | None = None
    if label is None:
        access = Access.OPEN if network.default else default
    elif label in set(Access):
        access = Access(label)
    else:
        access, problem = Access.CLOSED, _odd_label(network, label)
    return max(access, limit, key=_TIGHTNESS.__getitem__), problem


def _odd_label(network: DockerNetwork, label: str) -> Condition:
    return Condition(
        name="network-access-invalid",
        subject=network.name,
        cause=f"label {ACCESS_LABEL}={label!r} of Docker network {network.name} is none of"
        " open, published, closed; the network is closed to the mesh",
        hint=f"make the network again with --label {ACCESS_LABEL}=published",
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
