"""Many addresses are pinged at once, from one socket, in bounded time, with and without answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.errors import KernelError
from agent.kernel.diagnose.sweep import Ask, EchoSocket, Heard, sweep
from tests.netns.netlab import Host, Lan

pytestmark = pytest.mark.netns

HERE = IPv4Address("192.0.2.1")
PEER = IPv4Address("192.0.2.11")


@pytest.fixture
def link(lan: Lan) -> Iterator[EchoSocket]:
    here = lan.add("192.0.2.1/24")
    lan.add("192.0.2.11/24")
    found = here.call(EchoSocket, HERE)
    yield found
    found.close()


def asked(host: Host, *asks: Ask, **kwargs: float) -> list[Heard]:
    found = host.call(sweep, asks, **kwargs)  # type: ignore[arg-type] # numbers all
    return [found[each] for each in asks]


def test_an_answer_has_its_time_and_silence_has_none(lan: Lan, link: EchoSocket) -> None:
    here = lan.hosts[0]
    unused = IPv4Address("192.0.2.99")
    good, bad = asked(here, Ask(link, PEER), Ask(link, unused), wait_s=0.3)
    assert good.rtt_s is not None
    assert 0 < good.rtt_s < 0.2
    assert not bad.answered


def test_promise_10_a_thousand_addresses_half_of_them_dead_take_seconds(
    lan: Lan, link: EchoSocket
) -> None:
    """And 4 MB of answers at once overflow no buffer."""
    here, peer = lan.hosts
    peer.ip("route add local 10.66.0.0/23 dev lo")
    here.ip("route add 10.66.0.0/16 via 192.0.2.11")
    peer.ip("route add blackhole 10.66.4.0/23")
    alive = list(IPv4Network("10.66.0.0/23"))[:500]
    dead = list(IPv4Network("10.66.4.0/23"))[:500]
    began_s = time.monotonic()
    found = asked(here, *(Ask(link, each, 1500) for each in alive + dead))
    took_s = time.monotonic() - began_s
    assert [each.answered for each in found] == [True] * 500 + [False] * 500
    assert took_s < 6
    assert asked(here, Ask(link, dead[0]), until_s=time.monotonic()) == [
        Heard(problem="not asked: out of time")
    ]


def test_the_last_answer_ends_the_wait(lan: Lan, link: EchoSocket) -> None:
    began_s = time.monotonic()
    asked(lan.hosts[0], Ask(link, PEER), wait_s=30)
    assert time.monotonic() - began_s < 5


def test_a_packet_that_is_too_large_says_which_size_passes(lan: Lan, link: EchoSocket) -> None:
    here, peer = lan.hosts
    assert link.mtu == 1500
    (own,) = asked(here, Ask(link, PEER, 1501), wait_s=0.3)
    assert (own.answered, own.takes) == (False, 1500)
    # Behind the peer a link takes 1400 bytes, and the peer says so.
    behind = Host("behind")
    lan.hosts.append(behind)
    peer.ip(f"link add eth1 mtu 1400 type veth peer name eth0 netns {behind.thread_id}")
    peer.ip("addr add 198.51.100.1/24 dev eth1")
    peer.ip("link set eth1 up")
    behind.ip("link set eth0 mtu 1400 up")
    behind.ip("addr add 198.51.100.2/24 dev eth0")
    behind.ip("route add default via 198.51.100.1")
    here.ip("route add 198.51.100.0/24 via 192.0.2.11")
    peer.call(_forward)
    far = IPv4Address("198.51.100.2")
    large, fits = asked(here, Ask(link, far, 1500), Ask(link, far, 1400))
    assert (large.answered, large.takes, large.reporter) == (False, 1400, PEER)
    assert fits.answered


def _forward() -> None:
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:  # noqa: PTH123
        file.write("1")


def test_the_reason_of_a_router_is_said(lan: Lan, link: EchoSocket) -> None:
    here, peer = lan.hosts
    peer.call(_forward)
    here.ip("route add 10.66.0.0/16 via 192.0.2.11")
    peer.ip("route add unreachable 10.66.0.0/16")
    (found,) = asked(here, Ask(link, IPv4Address("10.66.0.1")), wait_s=0.3, rounds=1)
    assert (found.problem, found.reporter) == ("host unreachable", PEER)


def test_an_address_of_another_host_cannot_be_sent_from(lan: Lan, link: EchoSocket) -> None:
    del link
    with pytest.raises(KernelError, match=r"cannot send from 192\.0\.2\.77"):
        lan.hosts[0].call(EchoSocket, IPv4Address("192.0.2.77"))
