"""The copy is written beside the loop, and never after the host has left."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from agent.daemon.state.events import CopyWritten
from agent.daemon.state.inbox import Inbox
from agent.daemon.state.mesh_state import MeshState
from agent.daemon.state.timers import Timer, Timers
from agent.daemon.store.view_cache import ViewCache
from agent.errors import StateError
from agent.model import HostId, Lease, View
from agent.registry.copy import CopyFile
from tests.unit.small_mesh import CONFIG, lease

pytestmark = pytest.mark.unit


def mesh(*numbers: int, revision: int = 10) -> MeshState:
    view = View(cluster_id=1, revision=revision, config=CONFIG, leases=tuple(map(lease, numbers)))
    return replace(MeshState(host_id=HostId("0" * 32)).with_view(view), own=lease(0))


class Held(CopyFile):
    """A disk that answers when it is let."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.full = False
        self.saves = 0

    def save(self, *, view: View, lease: Lease | None, wanted=lambda: True) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001 # as above
        self.begun.set()
        assert self.gate.wait(10)
        if self.full:
            raise StateError("cannot write: No space left on device")
        self.saves += 1
        super().save(view=view, lease=lease, wanted=wanted)


class Scene:
    def __init__(self, folder: Path) -> None:
        self.now_s = 100.0
        self.file = Held(folder / "copy.json")
        self.inbox = Inbox()
        self.timers = Timers(lambda: self.now_s)
        self.view_cache = ViewCache(self.file, self.inbox, self.timers, lambda: self.now_s)

    def written(self) -> set[str]:
        copy = self.file.load()
        return set() if copy is None else {str(each.subnet) for each in copy.view.leases}

    def reported(self) -> str:
        """Why the last write failed, as the loop gets it; "" when it did not."""
        (event,) = self.inbox.take(10)
        assert isinstance(event, CopyWritten)
        return event.problem.message if event.problem else ""

    def settle(self) -> None:
        self.file.gate.set()
        thread = self.view_cache._thread
        assert thread is not None
        thread.join(10)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_the_loop_does_not_wait_and_later_changes_are_written_after(scene: Scene) -> None:
    scene.view_cache.save(mesh(0, 1))
    first = scene.view_cache._thread
    scene.view_cache.written(mesh(0, 1, 2, revision=11))
    assert scene.view_cache._thread is first, "one write at a time"
    assert scene.file.begun.wait(10)
    assert scene.written() == set()
    scene.settle()
    assert scene.reported() == "", "which has the loop save again"
    assert scene.written() == {"10.64.0.0/16", "10.65.0.0/16"}
    scene.now_s += 60
    scene.view_cache.save(mesh(0, 1, 2, revision=11))
    scene.settle()
    assert "10.66.0.0/16" in scene.written()


def test_the_same_again_is_not_written_again(scene: Scene) -> None:
    there = mesh(0, 1)
    for _ in range(3):
        scene.view_cache.save(there)
        scene.settle()
        scene.now_s += 60
    assert scene.file.saves == 1


def test_a_full_disk_is_a_condition_and_the_write_repeated(scene: Scene) -> None:
    scene.file.full = True
    scene.view_cache.save(mesh(0, 1))
    scene.settle()
    assert "No space left" in scene.reported()
    scene.view_cache.save(mesh(0, 1))
    assert 10 < scene.timers.wait_s(99) < 60
    scene.file.full = False
    scene.now_s += 60
    assert scene.timers.due() == {Timer.COPY}
    scene.view_cache.save(mesh(0, 1))
    scene.settle()
    assert scene.reported() == ""
    assert scene.written()


def test_a_write_under_way_when_the_host_leaves_leaves_no_file(scene: Scene) -> None:
    scene.view_cache.save(mesh(0, 1))
    assert scene.file.begun.wait(10)
    scene.view_cache.leave()
    scene.file.forget()
    scene.settle()
    assert scene.file.load() is None


def test_the_rest_is_written_when_the_agent_ends(scene: Scene) -> None:
    scene.file.gate.set()
    scene.view_cache.save(mesh(0, 1))
    scene.view_cache.finish(mesh(0, 1, 2, revision=11))
    assert "10.66.0.0/16" in scene.written()
