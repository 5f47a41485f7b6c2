"""``events --since``: days, times of today, timestamps."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.ctl.verbtable import moment
from tests.unit.ctl.asked import Serving, run

pytestmark = pytest.mark.unit

NOW = datetime.now(UTC)
AGES_D = {1: 0.01, 2: 3.0, 3: 8.0}
EVENTS = [
    {
        "id": number,
        "at": (NOW - timedelta(days=age)).timestamp(),
        "kind": "x",
        "text": f"no{number}",
    }
    for number, age in AGES_D.items()
]


@pytest.fixture(autouse=True)
def _zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("since", "found"),
    [
        ("1h", ["no1"]),
        ("7d", ["no1", "no2"]),
        ("1w2d", ["no1", "no2", "no3"]),
        ((NOW - timedelta(days=4)).isoformat(), ["no1", "no2"]),
        (f"{(NOW - timedelta(days=9)):%Y-%m-%d}", ["no1", "no2", "no3"]),
    ],
)
def test_events_since_then(
    since: str, found: list[str], socket_path: Path, serving: Serving,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with serving(socket_path, {"GET /v1/events": {"events": EVENTS}}):
        assert run(socket_path, "events", "--since", since) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == found


def test_a_time_without_a_zone_is_local_and_one_with_a_zone_is_its_own() -> None:
    wanted = datetime(2026, 11, 1, 1, 30, tzinfo=UTC).timestamp()
    assert moment("2026-11-01T10:30") == moment("2026-11-01 10:30:00") == wanted
    assert moment("2026-11-01T01:30:00Z") == moment("2026-11-01T02:30+01:00") == wanted
    assert moment("2026-11-01") == wanted - 10.5 * 3600


def test_a_time_of_day_is_today() -> None:
    today = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    assert moment("00:00") == today.timestamp()


@pytest.mark.parametrize("text", ["", "soon", "7x", "25:00", "2026-13-01", "0001-01-01T00:00"])
def test_no_time_is_an_error(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be a time such as"):
        moment(text)
