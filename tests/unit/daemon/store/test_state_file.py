"""The operator's leave survives restarts, and a damaged file is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.daemon.store.state_file import PreviousValues, StateFile
from agent.errors import StateError

pytestmark = pytest.mark.unit


def test_a_fresh_host_has_not_left(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "hostmesh")
    assert not state.now.left
    assert state.now.switched == PreviousValues()
    assert state.now.route_protocol is None
    assert not (tmp_path / "hostmesh").exists()


def test_leaving_and_previous_values_survive_a_restart(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "hostmesh")
    state.change(left=True, leaving=True)
    state.change(switched=PreviousValues(ip_forward="0", forward_policy="ACCEPT"))
    state.change(route_protocol=141)
    again = StateFile(tmp_path / "hostmesh")
    assert again.now.left
    assert again.now.route_protocol == 141
    assert again.now.switched == PreviousValues(ip_forward="0", forward_policy="ACCEPT")
    again.change(left=False, leaving=False)
    assert not StateFile(tmp_path / "hostmesh").now.left


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"left": true, "switched": 3}',
        '{"left": true, "route_protocol": "x"}',
        "null",
    ],
)
def test_a_damaged_file_is_an_error_with_a_hint(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(StateError) as caught:
        StateFile(tmp_path)
    assert str(tmp_path / "state.json") in caught.value.message
    assert caught.value.hint


def test_a_folder_that_cannot_be_made_is_an_error_for_operators(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    state = StateFile(tmp_path / "elsewhere")
    assert not state.now.left
    with pytest.raises(StateError):
        StateFile(tmp_path / "file" / "below")


def test_a_leave_counts_as_done_only_when_it_was_said_to_be(tmp_path: Path) -> None:
    state = StateFile(tmp_path)
    state.change(left=True, leaving=True)
    assert StateFile(tmp_path).now.leaving
    state.change(leaving=False)
    again = StateFile(tmp_path)
    assert (again.now.left, again.now.leaving) == (True, False)
    again.change(left=True, leaving=True)
    assert StateFile(tmp_path).now.leaving, "the operator says it once more: it is done once more"
    again.change(left=False, leaving=False)
    again.change(leaving=False)
    assert (again.now.left, again.now.leaving) == (False, False)


def test_a_host_that_left_before_this_was_written_down_has_left(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"version": 1, "left": true}')
    state = StateFile(tmp_path)
    assert (state.now.left, state.now.leaving) == (True, False)
