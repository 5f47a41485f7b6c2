"""Few events wait for the loop, however many are posted, and none is lost."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.events import (
    Command,
    ConditionsFound,
    ContactChanged,
    DockerReported,
    Event,
    HostsSilent,
    KernelChanged,
    LeaseChanged,
    Reload,
    RulesWritten,
    ViewSeen,
)
from agent.daemon.state.inbox import Inbox
from agent.docker.report import AttachReport
from agent.errors import CannotTell, EtcdUnavailable
from agent.kernel.netlink_monitor import KernelEvent
from agent.model import Condition, DockerFacts, DockerState, Route, RouteKind, View
from agent.reconcile.interfaces import Change
from tests.unit.small_mesh import CONFIG, lease

pytestmark = pytest.mark.unit

SOURCES = tuple(ConditionSource)[:4]


def view(revision: int) -> ViewSeen:
    return ViewSeen(View(cluster_id=1, revision=revision, config=CONFIG))


def condition(cause: str) -> Condition:
    return Condition(name="etcd-discovery-failed", cause=cause, hint="")


def command() -> Command[dict[str, int]]:
    return Command(lambda _apply: {})


def routes_gone(count: int) -> KernelChanged:
    route = Route(destination=IPv4Network("10.65.0.0/16"), kind=RouteKind.UNREACHABLE, protocol=140)
    change = Change(object=route, gone=True, replaced=False)
    return KernelChanged(KernelEvent(changes=(change,) * count))


def coalesced(*events: Event) -> tuple[Event, ...]:
    inbox = Inbox()
    for each in events:
        inbox.post(each)
    return inbox.take(0)


def test_the_newest_of_a_kind_takes_the_place_of_the_one_that_waits() -> None:
    newest = (
        replace(view(3), passed=(view(1).view,)),
        LeaseChanged(None, ()),
        HostsSilent(frozenset({IPv4Address("192.0.2.9")})),
    )
    older = (view(1), LeaseChanged(None, (condition("x"),)), HostsSilent(frozenset()))
    assert coalesced(*older, view(3), *newest[1:]) == newest


def test_each_source_of_conditions_is_a_kind_of_its_own() -> None:
    found = (condition("no answer"),)
    first, second = (
        ConditionsFound(ConditionSource.DISCOVERY, ()),
        ConditionsFound(ConditionSource.ENDPOINTS, found),
    )
    later = ConditionsFound(ConditionSource.DISCOVERY, found)
    assert coalesced(first, second, later) == (later, second)


def test_promise_4_contact_that_was_lost_and_regained_was_lost() -> None:
    """Etcd may be another than before: hosts have time to come back."""
    lost = ContactChanged(EtcdUnavailable("no endpoint answers"))
    back = ContactChanged(None)
    assert coalesced(back, lost, back) == (ContactChanged(None, was_lost=True),)
    assert coalesced(lost, back, back) == (ContactChanged(None, was_lost=True),)
    assert coalesced(back, back) == (back,)


def test_promise_4_a_loss_is_seen_although_its_holders_are_coming_back() -> None:
    """Of four leases all were wiped and two are back: of those two missing, none is gone."""
    everyone, wiped, few, half = (
        ViewSeen(View(cluster_id=1, revision=n, config=CONFIG, leases=tuple(map(lease, those))))
        for n, those in ((5, range(4)), (6, ()), (7, (0,)), (8, (0, 1)))
    )
    (seen,) = coalesced(everyone, wiped, few, half)
    assert seen == replace(half, passed=(everyone.view, wiped.view))
    restored = ViewSeen(replace(everyone.view, revision=2))
    (seen,) = coalesced(everyone, restored, replace(everyone, view=replace(half.view, revision=9)))
    assert isinstance(seen, ViewSeen)
    assert restored.view in seen.passed


def test_changes_of_the_kernel_are_joined_and_too_many_are_a_resync() -> None:
    links = KernelChanged(KernelEvent(links=frozenset({"eth2"}), ways=True))
    more = KernelChanged(KernelEvent(links=frozenset({"eth3"}), addresses=frozenset({"eth4"})))
    (joined,) = coalesced(routes_gone(1), links, more, routes_gone(2))
    assert joined == KernelChanged(
        KernelEvent(
            links=frozenset({"eth2", "eth3"}),
            addresses=frozenset({"eth4"}),
            ways=True,
            changes=routes_gone(3).event.changes,
        )
    )
    (many,) = coalesced(*[routes_gone(300)] * 4, links)
    assert many == KernelChanged(KernelEvent(resync=True, links=frozenset({"eth2"}), ways=True))
    (lost,) = coalesced(KernelChanged(KernelEvent(resync=True)), routes_gone(1))
    assert lost == KernelChanged(KernelEvent(resync=True))


def test_a_restart_of_docker_is_not_forgotten_for_a_later_report() -> None:
    facts = DockerFacts(reachable=True)
    restarted = AttachReport(state=DockerState.READY, facts=facts, restarted=True)
    later = AttachReport(state=DockerState.ABSENT, facts=facts)
    (reported,) = coalesced(DockerReported(restarted), DockerReported(later))
    assert isinstance(reported, DockerReported)
    assert (reported.report.restarted, reported.report.state) == (True, DockerState.ABSENT)


def test_programs_that_wrote_rules_stay_named_when_the_next_message_is_lost() -> None:
    assert coalesced(RulesWritten(("a (1)",)), RulesWritten(())) == (RulesWritten(("a (1)",)),)
    assert coalesced(RulesWritten(("a (1)",)), RulesWritten(("b (2)",))) == (
        RulesWritten(("b (2)",)),
    )


def test_no_event_passes_a_command() -> None:
    """`etcd accept` accepts the view that the operator saw refused, not a later one."""
    accept, other = command(), command()
    first, second, third = view(1), view(2), view(3)
    seen = replace(third, passed=(second.view,))
    assert coalesced(first, accept, second, third, other) == (first, accept, seen, other)


def test_promise_10_commands_beyond_the_bound_are_refused_at_once() -> None:
    inbox = Inbox(commands_most=3)
    waiting = [command() for _ in range(3)]
    for each in waiting:
        inbox.post(each)
    with pytest.raises(CannotTell, match="nothing was done"):
        inbox.ask(lambda _apply: {})
    assert inbox.take(0) == tuple(waiting)
    inbox.post(command())
    assert len(inbox) == 1


def test_promise_10_a_flood_while_the_loop_hangs_leaves_few_events_and_the_last_of_each() -> None:
    inbox = Inbox()

    def flood(number: int) -> None:
        for count in range(2_000):
            inbox.post(view(10_000 * count + number))
            inbox.post(routes_gone(1))
            inbox.post(ConditionsFound(SOURCES[number], (condition(str(count)),)))

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    taken = inbox.take(0)
    assert len(taken) == 6
    assert KernelChanged(KernelEvent(resync=True)) in taken
    last = {
        each.source: each.conditions[0].cause for each in taken if isinstance(each, ConditionsFound)
    }
    assert last == dict.fromkeys(SOURCES, "1999")
    seen = next(each.view.revision for each in taken if isinstance(each, ViewSeen))
    assert seen // 10_000 == 1_999


def test_the_first_event_wakes_the_loop_at_once() -> None:
    inbox = Inbox()
    taken: list[tuple[Event, ...]] = []
    loop = threading.Thread(target=lambda: taken.append(inbox.take(60)))
    loop.start()
    began_s = time.monotonic()
    inbox.post(view(1))
    loop.join(30)
    assert taken == [(view(1),)]
    assert time.monotonic() - began_s < 20


def test_nothing_comes_of_a_wait_that_ends() -> None:
    assert Inbox().take(0.01) == ()


def test_a_signal_may_post_while_the_loop_takes_and_posts() -> None:
    """A handler runs on the loop's thread, in the middle of whatever it does."""
    inbox = Inbox()
    before = signal.signal(signal.SIGALRM, lambda _number, _frame: inbox.post(Reload()))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        until_s, reloads = time.monotonic() + 30, 0
        while reloads < 200 and time.monotonic() < until_s:
            inbox.post(view(1))
            reloads += sum(isinstance(each, Reload) for each in inbox.take(0.01))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert reloads >= 200
