"""An inbox that coalesces says in the end what one that keeps everything would say."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.events import (
    Command,
    ConditionsFound,
    ContactChanged,
    Event,
    HostsSilent,
    KernelChanged,
    ViewSeen,
)
from agent.daemon.state.inbox import Inbox
from agent.errors import EtcdUnavailable
from agent.kernel.netlink_monitor import KernelEvent
from agent.model import Route, RouteKind, View
from agent.reconcile.interfaces import Change

pytestmark = pytest.mark.property

SOURCES = (ConditionSource.DISCOVERY, ConditionSource.ENDPOINTS)
COMMANDS = 2
KINDS = 4 + len(SOURCES)


def change(number: int) -> Change[Route]:
    destination = IPv4Network((f"10.{number}.0.0", 16))
    route = Route(destination=destination, kind=RouteKind.UNREACHABLE, protocol=140)
    return Change(object=route, gone=False, replaced=False)


events = st.one_of(
    st.builds(lambda n: ViewSeen(View(cluster_id=1, revision=n)), st.integers(1, 99)),
    st.sampled_from([ContactChanged(None), ContactChanged(EtcdUnavailable("away"))]),
    st.builds(ConditionsFound, st.sampled_from(SOURCES), st.just(())),
    st.builds(lambda n: HostsSilent(frozenset({IPv4Address(n)})), st.integers(1, 9)),
    st.builds(
        lambda numbers, link: KernelChanged(
            KernelEvent(changes=tuple(map(change, numbers)), links=frozenset({link}))
        ),
        st.lists(st.integers(1, 9), max_size=3),
        st.integers(1, 9),
    ),
    st.builds(lambda: Command(lambda _apply: None)),
)


def between_commands(posted: list[Event]) -> list[list[Event]]:
    parts: list[list[Event]] = [[]]
    for each in posted:
        if isinstance(each, Command):
            parts.append([])
        else:
            parts[-1].append(each)
    return parts


@given(st.lists(events, max_size=60))
def test_promise_10_an_inbox_is_bounded_and_loses_no_news(posted: list[Event]) -> None:
    inbox = Inbox(COMMANDS)
    for each in posted:
        inbox.post(each)
        assert len(inbox) <= COMMANDS + (COMMANDS + 1) * KINDS
    commands = [each for each in posted if isinstance(each, Command)][:COMMANDS]
    taken = list(inbox.take(0))
    assert [each for each in taken if isinstance(each, Command)] == commands
    accepted = [e for e in posted if not isinstance(e, Command) or any(e is c for c in commands)]
    for before, after in zip(between_commands(accepted), between_commands(taken), strict=True):
        assert_same_news(before, after)


def assert_same_news(before: list[Event], after: list[Event]) -> None:
    kinds = list(dict.fromkeys(each.kind for each in before))
    assert [each.kind for each in after] == kinds, "once each, in the order of the first"
    for reported in after:
        same = [each for each in before if each.kind == reported.kind]
        if isinstance(reported, KernelChanged):
            heard = [each.event for each in same if isinstance(each, KernelChanged)]
            assert reported.event.changes == tuple(c for each in heard for c in each.changes)
            assert reported.event.links == frozenset().union(*(each.links for each in heard))
        elif isinstance(reported, ContactChanged):
            lost = [isinstance(e, ContactChanged) and e.problem is not None for e in same]
            assert (reported.problem is not None) == lost[-1]
            assert reported.was_lost == any(lost[:-1])
        elif isinstance(reported, ViewSeen):
            seen = [each.view for each in same if isinstance(each, ViewSeen)]
            assert reported.view is seen[-1]
            assert len(reported.passed) <= 2
            least = min((each.revision for each in seen[:-1]), default=None)
            assert min((each.revision for each in reported.passed), default=None) == least
        else:
            assert reported is same[-1]
