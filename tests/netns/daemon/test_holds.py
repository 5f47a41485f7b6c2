"""The daemon keeps objects until their lease is known to be gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.core import host_facts as hostlook
from agent.daemon.core.consequences import Action
from agent.daemon.state.events import Accepted, ViewSeen
from agent.daemon.state.inbox import Inbox
from agent.daemon.store.state_file import StateFile
from agent.errors import CannotTell
from agent.kernel.facts import read_host_facts
from agent.model import HostFacts, Route, View
from agent.reconcile import reconciler
from agent.reconcile.interfaces import Listing
from agent.settings import load_settings
from agent.standalone import leave
from tests.netns.daemon.member import (
    AGGREGATE,
    CONTAINER,
    PEER,
    PEER_ROUTE,
    Member,
    leave_a_copy,
    make_agent,
    running,
)
from tests.netns.netlab import Host, Lan, Pinger
from tests.netns.routes.scene import CONFIG, lease, shown
from tests.waiting import eventually

pytestmark = pytest.mark.netns

STALE = "10.64.7.0/24 via 192.0.2.17 dev eth0"


def test_promise_6_a_link_that_was_down_for_long_is_served_as_soon_as_it_is_up(
    member: Member,
) -> None:
    """By then each route was refused several times, and waits for its next turn."""
    member.host.ip("link set eth0 down")
    eventually(lambda: "every 4 s" in member.hint("route-refused"), 15)
    member.host.ip("link set eth0 up")
    eventually(member.is_right, 1.5)
    eventually(lambda: "route-refused" not in member.conditions(), 5)


@contextmanager
def stuck(inbox: Inbox) -> Iterator[None]:
    """Keep the loop's thread busy, and let other commands wait a moment only."""
    begun, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        go_on.wait(20)

    ask = inbox.ask
    hanging = threading.Thread(target=lambda: ask(lambda _apply: hang()), daemon=True)
    hanging.start()
    assert begun.wait(20)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inbox, "ask", lambda run, **how: ask(run, **{**how, "timeout_s": 0.2}))
        try:
            yield
        finally:
            go_on.set()
            hanging.join(20)


def test_promise_6_a_leave_or_join_that_is_not_begun_in_time_is_not_remembered(
    member: Member,
) -> None:
    """It is reported as not done: the next start of the agent must not carry it out."""
    cell, leaver, state = member.agent._cell, member.agent._leaving, member.agent._state
    with stuck(member.agent._inbox), pytest.raises(CannotTell, match="nothing was done"):
        leaver.leave()
    assert not state.now.left
    assert not cell.now.mesh.left
    leaver._set_left(left=True)
    with stuck(member.agent._inbox), pytest.raises(CannotTell, match="nothing was done"):
        leaver.join()
    assert state.now.left
    assert leaver.join(), "what was not done is done when it is asked again"
    assert not state.now.left
    assert not cell.now.mesh.left


def test_an_accepted_config_is_the_one_in_force(member: Member) -> None:
    """Its ranges are watched and are not refused for what they hold, before any later view."""
    other = replace(CONFIG, previous=(IPv4Network("10.128.0.0/10"),))
    view = View(cluster_id=2, revision=50, config=other, leases=(member.own, PEER))
    member.agent._inbox.post(ViewSeen(view))
    eventually(lambda: "etcd-alarm" in member.conditions())
    assert member.agent._registry.bounds.in_force == CONFIG.cidrs
    member.agent._inbox.ask(lambda apply: apply(Accepted()))
    assert member.agent._registry.bounds.in_force == other.cidrs


