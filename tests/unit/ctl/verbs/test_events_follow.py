"""``agentctl events --follow`` up to its --timeout."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from agent.ctl import context, polling
from agent.ctl.main import main

pytestmark = pytest.mark.unit


def test_a_deadline_that_passes_just_before_the_pause_is_no_error(
    socket_path: Path,
    serving: Callable[[Path, Mapping[str, Any]], AbstractContextManager[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The scheduler may take the processor away between two looks at the clock."""
    document = {"version": 1, "events": []}
    clock = map(float, itertools.count(0, 5))
    for module in (context, polling):
        monkeypatch.setattr(module, "time", _Clock(lambda: next(clock)))
    with serving(socket_path, {"GET /v1/events": document, "GET /v1/events?after=0": document}):
        words = ["--socket", str(socket_path), "--timeout", "8s"]
        assert main(["events", "--follow", *words]) == 0


class _Clock:
    """The time module with another monotonic clock."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self.time, self.sleep = time.time, time.sleep
