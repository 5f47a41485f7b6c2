"""The whole daemon's loop and monitor against one kernel: do this to the host, expect that.

The test posts the events of etcd and Docker; everything from there to the kernel is real.
The timer that would look at everything comes a minute later: what is repaired here was noticed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.daemon.state.events import Stop
from agent.kernel import netlink_monitor as kernel_monitor
from agent.model import Condition
from agent.model.family import Address
from agent.registry.own.keeper import Registration
from tests.netns.daemon.member import (
    AGGREGATE,
    CONTAINER,
    PEER,
    PEER_ROUTE,
    Member,
    make_agent,
    running,
)
from tests.netns.netlab import Host, Lan, Pinger, drop_net_admin
from tests.netns.routes.scene import lease, shown
from tests.waiting import eventually

pytestmark = pytest.mark.netns


def renumber(host: Host, old: str, new: str) -> None:
    """Change the address as a DHCP client does with another lease."""
    host.ip(f"addr del {old}/24 dev eth0")
    host.ip(f"addr add {new}/24 dev eth0")
    host.ip("route replace default via 192.0.2.254")


def recreate(lan: Lan, host: Host) -> None:
    host.ip("link del eth0")
    lan.plug(host)
    host.ip("addr add 192.0.2.1/24 dev eth0")
    host.ip("route replace default via 192.0.2.254")


def flap(host: Host) -> None:
    host.ip("link set eth0 down")
    host.ip("link set eth0 up")
    host.ip("route replace default via 192.0.2.254")


def rename(host: Host) -> None:
    """To another name, under which peers are reached, and back."""
    for old, new in (("eth0", "lan0"), ("lan0", "eth0")):
        host.ip(f"link set {old} down")
        host.ip(f"link set {old} name {new}")
        host.ip(f"link set {new} up")
        host.ip("route replace default via 192.0.2.254")
        wanted = PEER_ROUTE.replace("eth0", new)
        eventually(lambda w=wanted: w in shown(host))  # type: ignore[misc]  # bound now


def test_promise_6_ping_through_every_fault_loses_only_what_the_fault_took(
    member: Member, lan: Lan
) -> None:
    """Every lost packet was sent between a fault and its repair. The counts are printed."""
    host = member.host
    foreign = "route replace 10.64.1.0/24 via 192.0.2.11 proto 186"

    def taken_over_and_given_back() -> None:
        host.ip(foreign)
        eventually(lambda: "route-conflict" in member.conditions())
        host.ip("route del 10.64.1.0/24 proto 186")

    faults: list[tuple[str, Callable[[], object], float]] = [
        ("route deleted", lambda: host.ip("route del 10.64.1.0/24 proto 140"), 0.1),
        (
            "route modified",
            lambda: host.ip("route replace 10.64.1.0/24 via 192.0.2.99 proto 140"),
            0.1,
        ),
        (
            "route refused",
            lambda: host.ip("route replace prohibit 10.64.1.0/24 proto 140"),
            0.1,
        ),
        ("another protocol's", taken_over_and_given_back, 0.1),
        ("aggregate deleted", lambda: host.ip(f"route del {AGGREGATE}"), 0.1),
        ("link flapped", lambda: flap(host), 1.5),
        ("uplink renamed", lambda: rename(host), 1.5),
        ("renumbered", lambda: renumber(host, "192.0.2.1", "192.0.2.7"), 1.5),
        ("renumbered back", lambda: renumber(host, "192.0.2.7", "192.0.2.1"), 1.5),
        ("interface recreated", lambda: recreate(lan, host), 1.5),
    ]
    ping = Pinger(host, CONTAINER, 0.005)
    windows: list[tuple[str, float, float]] = []
    for name, inject, settle_s in faults:
        time.sleep(0.1)
        started_s = time.monotonic()
        inject()
        eventually(member.is_right, 5)
        # A link that is new has to ask for its neighbours again.
        windows.append((name, started_s, time.monotonic() + settle_s))
        time.sleep(settle_s)
    time.sleep(0.2)
    seen = ping.stop()
    lost = {
        name: sum(start_s <= at <= end_s for _, at in seen.lost) for name, start_s, end_s in windows
    }
    print(f"{seen.sent} sent; lost {lost}")
    elsewhere = [
        at for _, at in seen.lost if not any(start <= at <= end for _, start, end in windows)
    ]
    assert elsewhere == []
    assert lost["aggregate deleted"] == 0
    assert seen.answered > seen.sent / 2


def test_promise_6_fifty_thousand_events_at_once_end_in_a_full_pass(
    here: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The buffer is made small, so that the kernel drops; what went wrong meanwhile is found."""
    monkeypatch.setattr(
        kernel_monitor.Monitor.__init__, "__kwdefaults__",
        {**(kernel_monitor.Monitor.__init__.__kwdefaults__ or {}), "receive_bytes": 4096},
    )  # fmt: skip
    agent = make_agent(here, tmp_path)
    member = Member(here, agent)
    with running(agent, here):
        member.joins()
        eventually(member.is_right, 10)
        first = agent._monitor._listener.socket
        subnets = [f"172.{16 + n // 65536}.{n // 256 % 256}.{n % 256}/32" for n in range(25_000)]
        middle = ["route del 10.64.1.0/24 proto 140", f"route del {AGGREGATE}"]
        here.batch(
            [f"route add {subnet} via 192.0.2.77" for subnet in subnets]
            + middle
            + [f"route del {subnet}" for subnet in subnets]
        )
        eventually(member.is_right, 10)
        assert agent._monitor._listener.socket is not first, "the kernel dropped nothing"
        here.ip("route del 10.64.1.0/24 proto 140")
        eventually(member.is_right, 2)


