"""The uplink by each kind of setting, overlaps, sysctls in a folder."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from agent.errors import KernelError
from agent.kernel.lookup import Decision
from agent.kernel.sysctl import Sysctls
from agent.kernel.uplink import choose_uplink
from agent.mesh.overlap import host_overlaps, networks_in_use
from agent.model import DockerFacts, DockerNetwork, HostFacts, Lease, Link, Route, Uplink
from agent.model.family import Address

pytestmark = pytest.mark.unit


def link(index: int, name: str, *addresses: str, up: bool = True) -> Link:
    return Link(
        index=index,
        name=name,
        kind="",
        up=up,
        mtu=1500,
        mac="",
        addresses=tuple(IPv4Interface(each) for each in addresses),
    )


def route(destination: str, link_name: str | None = None, **more: object) -> Route:
    return Route(destination=IPv4Network(destination), link=link_name, **more)  # type: ignore[arg-type]


FACTS = HostFacts(
    links=(
        link(1, "lo", "127.0.0.1/8"),
        link(2, "eth0", "192.0.2.1/24", "192.0.2.2/24"),
        link(3, "eth1", "198.51.100.1/24"),
        link(4, "bond0.7"),
        link(5, "docker0", "172.17.0.1/16"),
        link(6, "cloud0", "203.0.113.5/32"),
    ),
    foreign_routes=(
        route("0.0.0.0/0", "eth1", gateway=IPv4Address("198.51.100.254"), protocol=16),
        route("203.0.113.0/26", "cloud0", scope=253),
    ),
)


def no_path(_: Address) -> Decision:
    raise AssertionError("not to be asked")


def by(setting: str) -> Uplink:
    return choose_uplink(FACTS, setting, None, lookup=no_path)


def test_by_name() -> None:
    assert by("eth0").node_address == IPv4Address("192.0.2.1")


def test_a_name_is_taken_literally_before_it_is_a_pattern() -> None:
    facts = HostFacts(
        links=(link(2, "eth0x5", "192.0.2.1/24"), link(3, "eth0.5", "198.51.100.1/24")),
        foreign_routes=(),
    )
    assert choose_uplink(facts, "eth0.5").name == "eth0.5"


def test_by_regular_expression() -> None:
    assert by("eth[1-9]").name == "eth1"


def test_by_cidr_takes_the_address_in_it() -> None:
    assert by("192.0.2.2/32").node_address == IPv4Address("192.0.2.2")
    assert by("198.51.100.0/24").name == "eth1"


def test_by_route_to_an_address() -> None:
    asked: list[Address] = []

    def lookup(address: Address) -> Decision:
        asked.append(address)
        return Decision(link="eth0", source=IPv4Address("192.0.2.2"))

    uplink = choose_uplink(FACTS, "route to 192.0.2.9", None, lookup=lookup)
    assert (uplink.name, uplink.node_address) == ("eth0", IPv4Address("192.0.2.2"))
    assert asked == [IPv4Address("192.0.2.9")]


def test_by_the_route_to_etcd_without_a_setting() -> None:
    etcd = IPv4Address("192.0.2.9")
    assert choose_uplink(FACTS, "", etcd, lookup=lambda _: Decision(link="eth0")).name == "eth0"


def test_etcd_on_this_host_by_its_address_or_by_the_default_route() -> None:
    here = Decision(link="lo", local=True)
    assert choose_uplink(FACTS, "", IPv4Address("192.0.2.1"), lookup=lambda _: here).name == "eth0"
    assert choose_uplink(FACTS, "", IPv4Address("127.0.0.1"), lookup=lambda _: here).name == "eth1"
    assert choose_uplink(FACTS, "", None, lookup=no_path).name == "eth1"


def test_node_address_set() -> None:
    wanted = IPv4Address("192.0.2.2")
    assert choose_uplink(FACTS, "eth0", node_address=wanted).node_address == wanted
    assert choose_uplink(FACTS, node_address=wanted).name == "eth0"
    with pytest.raises(KernelError, match="does not have the address"):
        choose_uplink(FACTS, "eth1", node_address=wanted)


def test_on_link_range_of_a_cloud_address_is_the_link_scope_route() -> None:
    assert by("cloud0").on_link == IPv4Network("203.0.113.0/26")


@pytest.mark.parametrize(
    "setting",
    [
        "eth9",
        "10.0.0.0/8",
        "bond0.7",
        "route to nowhere",
        "route to fd00::1",
        "fd00::/8",
        "(",
        "lo",
    ],
)
def test_what_does_not_fit_is_an_error_that_says_what_there_is(setting: str) -> None:
    with pytest.raises(KernelError) as caught:
        by(setting)
    assert caught.value.hint


def test_no_way_anywhere_is_an_error() -> None:
    empty = HostFacts(links=(link(1, "lo", "127.0.0.1/8"),), foreign_routes=())
    with pytest.raises(KernelError, match="uplink"):
        choose_uplink(empty)


CIDR = IPv4Network("10.64.0.0/10")


@pytest.mark.parametrize(
    ("links", "routes", "words"),
    [
        ([link(2, "eth0", "10.70.0.1/24")], [], "10.70.0.1/24 of eth0"),
        ([link(2, "tun0")], [route("10.64.0.0/16", "tun0", protocol=4)], "10.64.0.0/16 by tun0"),
        ([], [route("10.0.0.0/8", protocol=186)], "10.0.0.0/8 written by bgp"),
        ([], [route("10.70.0.0/16", kind="blackhole")], "10.70.0.0/16"),
    ],
)
def test_overlaps_are_named(links: list[Link], routes: list[Route], words: str) -> None:
    (found,) = host_overlaps(HostFacts(links=tuple(links), foreign_routes=tuple(routes)), CIDR)
    assert words in found


@pytest.mark.parametrize(
    ("links", "routes"),
    [
        ([link(2, "eth0", "192.0.2.1/24")], [route("0.0.0.0/0", "eth0")]),
        ([], [route("0.0.0.0/1"), route("128.0.0.0/1")]),
        ([link(5, "docker0", "10.70.0.1/16")], [route("10.70.0.0/16", "docker0", protocol=2)]),
        ([], [route("10.0.0.0/8", kind="blackhole")]),
        ([link(7, "br-1", "10.64.0.129/25")], [route("10.64.0.128/25", "br-1", protocol=2)]),
    ],
)
def test_links_and_routes_that_do_not_overlap(links: list[Link], routes: list[Route]) -> None:
    facts = HostFacts(links=tuple(links), foreign_routes=tuple(routes))
    assert host_overlaps(facts, CIDR, None, [IPv4Network("10.64.0.0/24")]) == ()


def test_what_the_host_uses_inside_the_cidr_is_no_subnet_for_it() -> None:
    links = (link(2, "eth0", "10.70.0.1/24"), link(3, "eth1", "192.0.2.1/24"))
    routes = (route("10.80.0.0/16", "eth0", protocol=4), route("10.0.0.0/8", protocol=186))
    found = networks_in_use(HostFacts(links=links, foreign_routes=routes), CIDR)
    assert found == (IPv4Network("10.70.0.0/24"), IPv4Network("10.80.0.0/16"))


def test_a_route_that_leads_to_a_peers_subnet_by_that_peer_is_no_overlap() -> None:
    """Routes that flanneld left behind, or an operator's own: docs/flannel.md, step 4."""
    subnet, peer = IPv4Network("10.70.0.0/16"), IPv4Address("192.0.2.7")
    lease = Lease(subnet=subnet, node_address=peer, backend="host-gw")
    leftover = HostFacts(links=(), foreign_routes=(route(str(subnet), "eth0", gateway=peer),))
    assert host_overlaps(leftover, CIDR, None, (), {subnet: lease}) == ()
    assert networks_in_use(leftover, CIDR, None, (), {subnet: lease}) == ()
    elsewhere = HostFacts(
        links=(), foreign_routes=(route(str(subnet), "eth0", gateway=IPv4Address("192.0.2.8")),)
    )
    assert host_overlaps(elsewhere, CIDR, None, (), {subnet: lease})
    assert host_overlaps(leftover, CIDR)


