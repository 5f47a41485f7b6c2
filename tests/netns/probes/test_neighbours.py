"""The kernel's state of a neighbour is reported when it matters, and only then."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.kernel.facts import read_host_facts
from agent.kernel.liveness.prober import Prober
from agent.kernel.netlink_monitor import KernelEvent, Monitor, NeighbourChange
from agent.kernel.uplink import choose_uplink
from agent.model.family import Address
from tests.netns.netlab import Host, Lan
from tests.waiting import eventually

pytestmark = pytest.mark.netns

PEER = IPv4Address("192.0.2.11")
OTHER = IPv4Address("192.0.2.12")


def fail_fast(link: str) -> None:
    """Let the kernel give up on a neighbour after 0.1 s instead of 3 s."""
    folder = Path("/proc/sys/net/ipv4/neigh", link)
    (folder / "mcast_solicit").write_text("1")
    (folder / "retrans_time_ms").write_text("100")


@dataclass
class Watching:
    """A host that watches PEER by eth0."""

    here: Host
    peer: Host
    events: list[KernelEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.here.call(fail_fast, "eth0")
        self.uplink = choose_uplink(self.here.call(read_host_facts), "eth0")
        self.monitor = Monitor(self.events.append)
        self.here.call(self.monitor.start)
        self.monitor.watch_neighbours(frozenset({PEER}), self.uplink.index)

    def send_to(self, address: Address) -> None:
        """One datagram, so that the kernel must find the neighbour."""

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"x", (str(address), 9))

        self.here.call(send)

    def state_of(self, address: Address) -> str:
        return self.here.ip(f"neigh show {address}")

    @property
    def reported(self) -> list[NeighbourChange]:
        return [change for event in self.events for change in event.neighbours]


@pytest.fixture
def watching(lan: Lan) -> Iterator[Watching]:
    here, peer = lan.add("192.0.2.1/24"), lan.add(f"{PEER}/24")
    made = Watching(here, peer)
    yield made
    made.monitor.stop()


def test_a_gateway_that_fails_and_answers_again_is_told_once_each(watching: Watching) -> None:
    watching.peer.ip("link set eth0 down")
    for _ in range(3):
        watching.send_to(PEER)
        eventually(lambda: "FAILED" in watching.state_of(PEER), 3)
    eventually(lambda: watching.reported == [NeighbourChange(PEER, failed=True)], 2)

    watching.peer.ip("link set eth0 up")
    eventually(lambda: _answered(watching), 5)
    eventually(
        lambda: watching.reported == [NeighbourChange(PEER, True), NeighbourChange(PEER, False)], 2
    )
    assert not any(event.concerns_objects for event in watching.events if event.neighbours)


def _answered(watching: Watching) -> bool:
    watching.send_to(PEER)
    return "REACHABLE" in watching.state_of(PEER)


def test_neighbours_that_are_well_or_none_of_ours_are_not_news(watching: Watching) -> None:
    watching.send_to(PEER)
    eventually(lambda: "REACHABLE" in watching.state_of(PEER), 3)
    for number in range(100, 200):
        watching.here.ip(f"neigh replace 192.0.2.{number} lladdr 02:00:00:00:00:01 dev eth0")
        watching.here.ip(f"neigh del 192.0.2.{number} dev eth0")
    watching.send_to(OTHER)
    eventually(lambda: "FAILED" in watching.state_of(OTHER), 3)
    time.sleep(0.1)
    assert watching.events == []


def test_the_same_address_on_another_link_is_not_the_gateway(watching: Watching) -> None:
    watching.here.ip("link add eth1 type veth peer name eth1-peer")
    watching.here.ip("link set eth1 up")
    watching.here.ip("link set eth1-peer up")
    watching.here.ip(f"route add {PEER}/32 dev eth1 src 192.0.2.1")
    watching.here.call(fail_fast, "eth1")
    watching.send_to(PEER)
    eventually(lambda: "dev eth1 FAILED" in watching.state_of(PEER), 3)
    time.sleep(0.1)
    assert watching.reported == []


def test_a_failed_neighbour_hurries_the_prober(watching: Watching) -> None:
    """Its next probe would be a minute away; the kernel's report brings it forward."""
    silent: list[frozenset[Address]] = []
    prober = Prober(silent.append, attempts=3, interval_s=0.1, again_s=60)
    watching.here.call(prober.start)
    prober.watch(frozenset({PEER}), watching.uplink)
    eventually(lambda: PEER not in _due(prober), 2)  # asked, answered, and not due for a minute
    watching.peer.ip("link set eth0 down")
    watching.here.ip(f"neigh del {PEER} dev eth0", check=False)
    watching.send_to(PEER)
    (change,) = eventually(lambda: watching.reported, 3)
    assert silent == []
    prober.hurry(frozenset({change.address, OTHER}))
    eventually(lambda: silent == [frozenset({PEER})], 2)
    prober.stop()


def _due(prober: Prober) -> set[Address]:
    """Addresses with a question to come within 30 s."""
    soon_s = time.monotonic() + 30
    return {a for a in (PEER,) if a not in prober._targets or prober._targets[a].due_s < soon_s}


def test_promise_4_hurry_shortens_no_verdict(watching: Watching) -> None:
    """However often it is called, an address gets its questions at their usual pace."""
    silent: list[frozenset[Address]] = []
    watching.peer.ip("link set eth0 down")
    prober = Prober(silent.append, attempts=3, interval_s=0.3, again_s=60)
    watching.here.call(prober.start)
    prober.watch(frozenset({PEER}), watching.uplink)
    started_s = time.monotonic()
    while not silent:
        prober.hurry(frozenset({PEER}))
        time.sleep(0.01)
        assert time.monotonic() - started_s < 5
    assert time.monotonic() - started_s > 0.8
    prober.stop()
