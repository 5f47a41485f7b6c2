"""A command to the loop is withdrawn, carried out, or said to go on: one of the three."""

from __future__ import annotations

import threading

import pytest

from agent.daemon.state import events
from agent.daemon.state.events import Apply, Command, Event
from agent.errors import CannotTell
from agent.thread_call import client_is_waiting, serving

pytestmark = pytest.mark.unit


def ignored(_event: Event) -> None:
    """Nothing follows what is made known here."""


def test_a_command_that_did_not_begin_in_time_is_cancelled() -> None:
    done: list[int] = []
    command = Command(lambda _apply: done.append(1))
    with pytest.raises(CannotTell, match="nothing was done"):
        command.wait(0.01)
    command.execute(ignored)
    assert not done


def test_a_command_that_has_begun_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_apply: Apply) -> str:
        begun.set()
        go_on.wait(20)
        return "done"

    command = Command(slow)
    loop = threading.Thread(target=command.execute, args=(ignored,))
    loop.start()
    assert begun.wait(20)
    monkeypatch.setattr(events, "_FINISH_S", 0.01)
    with pytest.raises(CannotTell, match="goes on with it"):
        command.wait(0.01)
    monkeypatch.setattr(events, "_FINISH_S", 20.0)
    threading.Timer(0.05, go_on.set).start()
    assert command.wait(0.0) == "done"
    loop.join()


def test_a_command_of_a_client_that_has_gone_does_not_begin() -> None:
    done: list[int] = []
    with serving(lambda: False):
        gone = Command(lambda _apply: done.append(1), client_is_waiting())
    own = Command(lambda _apply: done.append(2))
    for command in (gone, own):
        command.execute(ignored)
    assert done == [2]
    with pytest.raises(CannotTell, match="nothing was done"):
        gone.wait(0)
