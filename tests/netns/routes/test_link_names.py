"""Routes name their links: what is true of names when links come, go and are renamed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.kernel.netlink_monitor import KernelEvent, Monitor
from agent.kernel.tables.routes import RouteTable
from agent.model import Route
from agent.reconcile.interfaces import Operation, OperationKind, Reason
from tests.netns.netlab import Host
from tests.netns.routes.scene import scene, shown
from tests.waiting import eventually

pytestmark = pytest.mark.netns

ROUTE = Route(
    destination=IPv4Network("10.64.1.0/24"),
    gateway=IPv4Address("192.0.2.11"),
    link="eth0",
    protocol=140,
)
AWAY = replace(ROUTE, destination=IPv4Network("10.64.2.0/24"), gateway=None, link="eth7")


@pytest.fixture
def one(host: Host) -> Host:
    """A host with eth0 (192.0.2.1/24) and eth1 (198.51.100.1/24)."""
    return scene(host)


def written(host: Host, table: RouteTable, *routes: Route) -> list[str]:
    """Write the routes and return the problems, "" for each that went well."""
    plan = [Operation(OperationKind.REPLACE, each, Reason.MISSING) for each in routes]
    return [each.problem for each in host.call(table.apply, plan)]


def test_a_route_by_a_link_that_is_not_there_fails_alone(one: Host) -> None:
    table = RouteTable()
    problems = written(one, table, AWAY, ROUTE, AWAY)
    assert problems[1] == ""
    assert problems[0] == problems[2]
    assert problems[0].endswith("this host has no link eth7")
    assert shown(one) == {"10.64.1.0/24 via 192.0.2.11 dev eth0"}
    extra = [Operation(OperationKind.DELETE, AWAY, Reason.EXTRA)]
    assert one.call(table.apply, extra)[0].ok, "what names a link that is gone is gone"
    table.close()


def test_a_name_is_looked_up_at_every_write(one: Host) -> None:
    table = RouteTable()
    assert written(one, table, ROUTE) == [""]
    one.ip("link set eth0 down")
    one.ip("link set eth0 name old0")
    one.ip("link set eth1 down")
    one.ip("link set eth1 name eth0")
    one.ip("link set eth0 up")
    moved = replace(ROUTE, gateway=IPv4Address("198.51.100.11"))
    assert written(one, table, moved) == [""]
    assert shown(one) == {"10.64.1.0/24 via 198.51.100.11 dev eth0"}
    table.close()


def test_a_list_after_a_rename_has_the_new_name_though_the_kernels_bytes_are_the_same(
    one: Host,
) -> None:
    table = RouteTable()
    assert written(one, table, replace(ROUTE, gateway=None)) == [""]
    first = one.call(table.list_all)
    assert [each.link for each in first.own] == ["eth0"]
    assert one.call(table.list_all) is first
    one.ip("link set eth0 name lan0")  # renaming a link that is up needs Linux 6.2
    listing = one.call(table.list_all)
    assert [each.link for each in listing.own] == ["lan0"]
    assert "eth0" not in {each.link for each in listing.foreign}
    assert "lan0" in {each.link for each in listing.foreign}
    table.close()


def test_events_name_links_of_before_and_after(one: Host) -> None:
    events: list[KernelEvent] = []
    monitor = Monitor(events.append)
    one.call(monitor.start)
    try:
        one.ip("link add late0 type veth peer name late1")
        one.ip("addr add 203.0.113.1/24 dev late0")
        eventually(lambda: any("late0" in each.addresses for each in events))
        one.ip("link set late0 name later0")
        one.ip("addr add 203.0.113.2/24 dev later0")
        eventually(lambda: any("later0" in each.addresses for each in events))
        assert any({"late0", "later0"} <= each.links for each in events)
        one.ip("route add 10.64.3.0/24 dev eth0 proto 140")  # a link older than the monitor
        eventually(lambda: "eth0" in {c.object.link for e in events for c in e.of(Route)})
    finally:
        monitor.stop()
