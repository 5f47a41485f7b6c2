"""What the tests want of a firewall, and Docker's rules that it stands among."""

from ipaddress import IPv4Address, IPv4Network

from agent.mesh.firewall import Access, FirewallWants, LocalBridge, WantedNetwork


def wants(*networks: WantedNetwork, peers: int = 1, docker_backend: str = "") -> FirewallWants:
    return FirewallWants(
        cidr=IPv4Network("10.64.0.0/10"),
        lease=IPv4Network("10.65.0.0/16"),
        uplink="eth0",
        peers=frozenset(IPv4Address("192.168.0.0") + n for n in range(peers)),
        networks=networks,
        bridges=tuple(LocalBridge(each.bridge, each.subnet) for each in networks),
        docker_backend=docker_backend,
    )


def network(bridge: str, octet: int, access: str, *, internal: bool = False) -> WantedNetwork:
    return WantedNetwork(
        bridge=bridge,
        subnet=IPv4Network(f"10.65.{octet}.0/24"),
        access=Access(access),
        internal=internal,
    )


OPEN = network("docker0", 0, "open")
SHOWN = network("br-a", 128, "published")
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
