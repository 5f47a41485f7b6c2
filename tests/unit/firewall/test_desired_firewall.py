"""From the world's facts to what the firewall should let pass."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_address
from typing import Any

import pytest

from agent.errors import FirewallError
from agent.mesh.firewall import (
    DesiredFirewall,
    PublishedPort,
    Sender,
    slice_member,
    slices_set,
)
from agent.mesh.firewall.desired import desired_firewall, outside_links
from agent.mesh.world import World
from agent.model import (
    NETWORKS_LEVEL,
    Access,
    Attachment,
    Binding,
    Container,
    DockerFacts,
    DockerNetwork,
    HostFacts,
    HostId,
    Link,
    Uplink,
)
from agent.model.family import IPV4
from agent.model.network import MeshNetwork, NetworkSlice
from agent.sharedmap import SharedMap
from tests.unit.firewall.wanted import world_of

pytestmark = pytest.mark.unit

CIDR, LEASE = IPv4Network("10.64.0.0/10"), IPv4Network("10.65.0.0/16")


def network(bridge: str, subnet: str, label: str | None = None, **more: Any) -> DockerNetwork:  # noqa: ANN401
    labels = {} if label is None else {"hostmesh.access": label}
    return DockerNetwork(
        id=bridge, name=bridge, bridge=bridge, subnet=IPv4Network(subnet), labels=labels, **more
    )


DOCKER0 = network("docker0", "10.65.0.0/17", default=True)


def desired(
    *networks: DockerNetwork,
    default_access: Access = Access.PUBLISHED,
    host_limit: Access = Access.OPEN,
    containers: tuple[Container, ...] = (),
    other_bridges: tuple[str, ...] = (),
) -> DesiredFirewall:
    docker = DockerFacts(
        reachable=True, networks=networks, other_bridges=other_bridges, containers=containers
    )
    return desired_firewall(world_of(CIDR, LEASE, docker, access=default_access), host_limit)


def access_of(wants: DesiredFirewall) -> dict[str, str]:
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
    (said,) = wants.conditions
    assert said.name == "network-bridge-unusable"
    assert "its containers can send with any source address" in said.cause


@pytest.mark.parametrize("name", ["", "eth+", "eth0 -j ACCEPT"])
def test_an_interface_name_iptables_would_not_take_literally_is_refused(name: str) -> None:
    with pytest.raises(FirewallError, match="literally"):
        desired_firewall(world_of(CIDR, LEASE, DockerFacts(reachable=True), link=name))


def container(*addresses: str, published: str = "") -> Container:
    """``published``: "tcp 80 0.0.0.0"."""
    protocol, port, shown_at = published.split() if published else ("", "0", "")
    bindings = [Binding(protocol, int(port), ip_address(shown_at))] if published else []
    places = [Attachment(bridge, IPv4Address(address), "") for bridge, _, address in
              (each.partition(" ") for each in addresses)]  # fmt: skip
    return Container("1", "web", tuple(places), frozenset(bindings))


@pytest.mark.parametrize(
    ("shown_at", "is_published"),
    [("0.0.0.0", True), ("::", True), ("192.168.9.1", True), ("192.168.9.2", False),  # noqa: S104
     ("127.0.0.1", False), ("fd00::1", False), ("10.65.0.1", False)],
)  # fmt: skip
def test_a_port_is_published_to_the_mesh_where_everybody_reaches_it(
    shown_at: str, is_published: bool
) -> None:
    made = container("docker0 10.65.0.2", "br-old 172.18.0.2", published=f"sctp 80 {shown_at}")
    odd = container("docker0 10.65.0.3", published="quic 80 0.0.0.0")
    networks = (DOCKER0, network("br-old", "172.18.0.0/16"))
    wants = desired(*networks, containers=(made, odd))
    port = PublishedPort(IPv4Address("10.65.0.2"), "sctp", 80)
    assert wants.published == (frozenset({port}) if is_published else frozenset())


def test_a_container_with_several_networks_sends_by_each_that_is_not_internal() -> None:
    made = container("docker0 10.65.0.2", "br-a 10.65.128.2", "br-i 10.65.130.2", "gone 10.65.9.9")
    networks = (
        DOCKER0,
        network("br-a", "10.65.128.0/24"),
        network("br-i", "10.65.130.0/24", internal=True),
    )
    assert desired(*networks, containers=(made,)).senders == {
        Sender(IPv4Address("10.65.0.2"), "br-a"),
        Sender(IPv4Address("10.65.128.2"), "docker0"),
    }


def test_a_bridge_without_ipv4_has_no_address_to_send_from() -> None:
    wants = desired(DOCKER0, other_bridges=("br-six", "br+"))
    assert wants.bridges == (("br-six", None), ("docker0", DOCKER0.subnet))


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
    """The mesh's config and agent.toml reach the rules."""
    networks = (
        network("docker0", "10.65.0.0/17", default=True),
        network("br-app", "10.65.128.0/24"),
    )
    world = world_of(CIDR, LEASE, DockerFacts(reachable=True, networks=networks), access=config)
    assert [each.access for each in desired_firewall(world, limit).networks] == expected


