"""Changes of every kind are reported by name and undone without a list of everything."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.kernel.netlink_monitor import KernelEvent, Monitor
from agent.model import FdbEntry, LinkAddress, LinkSpec, Neighbour, Route
from agent.reconcile.interfaces import Change
from agent.reconcile.reconciler import Permission, reconcile
from tests.netns.netlab import Host
from tests.netns.tables.test_objects import bridge
from tests.netns.tables.tunnel import ADDRESS_HERE, DEVICE, NAME, Tunnel, mac_of, peer
from tests.waiting import eventually

pytestmark = pytest.mark.netns

TYPES: tuple[type[Any], ...] = (LinkSpec, LinkAddress, Neighbour, FdbEntry, Route)


class Following:
    """A tunnel that follows the monitor, as the agent does."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.tunnel = host.call(Tunnel)
        self.posted: queue.Queue[KernelEvent] = queue.Queue()
        self.events: list[KernelEvent] = []
        self.monitor = Monitor(self.posted.put, own_ports=self.ports)
        host.call(self.monitor.start)
        self.tunnel.want_peers(3)
        host.call(self.tunnel.settle)
        self.turn()

    def ports(self) -> frozenset[int]:
        tables: list[Any] = [each.table for each in self.tunnel.all]
        return frozenset().union(*(table.port_ids for table in tables))

    def turn(self) -> int:
        """Follow what was posted, run a pass, and return how much it changed."""
        while not self.posted.empty():
            event = self.posted.get()
            self.events.append(event)
            for kind, one in zip(TYPES, self.tunnel.all, strict=True):
                one.observe(event.of(kind))
                one.links_changed(event.links | event.addresses, addresses=bool(event.addresses))
                if event.resync:
                    one.look_again()
        reports = self.host.call(reconcile, self.tunnel.all, Permission(may_delete=True))
        # Routes go with their source address, and may be reported before it: that fails once.
        assert [each.failed for each in reports[:-1]] == [0] * 4
        return sum(len(each.done) for each in reports)

    def undoes(self, there: Callable[[], bool]) -> None:
        """Turn until something was changed and what should be there is."""
        eventually(lambda: self.turn() > 0)
        eventually(lambda: self.turn() == 0 and there())

    def routes(self) -> set[str]:
        """Destinations of the reported routes, without those that go with addresses."""
        found = (each.object for each in self.of(Route))
        return {str(each.destination) for each in found if each.kind == "unicast"}

    def of(self, kind: type[Any]) -> list[Change[Any]]:
        return [each for event in self.events for each in event.of(kind)]


@pytest.fixture
def following(host: Host) -> Iterator[Following]:
    host.ip("link add eth0 type veth peer name far0")
    host.ip("addr add 192.0.2.1/24 dev eth0")
    host.ip("link set eth0 up")
    host.ip("link set far0 up")
    made = Following(host)
    eventually(lambda: made.turn() == 0 and made.posted.empty())
    made.events.clear()
    yield made
    made.monitor.stop()