def test_promise_10_a_container_or_a_network_of_dockers_costs_no_list_of_the_routes(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists: list[float] = []
    looks: list[bool] = []

    def look(protocol: int, mesh: HostFacts | None = None) -> HostFacts:
        looks.append(mesh is None)
        return read_host_facts(protocol, mesh)

    monkeypatch.setattr(hostlook, "read_host_facts", look)
    table = member.agent._kernel.objects._table
    list_all = table.list_all

    def note(*mesh: Mapping[Any, Route]) -> Listing[Route]:
        lists.append(time.monotonic())
        return list_all(*mesh)

    monkeypatch.setattr(table, "list_all", note)
    for number in range(5):
        member.host.ip(f"link add veth{number} type veth peer name eth9{number}")
        member.host.ip(f"link set veth{number} up")
        member.host.ip(f"link del veth{number}")
    member.host.ip("route del 10.64.1.0/24 proto 140")
    eventually(member.is_right)
    assert lists == []
    assert looks, "no link was noticed"
    assert not any(looks), "others' routes were listed"
    member.host.ip("link add br-1 type bridge")
    member.host.ip("addr add 172.18.0.1/16 dev br-1")
    member.host.ip("link set br-1 up")
    eventually(lambda: any(looks))
    member.host.ip("link del br-1")
    member.host.ip("route del 10.64.1.0/24 proto 140")
    eventually(member.is_right)
    assert lists == []
    member.host.ip("link set eth0 down")
    member.host.ip("link set eth0 up")
    eventually(member.is_right)
    assert lists


def test_promise_9_while_etcd_is_away_the_range_stays_closed_and_nothing_goes(
    member: Member, lan: Lan
) -> None:
    gateway = lan.add("192.0.2.254/24")
    gateway.ip("addr add 10.64.9.9/32 dev lo")
    member.etcd_is_away()
    eventually(lambda: "etcd-unreachable" in member.conditions())
    member.host.ip(f"route add {STALE} proto 140")
    member.host.ip(f"route del {AGGREGATE}")
    member.host.ip("route del 10.64.1.0/24 proto 140")
    eventually(member.is_right)
    ping = Pinger(member.host, "10.64.9.9", 0.01)
    time.sleep(0.1)
    seen = ping.stop()
    assert seen.refused == seen.sent > 0
    assert STALE in shown(member.host), "promise 3"
    assert member.diff()["held"] == [
        {
            "destination": "10.64.7.0/24",
            "route": "10.64.7.0/24 via 192.0.2.17 dev eth0 proto 140",
        }
    ]
    assert member.diff()["state"] == "drift"


def test_promise_9_the_range_stays_closed_through_a_restart_while_etcd_is_away(
    here: Host, lan: Lan, tmp_path: Path
) -> None:
    """The gateway would answer for all of it; a peer's container is reached all the while."""
    gateway = lan.add("192.0.2.254/24")
    for address in ("10.64.9.9", "10.64.0.9"):
        gateway.ip(f"addr add {address}/32 dev lo")
    agent = make_agent(here, tmp_path)
    with running(agent, here):
        member = Member(here, agent)
        member.joins()
        eventually(member.is_right, 10)
        member.etcd_is_away()
        closed = [Pinger(here, address) for address in ("10.64.9.9", "10.64.0.9")]
        open_ = Pinger(here, CONTAINER)
    time.sleep(0.2)
    agent = make_agent(here, tmp_path)
    with running(agent, here):
        member = Member(here, agent)
        member.etcd_is_away()
        eventually(lambda: agent._cell.now.report.installed == 2, 10)
        here.ip("route del 10.64.1.0/24 proto 140")
        eventually(member.is_right)
        time.sleep(0.2)
        assert open_.stop().answered > 0
        for seen in (each.stop() for each in closed):
            assert seen.refused == seen.sent > 0
        here.ip(f"route del {AGGREGATE}")
        eventually(member.is_right)


def test_promise_4_an_earlier_lifes_routes_go_after_a_complete_view_and_the_grace_time(
    here: Host, tmp_path: Path
) -> None:
    """Not before: not by the host's own copy, and not by the first word of etcd."""
    here.ip(f"route add {STALE} proto 140")
    leave_a_copy(tmp_path, PEER)
    agent = make_agent(here, tmp_path, "sweep_grace_s = 2")
    member = Member(here, agent)
    with running(agent, here):
        eventually(member.is_right, 10)
        member.end_grace()
        assert STALE in shown(here)
        assert not agent._cell.now.may_sweep(time.monotonic())
        began_s = time.monotonic()
        member.joins()
        eventually(lambda: agent._cell.now.may_delete(time.monotonic()))
        assert STALE in shown(here)
        assert member.diff()["state"] == "drift"
        eventually(lambda: STALE not in shown(here), 6)
        assert time.monotonic() - began_s > 1.9
        assert member.is_right()
        assert member.diff()["state"] == "equal"


def test_promise_4_claims_are_held_back_before_the_keeper_sees_what_it_lost(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it might look for another subnet in an etcd that is not believed."""
    done: list[Action] = []
    actions: Any = member.agent._loop.actions
    for each in (Action.HOLD_CLAIMS, Action.CHECK_RECORDS):
        monkeypatch.setitem(actions, each, lambda *_view, called=each: done.append(called))
    gone = View(cluster_id=2, revision=1, config=CONFIG)
    member.agent._inbox.post(ViewSeen(gone))
    eventually(lambda: "etcd-alarm" in member.conditions())
    eventually(lambda: {Action.HOLD_CLAIMS, Action.CHECK_RECORDS} <= set(done))
    assert done.index(Action.HOLD_CLAIMS) < done.index(Action.CHECK_RECORDS)


def test_promise_6_another_protocol_in_the_settings_takes_the_routes_along(
    here: Host, tmp_path: Path
) -> None:
    """The earlier run wrote them as 140, and one whose lease has ended since."""
    agent = make_agent(here, tmp_path)
    with running(agent, here):
        member = Member(here, agent)
        member.joins()
        eventually(member.is_right, 10)
    here.ip(f"route add {STALE} proto 140")
    here.ip("route add 172.16.0.0/16 via 192.0.2.77 proto 140")
    leave_a_copy(tmp_path, PEER)
    ping = Pinger(here, CONTAINER, 0.005)
    agent = make_agent(here, tmp_path, "protocol = 141\nsweep_grace_s = 1")
    member = Member(here, agent)
    with running(agent, here):
        eventually(lambda: {AGGREGATE, PEER_ROUTE, STALE} <= shown(here, "proto 141"), 10)
        member.joins()
        eventually(lambda: shown(here, "proto 141") == {AGGREGATE, PEER_ROUTE}, 5)
        assert shown(here) == {"172.16.0.0/16 via 192.0.2.77 dev eth0"}, "promise 5"
        assert not {"route-conflict", "cidr-overlaps-host"} & member.conditions().keys()
    assert ping.stop().lost == []


def test_a_cleanup_takes_the_routes_of_a_former_protocol_along(here: Host, tmp_path: Path) -> None:
    """The settings were changed, and the agent was never started with them."""
    agent = make_agent(here, tmp_path)
    with running(agent, here):
        member = Member(here, agent)
        member.joins()
        eventually(member.is_right, 10)
    path = tmp_path / "agent.toml"
    path.write_text(path.read_text().replace("[routes]", "[routes]\nprotocol = 141"))
    outcome = here.call(leave.leaver(load_settings(path, {}, {})).clean)
    assert outcome.todo == []
    assert shown(here) | shown(here, "proto 141") == set()
    assert StateFile(tmp_path / "state").now.route_protocol is None


def test_promise_6_another_table_in_the_settings_empties_the_former_one(
    here: Host, tmp_path: Path
) -> None:
    agent = make_agent(here, tmp_path)
    member = Member(here, agent)
    with running(agent, here):
        member.joins()
        eventually(member.is_right, 10)
    here.ip("rule add to 10.64.0.0/10 lookup 100")
    ping = Pinger(here, CONTAINER, 0.005)
    agent = make_agent(here, tmp_path, "table = 100\nsweep_grace_s = 1")
    member = Member(here, agent)
    with running(agent, here):
        member.joins()
        eventually(lambda: shown(here) == set(), 10)
        assert shown(here, "table 100 proto 140") == {AGGREGATE, PEER_ROUTE}
    assert ping.stop().lost == []


def test_an_unknown_comparison_is_not_called_equal(here: Host, tmp_path: Path) -> None:
    here.ip("addr flush dev eth0")
    leave_a_copy(tmp_path, PEER)
    agent = make_agent(here, tmp_path)
    member = Member(here, agent)
    with running(agent, here):
        eventually(lambda: AGGREGATE in shown(here), 10)
        document = member.diff()
    assert document["state"] == "unknown"
    assert "no interface" in document["reason"]


def test_promise_10_one_pass_writes_for_a_limited_time_and_the_next_goes_on(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each of 65,000 peers has a next hop of its own the kernel takes minutes for all."""
    monkeypatch.setattr(reconciler, "PASS_S", 0.0)
    fed: set[int | None] = set()
    loop, cell = member.agent._loop, member.agent._cell
    monkeypatch.setattr(loop.notifier, "alive", lambda: fed.add(cell.now.report.installed))
    many = [lease(f"10.{65 + n // 256}.{n % 256}.0/24", "192.0.2.11") for n in range(1700)]
    member.etcd_tells(PEER, *many)
    eventually(lambda: len(shown(member.host)) == 1702, 10)
    eventually(lambda: member.agent._cell.now.report.installed == 1702)
    assert member.agent._cell.now.report.again_in_s is None
    assert len(fed & set(range(3, 1702))) >= 3, "the watchdog is fed between the passes"
    assert "route-refused" not in member.conditions()