def link(name: str, kind: str = "") -> Link:
    return Link(index=1, name=name, kind=kind, up=True, mtu=1500, mac="")


def test_while_the_uplink_is_not_known_every_link_but_dockers_leads_outside() -> None:
    """Promise 5: what comes by one of them from an address of this host's is forged."""
    links = (
        link("lo"), link("eth0"), link("eth1", "veth"), link("wg0", "wireguard"),
        link("docker0", "bridge"), link("veth12ab", "veth"),
    )  # fmt: skip
    facts = HostFacts(links=links, foreign_routes=())
    assert outside_links(World(host=facts)) == ("eth0", "eth1", "wg0")
    address = IPv4Address("192.168.1.1")
    uplink = Uplink(
        index=2, name="eth0", mtu=1500, node_address=address,
        on_link=IPv4Network("192.168.1.0/24"),
    )  # fmt: skip
    assert outside_links(World(host=facts, uplink=uplink)) == ("eth0",)
    assert outside_links(World()) == ()


@pytest.mark.parametrize(
    ("etcd", "endpoints", "ports"),
    [
        ("192.168.9.1", [("192.168.9.1", 2379)], (2379,)),
        ("127.0.0.1", [], (2379,)),
        ("192.168.9.7", [("192.168.9.7", 2379)], ()),
    ],
)
def test_an_etcd_of_this_host_is_closed_at_every_address_of_it(
    etcd: str, endpoints: list[tuple[str, int]], ports: tuple[int, ...]
) -> None:
    own = IPv4Interface("192.168.9.1/24")
    link = Link(index=2, name="eth0", kind="", up=True, mtu=1500, mac="", addresses=(own,))
    world = replace(
        world_of(CIDR, LEASE, DockerFacts(reachable=True)),
        host=HostFacts(links=(link,), foreign_routes=()),
        closed_endpoints=((IPv4Address(etcd), 2379),),
    )
    wants = desired_firewall(world)
    assert [(str(at), port) for at, port in wants.closed_endpoints] == endpoints
    assert wants.closed_ports == ports


def spanning(
    *networks: DockerNetwork,
    limit: Access = Access.OPEN,
    access: Access = Access.PUBLISHED,
    record: MeshNetwork | None = None,
) -> DesiredFirewall:
    world = world_of(CIDR, LEASE, DockerFacts(reachable=True, networks=networks), access=access)
    assert world.config is not None
    config = replace(world.config, level=NETWORKS_LEVEL)
    records = {} if record is None else {record.name: record}
    return desired_firewall(replace(world, config=config, networks=records), limit)


