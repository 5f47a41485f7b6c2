"""A leave that is not done says so until it is, whatever stands in its way."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.daemon.membership import Leaver, Unfinished
from agent.daemon.state import StateFile
from agent.model import Condition

pytestmark = pytest.mark.unit


def until(look: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 10
    while not look():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_promise_9_a_state_file_that_cannot_be_written_at_the_end_is_a_condition(
    tmp_path: Path,
) -> None:
    state = StateFile(tmp_path)
    leaver = Leaver(
        state=state,
        release=tuple,
        remove=tuple,
        restore=lambda _order: ((), ()),
        forget=lambda: None,
    )
    state.set_left(left=True)
    (tmp_path / "state.tmp").mkdir()  # what is written there first cannot be
    unfinished = Unfinished(state, leaver)
    found: tuple[Condition, ...] = ()

    def is_told() -> bool:
        nonlocal found
        found = unfinished.step()
        return bool(found)

    until(is_told)
    assert [each.name for each in found] == ["leave-not-finished"]
    assert f"{tmp_path}/state.json cannot be written" in found[0].cause
    (tmp_path / "state.tmp").rmdir()
    leaver.finish()
    assert unfinished.step() == ()
