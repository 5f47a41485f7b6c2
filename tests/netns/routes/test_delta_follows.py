"""The short path on the real kernel: the delta, fed by the monitor, ends where a list would."""

from __future__ import annotations

import queue
import random
import time
from ipaddress import IPv4Address

import pytest

from agent.kernel.monitor import KernelEvent, Monitor
from agent.kernel.routes import RouteTable
from agent.mesh.delta import RouteDelta
from agent.mesh.desired import desired_routes
from agent.mesh.world import World
from agent.model import Lease
from tests.netns.netlab import Host, eventually
from tests.netns.routes.scene import CIDR, lease, scene, world_of

pytestmark = pytest.mark.netns


class ShortPath:
    """What the daemon's route part does, without its pauses."""

    def __init__(self, host: Host, world: World) -> None:
        self._host = host
        self.world = world
        self.events: queue.SimpleQueue[KernelEvent] = queue.SimpleQueue()
        self.table = RouteTable()
        self.delta = RouteDelta()
        self.lists = 0
        self.monitor = Monitor(self.events.put, own_ports=lambda: self.table.port_ids)
        self.monitor.watch_range((CIDR,), 140)
        host.call(self.monitor.start)
        self.delta.world_changed(world)
        self.must_list = True

    def turn(self) -> None:
        while not self.events.empty():
            event = self.events.get()
            for change in event.routes:
                self.delta.observed(change)
            self.must_list = self.must_list or event.may_have_taken(
                self.delta.links, by_address=self.delta.have_sources
            )
        if self.must_list or self.delta.needs_list:
            self.lists += 1
            self.delta.actual_listed(*self._host.call(self.table.list_routes, (CIDR,)))
            self.must_list = False
        plan = self.delta.plan(may_delete=True)
        if plan.operations:
            self.delta.applied(self._host.call(self.table.apply, plan))

    def is_right(self) -> bool:
        """Turn once; true when a fresh list holds exactly what a full pass wants."""
        self.turn()
        ours = self._host.call(RouteTable().list_ours)
        return set(ours) == set(desired_routes(self.world).routes.values())

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
        if choose.random() < 0.5:
            path.delta.world_changed(path.world)
        if choose.random() < 0.7:
            path.turn()
    path.delta.world_changed(path.world)
    eventually(path.is_right, 5)
    path.stop()


def test_a_single_drift_needs_no_list(host: Host) -> None:
    scene(host)
    path = ShortPath(host, world_of(host, lease("10.64.1.0/24", "192.0.2.11")))
    assert path.is_right()
    lists = path.lists
    for _ in range(5):
        host.ip("route del 10.64.1.0/24")
        eventually(path.is_right, 1)
        host.ip("route replace 10.64.1.0/24 via 192.0.2.99 proto 140")
        eventually(path.is_right, 1)
    assert path.lists == lists
    path.stop()


def test_promise_5_a_conflict_is_known_from_its_event_alone(host: Host) -> None:
    scene(host)
    path = ShortPath(host, world_of(host, lease("10.64.1.0/24", "192.0.2.11")))
    assert path.is_right()
    host.ip("route replace 10.64.1.0/24 via 192.0.2.77 proto 186")
    time.sleep(0.1)
    path.turn()
    (conflict,) = path.delta.plan(may_delete=True).conflicts
    assert conflict.foreign.gateway == IPv4Address("192.0.2.77")
    host.ip("route del 10.64.1.0/24")
    eventually(path.is_right, 1)
    path.stop()


@pytest.mark.parametrize(
    "extra", ["via 192.0.2.11 mtu 1300", "nexthop via 192.0.2.11 nexthop via 192.0.2.12"]
)
def test_promise_6_an_extra_that_the_kernel_does_not_tell_from_ours(host: Host, extra: str) -> None:
    """A deletion names next hops only, so that of two alike the kernel may take the wrong one."""
    scene(host)
    path = ShortPath(host, world_of(host, lease("10.64.1.0/24", "192.0.2.11")))
    assert path.is_right()
    host.ip(f"route append 10.64.1.0/24 proto 140 {extra}")
    eventually(path.is_right, 2)
    path.stop()