def slice_of(name: str, access: str | None = None, **more: Any) -> DockerNetwork:  # noqa: ANN401
    made = network("br-a", "10.65.128.0/24", access, **more)
    return replace(made, labels={**made.labels, "hostmesh.network": name})


def test_a_network_of_several_hosts_names_the_set_of_its_slices() -> None:
    wants = spanning(DOCKER0, slice_of("web"))
    assert [each.slices for each in wants.networks] == ["", slices_set("web", IPV4)]
    assert [each.labelled for each in wants.networks] == [False, True]
    assert slices_set("web", IPV4) == "hostmesh-net-4b5e57f6eb"
    member = slice_member("web", IPv4Network("10.66.0.0/24"))
    assert (member.set, member.member) == ("hostmesh-net-4b5e57f6eb", bytes([10, 66, 0, 0, 24]))


def test_promise_5_a_subnet_that_is_published_as_a_slice_is_closed_to_another_network() -> None:
    """While etcd is away it stays published: other hosts would take packets for a member's."""
    host = HostId("a" * 32)
    db = network("br-d", "10.65.131.0/24", "open")
    world = world_of(CIDR, LEASE, DockerFacts(reachable=True, networks=(DOCKER0, db)))
    assert world.config is not None
    web = NetworkSlice(host_id=host, network="web", subnet=IPv4Network("10.65.131.0/25"))
    others = replace(web, host_id=HostId("b" * 32), network="db", subnet=LEASE)
    world = replace(
        world,
        host_id=host,
        config=replace(world.config, level=NETWORKS_LEVEL),
        slices=SharedMap({(each.host_id, each.network): each for each in (web, others)}),
    )
    wants = desired_firewall(world)
    assert access_of(wants) == {"docker0": "open", "br-d": "closed"}
    assert [each.name for each in wants.conditions] == ["network-subnet-published"]

    spanning = replace(db, labels={**db.labels, "hostmesh.network": "web"})
    docker = DockerFacts(reachable=True, networks=(spanning,))
    assert access_of(desired_firewall(replace(world, docker=docker))) == {"br-d": "open"}
    withdrawn = replace(world, slices=SharedMap({(others.host_id, "db"): others}))
    assert access_of(desired_firewall(withdrawn))["br-d"] == "open"
    assert world.config is not None
    below = replace(world, config=replace(world.config, level=NETWORKS_LEVEL - 1))
    assert access_of(desired_firewall(below))["br-d"] == "open"


@pytest.mark.parametrize("limit", [Access.PUBLISHED, Access.CLOSED])
def test_what_this_host_opens_at_most_bounds_what_a_label_opens(limit: Access) -> None:
    (wanted,) = spanning(slice_of("web", "open"), limit=limit).networks
    assert (wanted.slices, wanted.labelled, wanted.access) == ("", True, limit)


@pytest.mark.parametrize(
    ("label", "record", "default", "expected"),
    [
        (None, None, "published", "published"),
        (None, "open", "closed", "open"),
        (None, "closed", "open", "closed"),
        ("open", "published", "closed", "published"),
        ("closed", "open", "open", "closed"),
        ("open", None, "closed", "open"),
    ],
)
def test_the_tightest_of_record_and_label_decides_for_everybody_else(
    label: str | None, record: str | None, default: str, expected: str
) -> None:
    said = MeshNetwork(name="web", access=Access(record) if record else None)
    wants = spanning(slice_of("web", label), access=Access(default), record=said)
    assert wants.networks[0].access == expected
    assert wants.networks[0].slices, "its members reach each other whatever its access is"


def test_what_is_no_slice_here_opens_nothing_to_members() -> None:
    for wants in (
        spanning(slice_of("Bad name")),
        spanning(slice_of("web", internal=True)),
        spanning(slice_of("web"), record=MeshNetwork(name="web", hosts=("other",))),
        desired(slice_of("web")),  # below its level
    ):
        assert not wants.networks[0].slices
