"""Desired firewalls for tests, and Docker's rules beside them."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from agent.mesh.firewall import DesiredFirewall, Ingress, LocalBridge, WantedNetwork
from agent.mesh.world import World
from agent.model import Access, DockerFacts, Lease, MeshConfig, Uplink
from agent.model.family import IPV4, IPV6, Address, Family, Network

RANGES: dict[Family, tuple[Network, Network]] = {
    IPV4: (IPv4Network("10.64.0.0/10"), IPv4Network("10.65.0.0/16")),
    IPV6: (IPv6Network("fd00:64::/32"), IPv6Network("fd00:64:65::/48")),
}
"""The mesh's range and this host's lease."""
NODE = IPv4Address("192.168.9.1")
NODES = {IPV4: IPv4Address("192.168.0.0"), IPV6: IPv6Address("2001:db8::")}


def sources(peers: int, family: Family = IPV4) -> frozenset[Network]:
    """Node addresses of so many peers."""
    first = int(NODES[family])
    return frozenset(family.at(first + n, family.bits) for n in range(peers))


def wants(
    *networks: WantedNetwork,
    peers: int = 1,
    docker_backend: str = "",
    ingress: tuple[Ingress, ...] = (),
    family: Family = IPV4,
) -> DesiredFirewall:
    cidr, lease = RANGES[family]
    return DesiredFirewall(
        cidr=cidr,
        lease=lease,
        ingress=ingress or (Ingress("eth0", sources(peers, family)),),
        networks=networks,
        bridges=tuple(LocalBridge(each.bridge, each.subnet) for each in networks),
        docker_backend=docker_backend,
    )


def world_of(
    cidr: Network,
    lease: Network,
    docker: DockerFacts,
    *,
    access: Access = Access.PUBLISHED,
    previous: tuple[Network, ...] = (),
    former: Network | None = None,
    link: str = "eth0",
    node_address: Address = NODE,
) -> World:
    """A world of one host without peers."""

    def owned(subnet: Network) -> Lease:
        return Lease(subnet=subnet, node_address=node_address, backend="host-gw")

    return World(
        config=MeshConfig(
            cidr=cidr,
            subnet_len=lease.prefixlen,
            subnet_min=cidr.network_address,
            subnet_max=cidr.broadcast_address,
            access=access,
            previous=previous,
        ),
        own=owned(lease),
        former=None if former is None else owned(former),
        uplink=Uplink(
            index=2,
            name=link,
            mtu=1500,
            node_address=node_address,
            on_link=IPv4Network((int(node_address) & ~0xFF, 24)),
        ),
        docker=docker,
    )


def network(
    bridge: str, octet: int, access: str, *, internal: bool = False, family: Family = IPV4
) -> WantedNetwork:
    text = f"10.65.{octet}.0/24" if family is IPV4 else f"fd00:64:65:{octet:x}::/64"
    return WantedNetwork(
        bridge=bridge,
        subnet=family.network(text),
        access=Access(access),
        internal=internal,
    )


OPEN = network("docker0", 0, "open")
SHOWN = network("br-a", 128, "published")
SPANNING = replace(
    network("br-w", 131, "published"), labelled=True, slices="hostmesh-net-0123456789"
)
SPANNING_CLOSED = replace(
    network("br-x", 132, "closed"), labelled=True, slices="hostmesh-net-abcdef0123"
)
CLOSED = network("br-c", 129, "closed")
INTERNAL = network("br-i", 130, "closed", internal=True)
DOCKER_20 = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [1:2]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
{user}-A DOCKER-USER -j RETURN
COMMIT
"""
