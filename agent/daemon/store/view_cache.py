"""Keeps the host's own copy of the mesh fresh, for a boot while etcd is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

from agent.daemon.state.events import CopyWritten
from agent.daemon.state.inbox import Inbox
from agent.daemon.state.mesh_state import MeshState
from agent.daemon.state.timers import Timer, Timers
from agent.errors import HostmeshError
from agent.model import Lease, View
from agent.registry.copy import CopyFile
from agent.retry import jittered
from agent.threads import start_thread

__all__ = ["ViewCache"]

_RETRY_S = 30.0
_SHARE = 10
"""Pause after a write that many times as long as it took: a large mesh that changes all the time
must not keep a core busy with writing."""
_FINISH_S = 20.0


@dataclass(frozen=True, slots=True)
class _Content:
    view: View
    lease: Lease | None

    def same_as(self, other: _Content | None) -> bool:
        """Return whether there is nothing new to write; heartbeats are not in the file."""
        if other is None or self.lease != other.lease:
            return False
        return _what_is_saved(self.view) == _what_is_saved(other.view)


def _what_is_saved(view: View) -> tuple[object, ...]:
    # Maps that share everything compare by identity; others would take long.
    maps = (id(view.by_subnet), id(view.memory), id(view.reservations))
    return (view.cluster_id, view.config, *maps)


class ViewCache:
    """Saves the believed view on a thread of its own: 65,000 leases take two seconds.

    Changes during a write are written together afterwards. A full disk is a condition, and the
    write is repeated. Used by the loop's thread only.

    Args:
        inbox: Gets an event when a write has ended.
        timers: The loop's own; COPY is used here.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        file: CopyFile,
        inbox: Inbox,
        timers: Timers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._inbox = inbox
        self._timers = timers
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._busy = False
        self._written: _Content | None = None
        self._problem: HostmeshError | None = None
        self._not_before_s = 0.0
        self._wanted = True
        self._waiting: list[Future[None]] = []

    def save(self, mesh: MeshState) -> None:
        """Have the believed view and the own lease written. Never blocks.

        Write nothing before a view of etcd, or once the host has left.
        """
        self._wanted = not mesh.left
        content = _content(mesh)
        if content is None or (not self._busy and content.same_as(self._written)):
            self._answer(None)
            return
        if self._busy:
            return  # its end leads here again
        wait_s = self._not_before_s - self._clock()
        if wait_s > 0:
            self._timers.set_sooner(Timer.COPY, wait_s)
            return
        asked, self._waiting = self._waiting, []
        self._busy = True
        self._thread = start_thread("copy-writer", partial(self._write, content, asked))

    def written(self, mesh: MeshState) -> Future[None]:
        """Write it now, without a pause after the last write. Never blocks.

        Returns:
            A future that is done once ``mesh`` or a newer state lasts through a power cut; it has
            the error when it could not be written.
        """
        answer: Future[None] = Future()
        self._waiting.append(answer)
        self._not_before_s = 0.0
        self.save(mesh)
        return answer

    def leave(self) -> None:
        """Write nothing more: the file is about to be deleted. A later :meth:`save` ends this."""
        self._wanted = False
        self._written = None

    def finish(self, mesh: MeshState) -> None:
        """Write the rest and wait for it: the agent ends."""
        if self._thread is not None:
            self._thread.join(_FINISH_S)
            if self._thread.is_alive():
                return
        content = _content(mesh)
        if content is not None and not content.same_as(self._written):
            self._write(content, [])
        self._answer(self._problem)

    def _answer(self, problem: HostmeshError | None) -> None:
        asked, self._waiting = self._waiting, []
        _settle(asked, problem)

    def _write(self, content: _Content, asked: list[Future[None]]) -> None:
        started_s = self._clock()
        self._not_before_s = started_s + jittered(_RETRY_S)
        try:
            self._file.save(view=content.view, lease=content.lease, wanted=lambda: self._wanted)
        except HostmeshError as error:
            self._problem = error
        else:
            self._problem = None
            self._written = content
            self._not_before_s = self._clock() + _SHARE * (self._clock() - started_s)
        finally:
            self._busy = False
        _settle(asked, self._problem)
        self._inbox.post(CopyWritten(self._problem))


def _settle(asked: list[Future[None]], problem: HostmeshError | None) -> None:
    for each in asked:
        if problem is None:
            each.set_result(None)
        else:
            each.set_exception(problem)


def _content(mesh: MeshState) -> _Content | None:
    # Of an alarm the view before it, so that a restart of the agent does not end the alarm.
    view = mesh.baseline or mesh.believed
    if view is None or view.cached or mesh.left:
        return None
    # With the last usable config, where the one in etcd is gone or garbage.
    return _Content(replace(view, config=mesh.config), mesh.own)
