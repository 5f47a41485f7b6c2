"""The desired firewall of a host as values: addresses, devices, members of sets."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from agent.mesh.backends.base import TunnelPort
from agent.mesh.networks import digest
from agent.model import Access, Condition
from agent.model.family import IPV4, Address, Family, Network, family_of, is_host, network_order
from agent.model.objects import SetMember

__all__ = [
    "PROTOCOLS",
    "DesiredFirewall",
    "Ingress",
    "LocalBridge",
    "PublishedPort",
    "Sender",
    "WantedNetwork",
    "set_name",
    "slice_member",
    "slices_set",
    "source_member",
]

PROTOCOLS: Final = MappingProxyType({"tcp": 6, "udp": 17, "sctp": 132})
"""The protocols that Docker can publish, and their numbers."""


def set_name(what: str, family: Family, of: str = "") -> str:
    """Name an ipset of the agent's; every one begins with "hostmesh-".

    Args:
        what: "in", sources that may come in by the interface ``of`` (hash:net); "net", slices of
            the mesh network with the digest ``of`` (hash:net); "published", addresses and ports
            that containers publish (hash:ip,port); "senders", addresses that may come by another
            bridge than their own (hash:net,iface). Rules of version 0.1.1 name "peers", node
            addresses (hash:ip).
    """
    suffix = "" if family is IPV4 else str(family.version)
    return f"hostmesh-{what}{suffix}" + (f"-{of}" if of else "")


def slices_set(name: str, family: Family) -> str:
    """Name the set of all slices of a mesh network."""
    return set_name("net", family, digest(name))


def slice_member(name: str, subnet: Network) -> SetMember:
    """Return the member that makes a subnet a slice of a mesh network."""
    return SetMember(slices_set(name, family_of(subnet)), _packed(subnet))


def source_member(interface: str, source: Network) -> SetMember:
    """Return the member that lets a source come in by an interface."""
    return SetMember(set_name("in", family_of(source), interface), _packed(source))


def _packed(network: Network) -> bytes:
    return network.network_address.packed + bytes([network.prefixlen])


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class WantedNetwork:
    """One Docker network inside the lease, and what the mesh may do with it.

    Attributes:
        bridge: Its Linux bridge ("docker0", "br-0123456789ab").
        access: "open", every port; "published", published ports and ICMP; "closed", nothing.
        internal: Made with --internal: closed, and kept from talking to the mesh as well.
        labelled: It has the label of a mesh network, whether that counts or not.
        slices: Name of the set of all slices of its mesh network: what they send to it passes,
            whatever its access is. "" where it is in no mesh network.
    """

    subnet: Network
    bridge: str
    access: Access
    internal: bool = False
    labelled: bool = False
    slices: str = ""

    @property
    def closed(self) -> bool:
        """No rule opens this network to hosts outside its mesh network, in either direction."""
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
        """The member of the set of such ports."""
        packed = bytes([PROTOCOLS[self.protocol]]) + self.port.to_bytes(2)
        return SetMember(
            set_name("published", family_of(self.address)), self.address.packed + packed
        )


class Sender(NamedTuple):
    """A container that has several networks may answer from ``address`` by another's bridge."""

    address: Address
    bridge: str

    @property
    def member(self) -> SetMember:
        """The member of the set of such senders."""
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
        closed_endpoints: Addresses and TCP ports of etcd that containers are kept from.
        closed_ports: TCP ports of an etcd of this host: containers are kept from them at every
            address of this host, since it may listen on all.
        tunnels: UDP ports by which tunnels' packets come in.
        conditions: What was wrong with the input. Nothing was guessed.
        name_servers: Addresses of this host at which containers of its bridges ask for names, and
            no other machine.
    """

    cidr: Network
    lease: Network
    ingress: tuple[Ingress, ...]
    published: frozenset[PublishedPort] = frozenset()
    senders: frozenset[Sender] = frozenset()
    networks: tuple[WantedNetwork, ...] = ()
    bridges: tuple[LocalBridge, ...] = ()
    docker_backend: str = ""
    closed_endpoints: tuple[tuple[Address, int], ...] = ()
    closed_ports: tuple[int, ...] = ()
    tunnels: tuple[TunnelPort, ...] = ()
    conditions: tuple[Condition, ...] = ()
    previous: tuple[Network, ...] = ()
    former: Network | None = None
    name_servers: tuple[Network, ...] = ()

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