@pytest.mark.parametrize(
    ("kind", "command", "shown", "there"),
    [
        (Route, "route del 10.65.1.0/24", "route show proto 140", "10.65.1.0/24 "),
        (
            Route,
            f"route replace 10.65.1.0/24 dev {NAME} proto 140",
            "route show proto 140",
            "10.65.1.0/24 via 10.65.1.0 ",
        ),
        (Neighbour, f"neigh del 10.65.1.0 dev {NAME}", f"neigh show dev {NAME}", mac_of(1)),
        (
            Neighbour,
            f"neigh replace 10.65.1.0 lladdr 02:aa:00:00:00:00 dev {NAME} nud permanent",
            f"neigh show dev {NAME}",
            f"10.65.1.0 lladdr {mac_of(1)} PERMANENT",
        ),
        (
            Neighbour,
            f"neigh change 10.65.1.0 lladdr {mac_of(1)} dev {NAME} nud reachable",
            f"neigh show dev {NAME}",
            f"10.65.1.0 lladdr {mac_of(1)} PERMANENT",
        ),
        (LinkAddress, f"addr del 10.64.0.0/32 dev {NAME}", f"addr show {NAME}", "10.64.0.0/32"),
        (LinkSpec, f"link set {NAME} mtu 1300", f"link show {NAME}", "mtu 1450"),
        (LinkSpec, f"link set {NAME} down", f"link show {NAME}", "UP"),
        (LinkSpec, f"link del {NAME}", "link show", f"{NAME}: <"),
    ],
)
def test_a_foreign_change_is_reported_and_undone(
    following: Following, kind: type[Any], command: str, shown: str, there: str
) -> None:
    following.host.ip(command)
    following.undoes(lambda: there in following.host.ip(shown))
    eventually(lambda: following.turn() == 0 and following.of(kind) != [])
    everything = following.host.call(following.tunnel.run)
    assert [each.done for each in everything] == [()] * 5, "a full comparison finds nothing"


@pytest.mark.parametrize(
    "command",
    [
        f"fdb del {mac_of(1)} dev {NAME}",
        f"fdb replace {mac_of(1)} dev {NAME} dst 192.0.2.99",
    ],
)
def test_a_foreign_change_of_a_forwarding_entry_is_reported_and_undone(
    following: Following, command: str
) -> None:
    bridge(following.host, command)
    wanted = f"{mac_of(1)} dst 192.0.2.3"
    following.undoes(lambda: wanted in bridge(following.host, f"fdb show dev {NAME}"))
    eventually(lambda: following.turn() == 0 and following.of(FdbEntry) != [])


def test_objects_that_another_program_adds_to_the_agents_link_go(following: Following) -> None:
    host = following.host
    host.ip(f"neigh add 10.65.9.0 lladdr {mac_of(9)} dev {NAME} nud permanent")
    bridge(host, f"fdb add {mac_of(9)} dev {NAME} dst 192.0.2.99")
    host.ip(f"addr add 10.64.0.9/32 dev {NAME}")
    following.undoes(
        lambda: (
            mac_of(9) not in host.ip(f"neigh show dev {NAME}")
            and mac_of(9) not in bridge(host, f"fdb show dev {NAME}")
            and "10.64.0.9" not in host.ip(f"addr show {NAME}")
        )
    )


def test_other_links_and_the_agents_own_writing_are_not_reported(following: Following) -> None:
    host = following.host
    host.ip("link add hm-foreign type vxlan id 9 dstport 4791")
    host.ip("link set hm-foreign up")
    host.ip(f"neigh add 10.65.9.0 lladdr {mac_of(9)} dev hm-foreign nud permanent")
    host.ip(f"neigh add 192.0.2.9 lladdr {mac_of(9)} dev eth0 nud permanent")
    bridge(host, f"fdb add {mac_of(9)} dev hm-foreign dst 192.0.2.99")
    host.ip("addr add 10.64.0.9/32 dev hm-foreign")
    following.tunnel.want((DEVICE, ADDRESS_HERE, *peer(0), *peer(7)))
    eventually(lambda: following.turn() > 0)
    host.ip("route add 10.65.99.0/24 dev eth0")  # the last: all before it was reported by then
    eventually(lambda: following.turn() == 0 and "10.65.99.0/24" in following.routes())
    assert following.routes() == {"10.65.99.0/24"}
    assert following.of(LinkAddress) == []
    # The kernel tells of a neighbour's end later and as its own doing: that changes nothing.
    assert all(each.gone for each in following.of(Neighbour))
    assert {each.object.owner for each in following.of(LinkSpec)} == {""}
    reported = {each.object.mac for each in following.of(FdbEntry)}
    assert mac_of(9) not in reported
    assert "hm-foreign" in {name for event in following.events for name in event.links}
