"""From the world's facts to what the firewall should let pass."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.daemon.kernelpass import firewall_wants
from agent.mesh.firewall import Access, FirewallWants, desired_firewall
from agent.mesh.world import World
from agent.model import DockerFacts, DockerNetwork, Lease, MeshConfig, Uplink

pytestmark = pytest.mark.unit

CIDR, LEASE = IPv4Network("10.64.0.0/10"), IPv4Network("10.65.0.0/16")


def network(bridge: str, subnet: str, label: str | None = None, **more: bool) -> DockerNetwork:
    labels = {} if label is None else {"hostmesh.access": label}
    return DockerNetwork(
        id=bridge, name=bridge, bridge=bridge, subnet=IPv4Network(subnet), labels=labels, **more
    )


DOCKER0 = network("docker0", "10.65.0.0/17", default=True)


def desired(
    *networks: DockerNetwork,
    default_access: Access = Access.PUBLISHED,
    host_limit: Access = Access.OPEN,
) -> FirewallWants:
    return desired_firewall(
        cidr=CIDR,
        lease=LEASE,
        uplink="eth0",
        peers=[IPv4Address("192.168.9.2")],
        networks=networks,
        default_access=default_access,
        host_limit=host_limit,
    )


def access_of(wants: FirewallWants) -> dict[str, str]:
    return {network.bridge: network.access for network in wants.networks}


def test_docker0_is_open_and_user_networks_show_published_ports() -> None:
    wants = desired(DOCKER0, network("br-a", "10.65.128.0/24"))
    assert access_of(wants) == {"docker0": "open", "br-a": "published"}
    assert wants.conditions == ()


@pytest.mark.parametrize("label", ["open", "published", "closed"])
def test_a_networks_label_decides(label: str) -> None:
    wants = desired(network("br-a", "10.65.128.0/24", label), default_access=Access.CLOSED)
    assert access_of(wants) == {"br-a": label}


@pytest.mark.parametrize("label", ["", "Open", "yes", "open "])
def test_a_label_that_says_nothing_known_closes_and_is_a_condition(label: str) -> None:
    wants = desired(network("br-a", "10.65.128.0/24", label))
    assert access_of(wants) == {"br-a": "closed"}
    assert [condition.name for condition in wants.conditions] == ["network-access-invalid"]


def test_the_meshs_default_is_for_user_networks_only() -> None:
    wants = desired(DOCKER0, network("br-a", "10.65.128.0/24"), default_access=Access.CLOSED)
    assert access_of(wants) == {"docker0": "open", "br-a": "closed"}


def test_a_host_only_tightens() -> None:
    networks = (
        DOCKER0,
        network("br-a", "10.65.128.0/24", "open"),
        network("br-b", "10.65.129.0/24", "closed"),
    )
    limited = access_of(desired(*networks, host_limit=Access.PUBLISHED))
    assert limited == {"docker0": "published", "br-a": "published", "br-b": "closed"}
    assert set(access_of(desired(*networks, host_limit=Access.CLOSED)).values()) == {"closed"}


def test_internal_networks_are_closed_whatever_their_label_says() -> None:
    wants = desired(network("br-i", "10.65.130.0/24", "open", internal=True))
    assert wants.networks[0].closed
    assert wants.networks[0].internal


def test_networks_outside_the_lease_are_never_opened_but_are_known_as_local() -> None:
    wants = desired(
        network("br-old", "172.18.0.0/16", "open"), network("br-wide", "10.64.0.0/15", "open")
    )
    assert wants.networks == ()
    assert [bridge.name for bridge in wants.bridges] == ["br-old", "br-wide"]


@pytest.mark.parametrize("bridge", ["", "br+", "a b", 'x"; -j ACCEPT', "sixteen-letters-x", "a\nb"])
def test_a_bridge_name_iptables_would_not_take_literally_is_left_out(bridge: str) -> None:
    wants = desired(network(bridge, "10.65.128.0/24"))
    assert (wants.networks, wants.bridges) == ((), ())
    assert [condition.name for condition in wants.conditions] == ["network-bridge-unusable"]


@pytest.mark.parametrize("uplink", ["", "eth+", "eth0 -j ACCEPT"])
def test_an_uplink_name_iptables_would_not_take_literally_is_refused(uplink: str) -> None:
    with pytest.raises(ValueError, match="uplink"):
        desired_firewall(cidr=CIDR, lease=LEASE, uplink=uplink, peers=[], networks=[])


def test_order_of_input_does_not_matter() -> None:
    networks = [DOCKER0, network("br-a", "10.65.128.0/24"), network("br-b", "10.65.129.0/24")]
    assert desired(*networks) == desired(*reversed(networks))


@pytest.mark.parametrize(
    ("config", "limit", "expected"),
    [
        (Access.PUBLISHED, Access.OPEN, [Access.OPEN, Access.PUBLISHED]),
        (Access.OPEN, Access.OPEN, [Access.OPEN, Access.OPEN]),
        (Access.OPEN, Access.PUBLISHED, [Access.PUBLISHED, Access.PUBLISHED]),
        (Access.CLOSED, Access.OPEN, [Access.OPEN, Access.CLOSED]),
        (Access.OPEN, Access.CLOSED, [Access.CLOSED, Access.CLOSED]),
    ],
)
def test_config_opens_and_a_host_only_tightens(
    config: Access, limit: Access, expected: list[Access]
) -> None:
    """What the mesh's config and agent.toml say gets to the rules."""
    networks = (
        network("docker0", "10.65.0.0/17", default=True),
        network("br-app", "10.65.128.0/24"),
    )
    address = IPv4Address("192.168.1.1")
    world = World(
        config=MeshConfig(
            cidr=CIDR,
            subnet_len=16,
            subnet_min=IPv4Address("10.64.0.0"),
            subnet_max=IPv4Address("10.127.0.0"),
            access=config,
        ),
        own=Lease(subnet=LEASE, node_address=address, backend="host-gw"),
        uplink=Uplink(
            index=2,
            name="eth0",
            mtu=1500,
            node_address=address,
            on_link=IPv4Network("192.168.1.0/24"),
        ),
        docker=DockerFacts(reachable=True, networks=networks),
    )
    assert [each.access for each in firewall_wants(world, limit).networks] == expected
