"""Every kind of object, driven by the reconciler against a kernel: add, foreign change, delete."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from agent.kernel.tables.addresses import AddressTable
from agent.kernel.tables.links import LinkTable
from agent.kernel.tables.neighbours import FdbTable, NeighbourTable
from agent.kernel.tables.routes import RouteTable
from agent.kernel.tables.table import NetlinkTable
from agent.mesh.object_kinds import ADDRESS, NEIGHBOUR, route_kind
from agent.model import IPV6, FdbEntry, LinkAddress, LinkSpec, Neighbour, Route, VxlanOptions
from agent.model.objects import NO_MAC
from agent.reconcile.interfaces import Operation, OperationKind, Reason, Table, V
from agent.reconcile.object_kind import Kind
from agent.reconcile.reconciler import Permission, Reconciler, reconcile
from tests.netns.netlab import Host
from tests.netns.tables.tunnel import ADDRESS_HERE, DEVICE, NAME, Tunnel, mac_of, peer

pytestmark = pytest.mark.netns


@pytest.fixture
def one(host: Host) -> Host:
    """A host with an uplink eth0, 192.0.2.1/24."""
    host.ip("link add eth0 type veth peer name far0")
    host.ip("addr add 192.0.2.1/24 dev eth0")
    host.ip("link set eth0 up")
    host.ip("link set far0 up")
    return host


@pytest.fixture
def tunnel(one: Host) -> Tunnel:
    """The device and three peers, made."""
    made = one.call(Tunnel)
    made.want_peers(3)
    one.call(made.settle)
    return made


def bridge(host: Host, command: str) -> str:
    return str(
        host.call(
            subprocess.run, ["bridge", *command.split()], check=True, capture_output=True, text=True
        ).stdout
    )


def index_of(host: Host, link: str) -> int:
    return int(host.ip(f"-o link show {link}").split(":")[0])


def permanent(text: str) -> set[str]:
    return {" ".join(line.split()) for line in text.splitlines() if line.strip()}


@pytest.mark.usefixtures("tunnel")
def test_promise_6_objects_are_made_and_a_second_pass_finds_nothing(one: Host) -> None:
    shown = one.ip(f"-d link show {NAME}")
    for words in (
        "mtu 1450", "UP", "link/ether 02:00:00:00:00:01", "alias hostmesh",
        "vxlan id 7 local 192.0.2.1 dev eth0", "dstport 4790", "nolearning",
    ):  # fmt: skip
        assert words in shown
    assert "inet 10.64.0.0/32" in one.ip(f"addr show dev {NAME}")
    assert permanent(one.ip(f"neigh show dev {NAME} nud permanent")) == {
        f"10.65.{number}.0 lladdr {mac_of(number)} PERMANENT" for number in range(3)
    }
    assert permanent(bridge(one, f"fdb show dev {NAME}")) == {
        f"{mac_of(number)} dst 192.0.2.{number + 2} self permanent" for number in range(3)
    }
    assert permanent(one.ip("route show proto 140")) == {
        f"10.65.{n}.0/24 via 10.65.{n}.0 dev {NAME} src 10.64.0.0 onlink mtu 1400" for n in range(3)
    }


def test_a_foreign_change_of_each_kind_is_undone(one: Host, tunnel: Tunnel) -> None:
    before = index_of(one, NAME)
    one.ip(f"link set {NAME} mtu 1300")
    one.ip(f"addr add 10.64.9.9/32 dev {NAME}")
    one.ip(f"neigh replace 10.65.0.0 lladdr 02:11:11:11:11:11 dev {NAME} nud permanent")
    one.ip(f"neigh del 10.65.1.0 dev {NAME}")
    one.ip(f"neigh add 10.65.200.0 lladdr 02:22:22:22:22:22 dev {NAME} nud permanent")
    bridge(one, f"fdb replace {mac_of(0)} dev {NAME} dst 192.0.2.99")
    bridge(one, f"fdb del {mac_of(1)} dev {NAME}")
    bridge(one, f"fdb add 02:33:33:33:33:33 dev {NAME} dst 192.0.2.98")
    one.ip(f"route replace 10.65.0.0/24 via 10.65.0.0 dev {NAME} onlink proto 140")
    done = one.call(tunnel.run)
    assert [each.failed for each in done] == [0] * 5
    assert [len(each.repaired) for each in done] == [1, 1, 3, 3, 1]
    assert index_of(one, NAME) == before, "an MTU is changed in place"
    one.call(tunnel.settle)


def test_a_changed_mac_costs_the_links_neighbours_and_all_come_back(
    one: Host, tunnel: Tunnel
) -> None:
    before = index_of(one, NAME)
    one.ip(f"link set {NAME} address 02:99:99:99:99:99")  # flushes neighbours (neigh_changeaddr)
    one.call(tunnel.run)
    one.call(tunnel.settle)
    assert index_of(one, NAME) == before, "a MAC is changed in place"


def test_a_link_that_goes_down_or_away_costs_one_pass(one: Host, tunnel: Tunnel) -> None:
    one.ip(f"link set {NAME} down")  # the kernel deletes the routes and the neighbours, too
    one.call(tunnel.settle)
    one.ip(f"link del {NAME}")
    one.call(tunnel.settle)
    assert index_of(one, NAME) >= 1 << 29


def test_an_object_that_is_no_longer_desired_goes(one: Host, tunnel: Tunnel) -> None:
    tunnel.want_peers(1)
    one.call(tunnel.settle)
    assert len(permanent(bridge(one, f"fdb show dev {NAME}"))) == 1
    tunnel.want(())
    one.call(tunnel.settle)
    assert NAME not in one.ip("link show")
    assert one.ip("route show proto 140") == ""


def test_a_change_that_cannot_be_made_in_place_makes_another_link(
    one: Host, tunnel: Tunnel
) -> None:
    before = index_of(one, NAME)
    options = VxlanOptions(vni=8, port=4790, local=IPv4Address("192.0.2.1"), underlay="eth0")
    tunnel.want((replace(DEVICE, options=options), ADDRESS_HERE, *peer(0)))
    reports = one.call(tunnel.run)
    assert [str(each) for each in (reports[0].conditions)] == []
    assert "vxlan id 8" in one.ip(f"-d link show {NAME}")
    assert index_of(one, NAME) != before
    one.call(tunnel.settle)


def test_promise_5_a_foreign_link_of_a_wanted_name_is_left_alone(one: Host) -> None:
    one.ip(f"link add {NAME} address 02:aa:aa:aa:aa:aa type bridge")
    one.ip(f"link set {NAME} up")
    one.ip(f"neigh add 10.65.9.9 lladdr 02:22:22:22:22:22 dev {NAME} nud permanent")
    before = one.ip(f"addr show {NAME}")
    tunnel = one.call(Tunnel)
    tunnel.want_peers(2)
    links, addresses, neighbours, fdb, _ = one.call(tunnel.run)
    assert [each.name for each in links.conditions] == ["link-conflict"]
    assert (addresses.failed, neighbours.failed, fdb.failed) == (1, 2, 2)
    problem = addresses.conditions[0].cause
    assert "hm-vx was made by another program; it is left alone" in problem
    tunnel.want(())
    one.call(tunnel.run)
    assert one.ip(f"addr show {NAME}") == before
    assert "10.65.9.9" in one.ip(f"neigh show dev {NAME}")
    one.ip(f"link del {NAME}")
    tunnel.want_peers(2)
    one.call(tunnel.settle)


def test_promise_5_the_mark_misses_a_link_that_came_first(one: Host) -> None:
    """Between the list and the creation another program made a link of that name."""
    table = LinkTable()
    assert one.call(table.list_all).own == ()
    one.ip(f"link add {NAME} type bridge")
    missing = Operation(OperationKind.REPLACE, DEVICE, Reason.MISSING)
    (result,) = one.call(table.apply, (missing,))
    assert "File exists" in result.problem
    assert not result.outrun
    assert "alias" not in one.ip(f"-d link show {NAME}")
    listing = one.call(table.list_all)
    assert [(each.name, each.owner) for each in listing.foreign] == [(NAME, "")]
    gone = Operation(OperationKind.DELETE, DEVICE, Reason.EXTRA)
    assert not one.call(table.apply, (gone,))[0].ok
    assert NAME in one.ip("link show")
    table.close()


def test_values_left_to_the_kernel_are_no_difference(one: Host) -> None:
    tunnel = one.call(Tunnel)
    plain = LinkSpec(name="hm-br", kind="bridge")
    tunnel.want((plain, replace(DEVICE, mac="", mtu=0)))
    one.call(tunnel.settle)
    one.ip("link set hm-br mtu 1300")
    one.call(tunnel.settle)
    tunnel.want((replace(plain, mtu=1400), replace(DEVICE, mac="", mtu=0)))
    one.call(tunnel.settle)
    assert "mtu 1400" in one.ip("link show hm-br")
    one.ip("link set hm-br mtu 1300")
    assert len(one.call(tunnel.run)[0].repaired) == 1


def test_a_kind_that_the_kernel_lacks_fails_alone(one: Host) -> None:
    tunnel = one.call(Tunnel)
    tunnel.want((LinkSpec(name="hm-none", kind="nonesuch"), LinkSpec(name="hm-br", kind="bridge")))
    links = one.call(tunnel.run)[0]
    assert (links.failed, links.installed) == (1, 1)
    assert "link replace hm-none type nonesuch" in links.conditions[0].cause


def test_the_zero_mac_has_many_destinations(one: Host, tunnel: Tunnel) -> None:
    flood = [
        FdbEntry(link=NAME, mac=NO_MAC, destination=IPv4Address(f"192.0.2.{last}"))
        for last in (20, 21, 22)
    ]
    tunnel.want((DEVICE, *flood))
    one.call(tunnel.settle)
    bridge(one, f"fdb del {NO_MAC} dev {NAME} dst 192.0.2.21")
    bridge(one, f"fdb append {NO_MAC} dev {NAME} dst 192.0.2.23")
    report = one.call(tunnel.run)[3]
    assert len(report.repaired) == 2
    one.call(tunnel.settle)
    tunnel.want((DEVICE, flood[0]))
    one.call(tunnel.settle)
    assert permanent(bridge(one, f"fdb show dev {NAME}")) == {
        f"{NO_MAC} dst 192.0.2.20 self permanent"
    }


def test_learned_entries_are_none_of_the_agents_and_give_way(one: Host, tunnel: Tunnel) -> None:
    one.ip(f"neigh add 10.65.7.0 lladdr 02:44:44:44:44:44 dev {NAME} nud stale")
    bridge(one, f"fdb add 02:44:44:44:44:44 dev {NAME} dst 192.0.2.77 dynamic")
    one.call(tunnel.settle)
    assert "10.65.7.0" in one.ip(f"neigh show dev {NAME}")
    assert "02:44:44:44:44:44" in bridge(one, f"fdb show dev {NAME}")
    tunnel.want_peers(8)
    one.call(tunnel.settle)
    assert f"10.65.7.0 lladdr {mac_of(7)} PERMANENT" in one.ip(f"neigh show dev {NAME}")


def test_promise_6_the_writer_is_killed_and_the_next_one_finishes(one: Host) -> None:
    choose = random.Random(14)  # noqa: S311 # not for secrets
    command = [sys.executable, "-m", "tests.netns.tables.tunnel", "400"]
    root = Path(__file__).parents[3]
    for _ in range(4):
        writer = one.call(subprocess.Popen, command, cwd=root, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(choose.randrange(1, 3)):
            writer.stdout.readline()
        one.call(lambda: None) if choose.random() < 0.5 else one.ip(f"link show {NAME}")
        writer.send_signal(signal.SIGKILL)
        writer.wait(10)
        writer.stdout.close()
        tunnel = one.call(Tunnel)
        tunnel.want_peers(400)
        one.call(tunnel.settle)


@pytest.mark.usefixtures("tunnel")
def test_other_links_cost_nothing_and_have_nothing_listed(one: Host) -> None:
    one.ip("link add br0 type bridge")
    one.ip("neigh add 192.0.2.9 lladdr 02:22:22:22:22:22 dev eth0 nud permanent")
    tables: tuple[NetlinkTable[Any], ...] = (
        LinkTable(),
        AddressTable(),
        NeighbourTable(),
        FdbTable(),
    )
    for table in tables:
        first = one.call(table.list_all)
        assert all(each.link == NAME for each in first.own if hasattr(each, "link"))
        assert first.foreign == ()
        assert one.call(table.list_all) is first, "unchanged: the very same list"
        table.close()


def reconciled(host: Host, kind: Kind[V], table: Table[V], *objects: V) -> Reconciler[V]:
    made = Reconciler(kind, table, clock=lambda: 0.0)
    made.want({each.key: each for each in objects})
    host.call(reconcile, (made,), Permission(may_delete=True))
    return made


def again(host: Host, one: Reconciler[V]) -> int:
    """Run a pass from a fresh list and return how much it changed."""
    one.look_again()
    (report,) = host.call(reconcile, (one,), Permission(may_delete=True))
    assert report.complete
    return len(report.done)


def test_a_thousand_ipv6_routes(one: Host) -> None:
    one.ip("-6 addr add 2001:db8::1/64 dev eth0 nodad")
    protocol, table = 140, RouteTable(family=IPV6)
    aggregate = Route(destination=IPv6Network("fd00::/16"), kind="unreachable", protocol=protocol)
    routes = [
        Route(
            destination=IPv6Network((int(IPv6Address("fd00::")) + (number << 64), 64)),
            gateway=IPv6Address(int(IPv6Address("2001:db8::100")) + number % 250),
            link="eth0",
            protocol=protocol,
            mtu=1400 if number % 2 else 0,
        )
        for number in range(1000)
    ]
    made = reconciled(one, route_kind(protocol), table, aggregate, *routes)
    assert again(one, made) == 0, "the default metric and a refusal's link are no difference"
    assert len(one.ip("-6 route show proto 140").splitlines()) == 1001
    one.ip("-6 route del fd00:0:0:5::/64")
    one.ip("-6 route replace fd00:0:0:6::/64 via 2001:db8::99 dev eth0 proto 140")
    one.ip("-6 route replace unreachable fd00:0:0:7::/64 proto 140")
    one.ip("-6 route append fd00:0:0:8::/64 via 2001:db8::98 dev eth0 proto 140")
    one.ip("-6 route add fd01::/64 via 2001:db8::98 dev eth0 proto 140")
    one.ip("-6 route add fd00:0:0:9::/64 via 2001:db8::98 dev eth0 proto 186 metric 10")
    one.ip("-6 route replace fd00:0:0:b::/64 via 2001:db8::98 dev eth0 proto 140 hoplimit 9")
    made.look_again()
    (report,) = one.call(reconcile, (made,), Permission(may_delete=True))
    assert report.failed == 0
    assert [each.name for each in report.conditions] == ["route-conflict"]
    assert "fd00:0:0:9::/64" not in one.ip("-6 route show proto 140")
    one.ip("-6 route del fd00:0:0:9::/64 proto 186 metric 10")
    assert again(one, made) == 1
    assert again(one, made) == 0
    one.ip("link set eth0 down")
    one.ip("link set eth0 up")
    one.ip("-6 addr add 2001:db8::1/64 dev eth0 nodad", check=False)
    assert again(one, made) == 1000
    made.want(dict.fromkeys(made.desired))
    assert again(one, made) == 1001
    assert one.ip("-6 route show proto 140") == ""


@pytest.mark.usefixtures("tunnel")
def test_ipv6_addresses_and_neighbours(one: Host) -> None:
    address = LinkAddress(link=NAME, interface=IPv6Interface("fd00::1/128"))
    here = reconciled(one, ADDRESS, AddressTable((IPV6,)), address)
    near = Neighbour(link=NAME, address=IPv6Address("fd00:1::"), mac=mac_of(1))
    entries = reconciled(one, NEIGHBOUR, NeighbourTable((IPV6,)), near)
    assert again(one, here) == again(one, entries) == 0
    shown = one.ip(f"-6 addr show dev {NAME}")
    assert "fd00::1/128" in shown
    assert "tentative" not in shown.split("fd00::1/128")[1].splitlines()[0]
    assert "fe80::" in shown, "the kernel's own address stays"
    one.ip(f"-6 addr add fd00::2/128 dev {NAME}")
    one.ip(f"-6 neigh del fd00:1:: dev {NAME}")
    assert again(one, here) == again(one, entries) == 1
    assert ADDRESS_HERE.interface == IPv4Interface("10.64.0.0/32")
    assert "10.64.0.0/32" in one.ip(f"addr show dev {NAME}"), "the other family is not its matter"
