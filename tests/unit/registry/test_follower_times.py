"""The times of a watch: few requests while nothing happens, and a dead etcd is soon reported."""

from __future__ import annotations

import pytest

from agent.registry.follower import PROGRESS_EVERY_S, SILENCE_S
from agent.registry.own.own_heartbeat import BEATS_PER_TTL
from agent.settings import Settings

pytestmark = pytest.mark.unit


def test_an_idle_host_asks_etcd_at_most_15_times_a_minute() -> None:
    lease = Settings().lease
    beats = 60 * BEATS_PER_TTL / lease.heartbeat_ttl_s
    whether_open = 1
    assert 60 / PROGRESS_EVERY_S + beats + whether_open <= 15


def test_promise_9_a_stopped_server_is_reported_within_15_seconds() -> None:
    assert SILENCE_S + Settings().etcd.call_timeout_s <= 15
    assert SILENCE_S - PROGRESS_EVERY_S >= 2.5, "a busy server gets time for its answer"