def test_promise_9_the_own_subnet_is_unreachable_until_docker_has_it(
    member: Member, lan: Lan
) -> None:
    """Not even the default gateway gets a packet for it, before, and after Docker went again."""
    gateway = lan.add("192.0.2.254/24")
    gateway.ip("addr add 10.64.0.9/32 dev lo")

    def answers() -> tuple[int, int]:
        ping = Pinger(member.host, "10.64.0.9", 0.01)
        time.sleep(0.1)
        seen = ping.stop()
        return seen.answered, seen.sent - seen.refused

    assert answers() == (0, 0)
    member.host.ip("link add docker0 type bridge")
    member.host.ip("addr add 10.64.0.1/24 dev docker0")
    member.host.ip("link set docker0 up")
    assert "dev docker0" in member.host.ip("route get 10.64.0.9")
    assert AGGREGATE in shown(member.host)
    member.host.ip("link del docker0")
    assert answers() == (0, 0)
    assert "route-conflict" not in member.conditions()


def test_promise_2_a_new_address_by_dhcp_reaches_the_keeper_within_a_second(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[tuple[float, Address]] = []
    update = member.agent._keeper.update

    def note(found: Registration) -> None:
        reported.append((time.monotonic(), found.node_address))
        update(found)

    monkeypatch.setattr(
        member.agent._keeper,
        "update",
        note,
    )
    renumber(member.host, "192.0.2.1", "192.0.2.7")
    changed_s = time.monotonic()
    eventually(lambda: reported and reported[-1][1] == IPv4Address("192.0.2.7"), 5)
    assert reported[-1][0] - changed_s < 1
    eventually(member.is_right)


def test_a_peer_that_moved_is_followed_without_a_gap(member: Member, lan: Lan) -> None:
    """Its container answers at the old address and at the new one: no packet need be lost."""
    second = lan.add("192.0.2.12/24")
    second.ip(f"addr add {CONTAINER}/32 dev lo")
    member.host.ip("neigh get 192.0.2.12 dev eth0", check=False)
    warm = Pinger(member.host, "192.0.2.12", 0.01)
    time.sleep(0.1)
    warm.stop()
    ping = Pinger(member.host, CONTAINER, 0.002)
    for number in range(20):
        address = "192.0.2.12" if number % 2 == 0 else "192.0.2.11"
        member.etcd_tells(lease("10.64.1.0/24", address))
        eventually(lambda a=address: f"10.64.1.0/24 via {a} dev eth0" in shown(member.host), 2)  # type: ignore[misc]  # bound now
    time.sleep(0.1)
    seen = ping.stop()
    assert seen.sent > 50
    assert seen.lost == []


def test_promise_5_a_writer_that_keeps_overwriting_is_named_by_its_protocol(
    member: Member,
) -> None:
    """The daemon neither burns a core nor steals: it says who it is."""
    for _ in range(40):
        member.host.ip("route replace 10.64.1.0/24 via 192.0.2.77 proto 186")
        time.sleep(0.02)
        member.host.ip("route del 10.64.1.0/24 proto 186")
        time.sleep(0.02)
    fight = eventually(lambda: member.conditions().get("route-fight"), 5)
    assert "bgp (186)" in (fight or "")
    eventually(member.is_right, 35)


def test_promise_10_a_thousand_conflicts_make_one_short_condition(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rival of another metric is one, too: ours gives way and does not count as installed."""
    every = [f"10.{70 + n // 200}.{n % 200}.0/24" for n in range(2000)]
    places, later = every[::2], every[1::2]
    member.host.batch([f"route add {each} via 192.0.2.77 proto 186" for each in every])
    raised: list[Condition] = []
    monkeypatch.setattr(member.agent._observer, "condition_raised", raised.append)
    member.host.ip("route add 10.64.1.0/24 via 192.0.2.77 proto 186 metric 5")
    member.etcd_tells(PEER, *(lease(each, "192.0.2.12") for each in places))

    def conflicts() -> dict[str, str]:
        found = (each.condition for each in member.agent._conditions.all())
        return {each.subject: each.cause for each in found if each.name == "route-conflict"}

    def installed() -> tuple[int | None, int | None]:
        report = member.agent._inbox.ask(lambda _apply: member.agent._cell.now).report
        return report.desired, report.installed

    eventually(lambda: conflicts().get("others", "").startswith("981 more"), 10)
    first = conflicts()
    assert len(first) == 21
    eventually(lambda: installed() == (1002, 1))
    member.etcd_tells(PEER, *(lease(each, "192.0.2.12") for each in (*places, *later)))
    eventually(lambda: conflicts()["others"].startswith("1981 more"), 10)
    member.host.batch([f"route del {each} proto 186" for each in later])
    eventually(lambda: conflicts()["others"].startswith("981 more"), 10)
    assert conflicts() == first
    reported = [each.subject for each in raised if each.name == "route-conflict"]
    assert sorted(reported) == sorted(first)
    eventually(lambda: installed() == (2002, 1001))


def test_promise_9_without_the_right_to_write_the_daemon_says_so_and_lives(
    here: Host, tmp_path: Path
) -> None:
    agent = make_agent(here, tmp_path)
    member = Member(here, agent)
    here.call(agent._monitor.start)

    def run_without_rights() -> None:
        drop_net_admin()
        agent._loop.run()

    loop = here.thread(run_without_rights)
    try:
        member.joins()
        eventually(lambda: "route-refused" in member.conditions(), 10)
        assert "not permitted" in member.conditions()["route-refused"].lower()
        assert shown(here) == set()
        assert loop.is_alive()
    finally:
        agent._inbox.post(Stop())
        loop.join(5)
        agent._monitor.stop()
        agent._client.close()


def test_promise_3_an_address_in_the_range_of_a_gone_peer_fails_at_once(member: Member) -> None:
    """A host that left: its route goes, and nothing for it reaches the default gateway."""
    gone = lease("10.64.2.0/24", "192.0.2.12")
    member.etcd_tells(PEER, gone)
    eventually(lambda: "10.64.2.0/24 via 192.0.2.12 dev eth0" in shown(member.host))
    member.end_grace()
    member.etcd_tells(PEER)
    eventually(lambda: not any("10.64.2.0/24" in line for line in shown(member.host)))
    ping = Pinger(member.host, "10.64.2.9", 0.01)
    time.sleep(0.1)
    seen = ping.stop()
    assert seen.refused == seen.sent > 0
    assert IPv4Network("10.64.2.0/24") not in {
        each.subnet
        for each in member.agent._cell.now.world().peers.values()  # type: ignore[union-attr]  # it is a member
    }
