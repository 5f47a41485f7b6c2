"""kill -9 of the whole agent, again and again, under changing leases and a ping without end.

Etcd, the agent and the kernel are real. The leases are those of 800 hosts that are not there, which
move and come and go; one host is there and stays, and a container behind it is asked all the time.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.kernel.netlink_monitor import Monitor
from agent.model import HostId, Lease
from agent.registry.records import LEASES, Keys, encode_lease
from tests.netns.mesh.stage import Node, Stage
from tests.netns.netlab import Pinger
from tests.netns.routes.scene import shown
from tests.waiting import eventually

pytestmark = pytest.mark.netns

KEYS = Keys("/hostmesh")
HOSTS = 800
AT_ONCE = 100
"""Operations in one transaction; etcd takes 128."""
STEADY = "10.100.0.0/24"
STEADY_ROUTE = f"{STEADY} via 192.0.2.11 dev eth0"
CONTAINER = "10.100.0.5"
FOREIGN = "10.101.0.0/24 via 192.0.2.77 dev eth0"
AGGREGATE = "unreachable 10.64.0.0/10"


class Leases:
    """Return the leases of absent hosts, in etcd and as the kernel should have them."""

    def __init__(self, stage: Stage, choose: random.Random) -> None:
        self._stage = stage
        self._choose = choose
        self.held: dict[int, str] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        for first in range(0, HOSTS, AT_ONCE):
            self._put({number: self._address() for number in range(first, first + AT_ONCE)})

    def _address(self) -> str:
        return f"192.0.2.{self._choose.randrange(20, 90)}"

    def _put(self, changes: dict[int, str | None]) -> None:
        lines = [operation(number, address) for number, address in changes.items()]
        done = self._stage.run_etcdctl(["txn"], "\n" + "\n".join(lines) + "\n\n\n")
        assert done.returncode == 0, done.stderr
        for number, address in changes.items():
            if address is None:
                self.held.pop(number, None)
            else:
                self.held[number] = address

    def churn(self) -> None:
        """Change some of them all the time, until :meth:`rest`; few enough to be no alarm."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._change, daemon=True)
        self._thread.start()

    def _change(self) -> None:
        while not self._stop.wait(0.05):
            changes: dict[int, str | None] = {}
            for number in self._choose.sample(range(HOSTS), self._choose.randrange(1, AT_ONCE)):
                goes = number < HOSTS // 4 and self._choose.random() < 0.5
                changes[number] = None if goes else self._address()
            self._put(changes)

    def rest(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)

    def routes(self) -> set[str]:
        return {f"{subnet(number)} via {at} dev eth0" for number, at in self.held.items()}


def subnet(number: int) -> IPv4Network:
    return IPv4Network(f"10.{70 + number // 256}.{number % 256}.0/24")


def operation(number: int, address: str | None) -> str:
    """A line for ``etcdctl txn``."""
    key = KEYS.of(LEASES, subnet(number)).decode()
    if address is None:
        return f"del {key}"
    lease = Lease(
        subnet=subnet(number),
        node_address=IPv4Address(address),
        backend="host-gw",
        host_id=HostId(f"{number + 1000:032x}"),
        host_name=f"absent{number}",
    )
    value = encode_lease(lease).decode().replace("\\", "\\\\").replace('"', '\\"')
    return f'put {key} "{value}"'


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage(1, extra="probe = false\n")
    try:
        made.create_mesh()
        yield made
    finally:
        made.close()


def test_promise_6_the_agent_is_killed_and_the_host_converges(stage: Stage) -> None:
    kill_again_and_again(stage, rounds=12, seed=6)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_promise_6_the_agent_is_killed_three_hundred_times(stage: Stage) -> None:
    kill_again_and_again(stage, rounds=300, seed=1859)


def kill_again_and_again(stage: Stage, rounds: int, seed: int) -> None:
    choose = random.Random(seed)  # noqa: S311 # not for secrets
    node = stage.nodes[0]
    peer = stage.lan.add("192.0.2.11/24")
    peer.ip(f"addr add {CONTAINER}/32 dev lo")
    put_steady(stage)
    leases = Leases(stage, choose)
    node.start()
    eventually(lambda: is_right(node, leases), 30)
    node.stop(signal.SIGKILL)
    node.host.ip(f"route add {FOREIGN}")

    ping = Pinger(node.host, CONTAINER, 0.005)
    written = WrittenTo(node)
    leases.churn()
    for number in range(rounds):
        node.spawn()
        if number % 2:
            time.sleep(choose.uniform(0.1, 2))  # at any point of its run
        else:
            written.wait(10)  # in the middle of its work
            time.sleep(choose.uniform(0, 0.02))
        node.stop(signal.SIGKILL)
        there = shown(node.host)
        assert {AGGREGATE, STEADY_ROUTE} <= there, f"promise 3, round {number}"
        assert FOREIGN in shown(node.host, "root 10.101.0.0/16"), "promise 5"
        if number % 20 == 19 or number == rounds - 1:
            leases.rest()
            node.spawn()
            eventually(lambda: is_right(node, leases), 30)
            node.stop(signal.SIGKILL)
            leases.churn()
    leases.rest()
    written.monitor.stop()
    seen = ping.stop()
    print(f"{rounds} kills: {seen.sent} pings sent, {len(seen.lost)} lost")
    assert seen.lost == []


def put_steady(stage: Stage) -> None:
    lease = Lease(
        subnet=IPv4Network(STEADY),
        node_address=IPv4Address("192.0.2.11"),
        backend="host-gw",
        host_id=HostId("f" * 32),
    )
    value = encode_lease(replace(lease, host_name="steady")).decode()
    assert stage.etcdctl("put", KEYS.of(LEASES, lease.subnet).decode(), value).returncode == 0


def is_right(node: Node, leases: Leases) -> bool:
    return shown(node.host) == {AGGREGATE, STEADY_ROUTE, *leases.routes()}


class WrittenTo:
    """Tell when a program writes a route on this host."""

    def __init__(self, node: Node) -> None:
        self._seen = threading.Event()
        self.monitor = Monitor(lambda _event: self._seen.set(), coalesce_s=0)
        node.host.call(self.monitor.start)

    def wait(self, timeout_s: float) -> None:
        self._seen.clear()
        assert self._seen.wait(timeout_s), "the agent wrote no route"
