"""Deadlines of the loop."""

from __future__ import annotations

import pytest

from agent.daemon.state.timers import Timer, Timers
from agent.retry import jittered

pytestmark = pytest.mark.unit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_deadline_falls_due_once() -> None:
    clock = Clock()
    timers = Timers(clock)
    timers.set(Timer.RESYNC, 5)
    assert timers.due() == frozenset()
    assert timers.wait_s(60) == 5
    clock.now = 5
    assert timers.wait_s(60) == 0
    assert timers.due() == {Timer.RESYNC}
    assert timers.due() == frozenset()
    assert timers.wait_s(60) == 60


def test_set_moves_and_set_sooner_keeps_the_earlier() -> None:
    clock = Clock()
    timers = Timers(clock)
    timers.set(Timer.HOST, 5)
    timers.set(Timer.HOST, 9)
    assert timers.wait_s(60) == 9
    timers.set_sooner(Timer.HOST, 12)
    assert timers.wait_s(60) == 9
    timers.set_sooner(Timer.HOST, 1)
    assert timers.wait_s(60) == 1
    timers.set_at(Timer.HOST, clock.now + 7)
    assert timers.wait_s(60) == 7
    timers.cancel(Timer.HOST)
    timers.cancel(Timer.HOST)
    assert timers.wait_s(60) == 60


def test_jitter_stays_within_its_spread() -> None:
    assert all(8 <= jittered(10) <= 12 for _ in range(200))
    assert len({jittered(10) for _ in range(20)}) > 1