def test_dockers_bridge_by_another_name_is_no_overlap() -> None:
    facts = HostFacts(links=(link(5, "cbr0", "10.70.0.1/16"),), foreign_routes=())
    bridge = DockerNetwork(
        id="x", name="bridge", bridge="cbr0", subnet=IPv4Network("10.70.0.0/16"), default=True
    )
    assert host_overlaps(facts, CIDR, DockerFacts(reachable=True, bridge=bridge)) == ()
    assert host_overlaps(facts, CIDR, None)


@pytest.fixture
def sysctls(tmp_path: Path) -> Sysctls:
    (tmp_path / "ip_forward").write_text("0\n")
    for name, value in (("all", "0"), ("eth0", "1"), ("eth1", "2")):
        (tmp_path / "conf" / name).mkdir(parents=True)
        (tmp_path / "conf" / name / "rp_filter").write_text(f"{value}\n")
    return Sysctls(tmp_path)


def test_forwarding_is_enabled_once_and_undone(sysctls: Sysctls) -> None:
    change = sysctls.enable_forwarding()
    assert change is not None
    assert sysctls.ip_forward()
    assert sysctls.enable_forwarding() is None
    assert sysctls.undo(change)
    assert not sysctls.ip_forward()


def test_undo_leaves_a_value_that_another_program_set_since(sysctls: Sysctls) -> None:
    change = sysctls.enable_forwarding()
    assert change is not None
    sysctls.write("ip_forward", "0")
    sysctls.write("ip_forward", "2")
    assert not sysctls.undo(change)


def test_strict_reverse_path_filter_is_a_condition(sysctls: Sysctls) -> None:
    def of(name: str, *, mixed: bool) -> str:
        uplink = Uplink(
            index=2,
            name=name,
            mtu=1500,
            node_address=IPv4Address("192.0.2.1"),
            on_link=IPv4Network("192.0.2.0/24"),
        )
        found = sysctls.reverse_path_condition(uplink, mixed=mixed)
        return f"{found.name} {found.severity}" if found else ""

    assert of("eth0", mixed=False) == "rp-filter-strict info"
    assert of("eth0", mixed=True) == "rp-filter-strict warning"
    assert of("eth1", mixed=True) == ""


def test_missing_sysctl_is_a_kernel_error(sysctls: Sysctls) -> None:
    with pytest.raises(KernelError, match="cannot read"):
        sysctls.read("conf/none/rp_filter")
