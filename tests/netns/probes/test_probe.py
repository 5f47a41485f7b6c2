"""A host with a lapsed heartbeat is dead only if it answers neither ARP nor ICMP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.kernel.facts import read_host_facts
from agent.kernel.liveness.prober import Prober
from agent.kernel.uplink import choose_uplink
from agent.mesh.liveness import dead_subnets
from agent.model.family import Address
from tests.netns.netlab import Host, Lan, Pinger
from tests.netns.routes.scene import lease, repair, shown, world_of
from tests.waiting import eventually

pytestmark = pytest.mark.netns

PEER = IPv4Address("192.0.2.11")
PEER_LEASE = lease("10.64.1.0/24", "192.0.2.11")


@dataclass
class Probing:
    """A prober on ``here`` that watches a peer; pauses ten times shorter than in production."""

    lan: Lan
    here: Host
    peer: Host
    reported: list[frozenset[Address]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prober = Prober(
            self.reported.append, attempts=3, interval_s=0.1, again_s=0.2, rate_per_s=500
        )
        self.here.call(self.prober.start)

    def watch(self, *addresses: Address) -> None:
        uplink = choose_uplink(self.here.call(read_host_facts), "eth0")
        self.prober.watch(frozenset(addresses), uplink)

    @property
    def silent(self) -> frozenset[Address]:
        return self.reported[-1] if self.reported else frozenset()


@pytest.fixture
def probing(lan: Lan) -> Iterator[Probing]:
    made = Probing(lan, lan.add("192.0.2.1/24"), lan.add("192.0.2.11/24"))
    yield made
    made.prober.stop()


def test_promise_3_a_host_whose_agent_crashed_costs_no_traffic(probing: Probing) -> None:
    probing.watch(PEER)
    time.sleep(1.5)
    assert probing.reported == []


def test_promise_3_a_host_that_answers_arp_only_is_alive(probing: Probing) -> None:
    ignore = Path("/proc/sys/net/ipv4/icmp_echo_ignore_all")
    probing.peer.call(ignore.write_text, "1")
    probing.watch(PEER)
    time.sleep(1.5)
    assert probing.reported == []


def test_promise_3_a_silent_host_is_told_and_heals_by_itself(probing: Probing) -> None:
    probing.peer.ip("link set eth0 down")
    probing.watch(PEER)
    eventually(lambda: probing.silent == {PEER}, 3)
    probing.peer.ip("link set eth0 up")
    eventually(lambda: probing.silent == frozenset(), 3)


def test_promise_3_a_host_that_dies_while_watched(probing: Probing) -> None:
    probing.watch(PEER)
    time.sleep(0.5)
    probing.peer.ip("link set eth0 down")
    eventually(lambda: probing.silent == {PEER}, 3)


def test_promise_4_our_own_uplink_down_is_no_evidence(probing: Probing) -> None:
    probing.watch(PEER)
    time.sleep(0.3)
    probing.here.ip("link set eth0 down")
    time.sleep(1.5)
    assert probing.reported == []


def test_promise_4_a_pulled_cable_is_no_evidence(probing: Probing) -> None:
    """The interface stays up, and the kernel calls sent what it drops for want of a carrier."""
    probing.watch(PEER)
    time.sleep(0.3)
    probing.lan.switch.ip("link set p0-eth0 down")
    eventually(lambda: "NO-CARRIER" in probing.here.ip("link show eth0"), 2)
    time.sleep(1.5)
    assert probing.reported == []


def test_promise_10_among_very_many_silent_hosts_each_has_its_turn(lan: Lan) -> None:
    """A site without power: the last host of it is found as surely as the first."""
    here = lan.add("172.16.0.1/16")
    reported: list[frozenset[Address]] = []
    prober = Prober(reported.append, attempts=3, interval_s=0.05, again_s=0.1, rate_per_s=1000)
    first = int(IPv4Address("172.16.1.0"))
    dead = frozenset(IPv4Address(first + number) for number in range(600))
    here.call(prober.start)
    prober.watch(dead, choose_uplink(here.call(read_host_facts), "eth0"))
    eventually(lambda: reported and reported[-1] == dead, 15)
    prober.stop()


def test_heartbeat_back_means_not_watched_and_not_silent(probing: Probing) -> None:
    absent = IPv4Address("192.0.2.99")
    probing.watch(absent)
    eventually(lambda: probing.silent == {absent}, 3)
    probing.watch()
    eventually(lambda: probing.silent == frozenset(), 1)


def test_promise_10_a_thousand_suspects_are_asked_at_a_bounded_rate(probing: Probing) -> None:
    def sent() -> int:
        line = probing.here.ip("-s link show eth0").splitlines()[-1]
        return int(line.split()[1])

    before = sent()
    probing.watch(*(IPv4Address(f"192.0.2.{n}") for n in range(20, 250)))
    time.sleep(1)
    # 500 questions a second, each an echo request (with the kernel's own ARP) and an ARP.
    assert sent() - before < 500 * 3 + 100


def test_promise_10_stop_is_bounded(probing: Probing) -> None:
    probing.watch(PEER)
    started_s = time.monotonic()
    probing.prober.stop()
    assert time.monotonic() - started_s < 1


def test_promise_3_senders_to_a_dead_host_fail_at_once_until_it_answers(probing: Probing) -> None:
    here = probing.here
    probing.peer.ip("link set eth0 down")
    probing.watch(PEER)
    eventually(lambda: PEER in probing.silent, 3)
    dead = dead_subnets([PEER_LEASE], probing.silent)
    assert dead == {IPv4Network("10.64.1.0/24")}

    repair(here, world_of(here, PEER_LEASE, dead=dead))
    assert "unreachable 10.64.1.0/24" in shown(here)
    ping = Pinger(here, "10.64.1.1", 0.01)
    time.sleep(0.1)
    seen = ping.stop()
    assert seen.refused == seen.sent > 0

    repair(here, world_of(here, PEER_LEASE))
    assert "10.64.1.0/24 via 192.0.2.11 dev eth0" in shown(here)
