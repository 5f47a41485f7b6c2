"""The short path on the real kernel: the delta, fed by the monitor, ends where a list would."""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from itertools import count
from typing import Any

import pytest

from agent.daemon.reconcile.kernel_objects import KernelObjects, ObjectsReport
from agent.kernel.netlink_monitor import KernelEvent, Monitor
from agent.kernel.tables.routes import RouteTable
from agent.mesh.desired import desired_objects
from agent.mesh.world import World
from agent.model import Lease, Route
from agent.reconcile.interfaces import NONE_KNOWN, Listing
from tests.netns.netlab import Host
from tests.netns.routes.scene import CIDR, CONFIG, lease, scene, world_of
from tests.waiting import eventually

pytestmark = pytest.mark.netns


class CountedTable(RouteTable):
    """Counts its lists."""

    lists = 0

    def list_all(self, known: Mapping[Any, Route] = NONE_KNOWN) -> Listing[Route]:
        self.lists += 1
        return super().list_all(known)


class ShortPath:
    """The daemon's objects, without its pauses."""

    def __init__(self, host: Host, world: World) -> None:
        self._host = host
        self.world = world
        self.events: queue.SimpleQueue[KernelEvent] = queue.SimpleQueue()
        self.table = CountedTable()
        clock = count(0.0, 1000.0)  # each pause is over at the next look
        self.objects = KernelObjects(self.table, 140, lambda: next(clock))
        self.monitor = Monitor(self.events.put, own_ports=lambda: self.table.port_ids)
        self.monitor.watch_range((CIDR,), 140)
        host.call(self.monitor.start)

    def turn(self) -> ObjectsReport:
        while not self.events.empty():
            self.objects.observe(self.events.get())
        return self._host.call(
            lambda: self.objects.run(self.world, may_delete=True, may_sweep=True)
        )

    def is_right(self) -> bool:
        """Turn once; true when a fresh list holds exactly what a full comparison wants."""
        self.turn()
        own = self._host.call(RouteTable().list_all).own
        return set(own) == set(desired_objects(self.world).of(Route).values())

    def stop(self) -> None:
        self.monitor.stop()
        self.table.close()


@pytest.mark.parametrize("seed", range(4))
def test_promise_6_random_disturbances_end_where_a_full_pass_would(host: Host, seed: int) -> None:
    choose = random.Random(seed)  # noqa: S311 # not for secrets
    scene(host)
    peers: dict[int, Lease] = {n: lease(f"10.64.{n}.0/24", "192.0.2.11") for n in range(1, 9)}
    path = ShortPath(host, world_of(host, *peers.values()))
    assert path.is_right()

    for _ in range(120):
        number = choose.randrange(1, 9)
        subnet = f"10.64.{number}.0/24"
        address = f"192.0.2.{choose.randrange(11, 30)}"
        what = choose.randrange(10)
        if what < 5:
            host.ip(
                (
                    f"route del {subnet} proto 140",
                    f"route replace {subnet} via {address} proto 140",
                    f"route append {subnet} via {address} proto 140",
                    f"route replace {subnet} via {address} proto 140 metric 7",
                    f"route replace {subnet} proto 140 nexthop via 192.0.2.9 nexthop via {address}",
                )[what],
                check=False,
            )
        elif what == 5:
            host.ip(f"route replace {subnet} via {address} proto 186")
            host.ip(f"route del {subnet} proto 186")
        elif what == 6:
            host.ip("link set eth0 down")
            host.ip("link set eth0 up")
        elif what == 7:
            host.ip("addr add 198.51.100.9/24 dev eth1")
            host.ip(f"route replace {subnet} via {address} src 198.51.100.9 proto 186")
            if choose.random() < 0.5:
                path.turn()
            host.ip("addr del 198.51.100.9/24 dev eth1")
        elif what == 8:
            peers[number] = lease(subnet, address)
        else:
            peers.pop(number, None)
        path.world = world_of(host, *peers.values())
        if choose.random() < 0.7:
            path.turn()
    eventually(path.is_right, 5)
    path.stop()


def test_a_single_drift_needs_no_list(host: Host) -> None:
    scene(host)
    path = ShortPath(host, world_of(host, lease("10.64.1.0/24", "192.0.2.11")))
    assert path.is_right()
    lists = path.table.lists
    for _ in range(5):
        host.ip("route del 10.64.1.0/24")
        eventually(path.is_right, 1)
        host.ip("route replace 10.64.1.0/24 via 192.0.2.99 proto 140")
        eventually(path.is_right, 1)
    assert path.table.lists == lists
    path.stop()


def test_promise_5_a_conflict_is_known_from_its_event_alone(host: Host) -> None:
    scene(host)
    path = ShortPath(host, world_of(host, lease("10.64.1.0/24", "192.0.2.11")))
    assert path.is_right()
    host.ip("route replace 10.64.1.0/24 via 192.0.2.77 proto 186")
    time.sleep(0.1)
    lists = path.table.lists
    (conflict,) = path.turn().conditions
    assert conflict.name == "route-conflict"
    assert "192.0.2.77" in conflict.cause
    assert path.table.lists == lists
    host.ip("route del 10.64.1.0/24")
    eventually(path.is_right, 1)
    path.stop()


@pytest.mark.parametrize(
    "extra", ["via 192.0.2.11 mtu 1300", "nexthop via 192.0.2.11 nexthop via 192.0.2.12"]
)
def test_promise_6_an_extra_that_the_kernel_takes_for_the_agents(host: Host, extra: str) -> None:
    """A deletion names next hops only, so that of two alike the kernel may take the wrong one."""
    scene(host)
    path = ShortPath(host, world_of(host, lease("10.64.1.0/24", "192.0.2.11")))
    assert path.is_right()
    host.ip(f"route append 10.64.1.0/24 proto 140 {extra}")
    eventually(path.is_right, 2)
    path.stop()


def test_promise_5_a_comparison_in_between_hides_no_foreign_route_of_a_new_range(
    host: Host,
) -> None:
    scene(host)
    path = ShortPath(host, world_of(host))
    try:
        host.ip("route add 10.200.1.0/24 via 192.0.2.77 metric 9 proto 186")
        path.turn()
        moved = world_of(host, lease("10.200.1.0/24", "192.0.2.11"))
        config = replace(CONFIG, previous=(IPv4Network("10.192.0.0/10"),))
        path.world = replace(moved, config=config)
        host.call(path.objects.compare, path.world)  # as agentctl diff has it done
        assert "route-conflict" in {each.name for each in path.turn().conditions}
    finally:
        path.stop()
