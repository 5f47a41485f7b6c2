"""A leave that is not finished is a condition until it is."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agent.daemon.membership.leave import Leaver, UnfinishedLeave
from agent.daemon.store.state_file import StateFile

pytestmark = pytest.mark.unit


def test_promise_9_a_state_file_that_cannot_be_written_at_the_end_is_a_condition(
    tmp_path: Path,
) -> None:
    state = StateFile(tmp_path)
    leaver = Leaver(
        state=state,
        release=tuple,
        remove=tuple,
        remove_from_firewalld=tuple,
        restore=lambda _order: ((), ()),
        forget=lambda: None,
    )
    state.change(left=True, leaving=True)
    (tmp_path / ".state.json.hostmesh-new").mkdir()  # what is written there first cannot be
    ended = threading.Event()
    unfinished_leave = UnfinishedLeave(state, leaver, ended.set)
    unfinished_leave.step()
    assert ended.wait(20), "the loop gets an event when the job ends"
    found = unfinished_leave.step()
    assert [each.name for each in found] == ["leave-not-finished"]
    assert f"{tmp_path}/state.json cannot be written" in found[0].cause
    (tmp_path / ".state.json.hostmesh-new").rmdir()
    leaver.finish()
    assert unfinished_leave.step() == ()
