"""When routes may be deleted (promises 3 and 4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.daemon.grace import CALM, SWEEP, Grace
from agent.daemon.timers import Timers
from agent.settings import Settings

pytestmark = pytest.mark.unit


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timers(clock: Clock) -> Timers:
    return Timers(clock)


@pytest.fixture
def grace(clock: Clock, timers: Timers) -> Grace:
    return Grace(Settings, timers, clock)


def test_first_contact_after_a_start_holds_nothing(grace: Grace) -> None:
    """A host that leaves while another's agent is a few seconds old is gone there, too."""
    grace.contact_lost(followed=False)
    grace.contact_made()
    assert grace.calm


def test_promise_4_after_an_outage_holders_have_time_to_come_back(
    grace: Grace, clock: Clock, timers: Timers
) -> None:
    grace.contact_made()
    grace.contact_lost(followed=True)
    grace.contact_lost(followed=True)
    grace.contact_made()
    assert not grace.calm
    clock.now_s += Settings().lease.empty_cluster_grace_s
    assert grace.calm
    assert CALM in timers.due()
    grace.contact_made()
    assert grace.calm


def test_promise_4_an_alarm_holds_until_it_is_over_and_the_grace_time_with_it(
    grace: Grace, clock: Clock
) -> None:
    for _ in range(3):
        grace.update(alarming=True, complete=False)
        clock.now_s += Settings().lease.empty_cluster_grace_s - 1
        assert not grace.calm
    grace.end()
    assert grace.calm


def test_promise_3_routes_of_an_earlier_life_wait_for_the_first_complete_view(
    grace: Grace, clock: Clock, timers: Timers
) -> None:
    clock.now_s += 3600
    grace.update(alarming=False, complete=False)
    assert not grace.sweep
    grace.update(alarming=False, complete=True)
    assert not grace.sweep
    clock.now_s += Settings().routes.sweep_grace_s
    grace.update(alarming=False, complete=True)
    assert grace.sweep
    assert SWEEP in timers.due()


def test_a_reload_holds_for_the_next_grace_times(clock: Clock, timers: Timers) -> None:
    """Both are settings that need no restart (docs/settings.md)."""
    settings = Settings()
    grace = Grace(lambda: settings, timers, clock)
    settings = replace(
        settings,
        lease=replace(settings.lease, empty_cluster_grace_s=7),
        routes=replace(settings.routes, sweep_grace_s=5),
    )
    grace.update(alarming=False, complete=True)
    grace.hold()
    assert not grace.sweep
    assert not grace.calm
    clock.now_s += 5
    assert grace.sweep
    assert not grace.calm
    assert timers.due() == {SWEEP}
    clock.now_s += 2
    assert grace.calm
    assert CALM in timers.due()
