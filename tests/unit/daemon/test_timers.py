"""Deadlines of the loop."""

from __future__ import annotations

import pytest

from agent.daemon.timers import Timers, jittered

pytestmark = pytest.mark.unit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_deadline_falls_due_once() -> None:
    clock = Clock()
    timers = Timers(clock)
    timers.set("resync", 5)
    assert timers.due() == frozenset()
    assert timers.wait_s(60) == 5
    clock.now = 5
    assert timers.wait_s(60) == 0
    assert timers.due() == {"resync"}
    assert timers.due() == frozenset()
    assert timers.wait_s(60) == 60


def test_set_moves_and_set_sooner_keeps_the_earlier() -> None:
    clock = Clock()
    timers = Timers(clock)
    timers.set("a", 5)
    timers.set("a", 9)
    assert timers.wait_s(60) == 9
    timers.set_sooner("a", 12)
    assert timers.wait_s(60) == 9
    timers.set_sooner("a", 1)
    assert timers.wait_s(60) == 1
    timers.cancel("a")
    timers.cancel("a")
    assert timers.wait_s(60) == 60


def test_jitter_stays_within_its_spread() -> None:
    assert all(8 <= jittered(10) <= 12 for _ in range(200))
    assert len({jittered(10) for _ in range(20)}) > 1
