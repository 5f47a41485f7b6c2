"""An uplink that is chosen by a route follows that route, as soon as the kernel tells."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from agent.kernel.facts import read_host_facts
from agent.kernel.netlink_monitor import KernelEvent, Monitor
from agent.kernel.uplink import choose_uplink, uplink_target
from agent.model import Route, Uplink
from tests.netns.netlab import Host
from tests.netns.routes.scene import CIDR, scene
from tests.waiting import eventually

pytestmark = pytest.mark.netns

ETCD = IPv4Address("203.0.113.5")


@pytest.fixture
def one(host: Host) -> Host:
    """192.0.2.1 on eth0, 198.51.100.1 on eth1, the default gateway behind eth0."""
    scene(host)
    host.ip("route add default via 192.0.2.254")
    return host


@pytest.fixture(params=[None], ids=["no etcd"])
def ways(one: Host, request: pytest.FixtureRequest) -> Iterator[list[KernelEvent]]:
    """Events that call for another look at the uplink; the parameter is etcd's address."""
    found: list[KernelEvent] = []
    monitor = Monitor(lambda event: found.append(event) if event.concerns_host else None)
    monitor.watch_range((CIDR,), 140, request.param)
    one.call(monitor.start)
    yield found
    monitor.stop()


def chosen(host: Host, setting: str = "", etcd: IPv4Address | None = None) -> Uplink:
    return host.call(lambda: choose_uplink(read_host_facts(), setting, etcd))


def test_a_new_default_gateway_moves_the_uplink(one: Host, ways: list[KernelEvent]) -> None:
    assert chosen(one).name == "eth0"
    one.ip("route replace default via 198.51.100.254")
    assert eventually(lambda: ways, 1)[0].ways
    assert (chosen(one).name, str(chosen(one).node_address)) == ("eth1", "198.51.100.1")


def test_a_better_default_route_beside_the_old_one(one: Host, ways: list[KernelEvent]) -> None:
    one.ip("route replace default via 192.0.2.254 metric 100")
    one.ip("route del default via 192.0.2.254 metric 0")
    eventually(lambda: len(ways) > 0, 1)
    ways.clear()
    one.ip("route add default via 198.51.100.254 metric 50")
    assert eventually(lambda: ways, 1)[0].ways
    assert chosen(one).name == "eth1"
    ways.clear()
    one.ip("route del default via 198.51.100.254 metric 50")
    assert eventually(lambda: ways, 1)[0].ways
    assert chosen(one).name == "eth0"


@pytest.mark.parametrize("ways", [ETCD], indirect=True)
def test_the_route_to_etcd_counts_before_the_default(one: Host, ways: list[KernelEvent]) -> None:
    assert chosen(one, etcd=ETCD).name == "eth0"
    one.ip("route add 203.0.113.0/24 via 198.51.100.254")
    assert eventually(lambda: ways, 1)[0].ways
    assert chosen(one, etcd=ETCD).name == "eth1"
    one.ip("route replace default via 192.0.2.253")
    assert chosen(one, etcd=ETCD).name == "eth1"


@pytest.mark.parametrize(
    "route", ["203.0.112.0/24 via 198.51.100.254", "10.64.7.0/24 via 192.0.2.11 proto 140"]
)
def test_other_routes_are_no_reason_to_look(one: Host, ways: list[KernelEvent], route: str) -> None:
    one.ip(f"route add {route}")
    one.ip("route replace default via 192.0.2.253")
    eventually(lambda: ways, 1)
    destinations = {str(each.object.destination) for event in ways for each in event.of(Route)}
    assert len(ways) == 1
    assert "203.0.112.0/24" not in destinations


@pytest.mark.parametrize(
    ("setting", "target"),
    [("", ETCD), ("eth1", None), ("192.0.2.0/24", None), ("route to 192.0.2.9", "192.0.2.9")],
)
def test_which_route_decides(setting: str, target: str | None) -> None:
    assert uplink_target(setting, ETCD) == (IPv4Address(target) if target else None)


@pytest.mark.parametrize("bridge", ["docker0", "br-0123456789ab", "hostmesh0", "mesh-web"])
def test_a_cidr_or_a_pattern_chooses_no_link_to_the_hosts_own_containers(
    host: Host, bridge: str
) -> None:
    """Made before the uplink, so that it comes first; unless it is named literally."""
    host.ip(f"link add {bridge} type bridge")
    host.ip(f"addr add 10.64.3.1/24 dev {bridge}")
    host.ip(f"link set {bridge} up")
    host.ip("link add eth0 type veth peer name eth0-peer")
    host.ip("addr add 10.9.0.1/24 dev eth0")
    host.ip("link set eth0 up")
    host.ip("link set eth0-peer up")

    def chosen_in_mesh(setting: str) -> str:
        facts = host.call(read_host_facts)
        return host.call(lambda: choose_uplink(facts, setting, mesh=(CIDR,))).name

    for setting in ("10.0.0.0/8", ".*[0-9b]", f"{bridge}|eth0"):
        assert chosen_in_mesh(setting) == "eth0"
    assert chosen_in_mesh(bridge) == bridge
