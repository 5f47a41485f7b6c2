"""The turn to restart Docker: at most one host of the mesh at a time, and never for ever.

While etcd is away nobody can be asked. Then a restart that the agent wants waits, and one
that the operator asked for goes ahead: they can see the other hosts, and we cannot. A turn that
is lost on the way (etcd was away for longer than its TTL) is taken again if nobody else has it;
a restart that has begun goes on to its end either way, because half of one is no Docker.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import structlog

from agent.docker.service.restart_policy import Hold
from agent.errors import EtcdError
from agent.programs import Stopped
from agent.registry.claiming.locks import LockHolder, MeshLock, MeshLocks
from agent.threads import start_thread

__all__ = ["DockerRestartLock"]

_log = structlog.get_logger("docker.turn")

_WHAT = "docker-restart"
_TTL_S = 15
_LONGEST_S = 900.0
"""No restart takes longer: its holder stops keeping it, and the others mind it no more."""
_PATIENCE_S = 60.0
"""How long a restart that the operator waits for waits for its turn."""
_POLL_S = 1.0


class DockerRestartLock:
    """Hold the lock of Docker's restarts for the time of a ``with``.

    Args:
        turns: This host's, in etcd.
        stopping: Ends a wait when the agent stops.
        patience_s: How long a restart that was asked for waits for its turn.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        turns: MeshLocks,
        stopping: threading.Event,
        *,
        patience_s: float = _PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._turns = turns
        self._stopping = stopping
        self._patience_s = patience_s
        self._clock = clock
        self._seen = LockHolder("", 0)
        self._seen_s = 0.0
        self._lock = threading.Lock()
        self._ours: MeshLock | None = None
        self._asked = False

    @contextmanager
    def __call__(self, *, asked: bool) -> Iterator[Hold | None]:
        """Yield why not now, None when it is our turn."""
        self._asked = asked
        try:
            found = self._take(self._patience_s if asked else 0.0)
        except EtcdError as error:
            yield self._unasked(error)
            return
        if isinstance(found, LockHolder):
            yield _held_by(found)
            return
        self._ours = found
        ended = threading.Event()
        start_thread("docker-restart-lock", partial(self._keep, ended))
        try:
            yield None
        except Stopped:
            # The restart goes on without us: nobody else's turn before the TTL is over.
            with self._lock:
                self._ours = None
            raise
        finally:
            ended.set()
            self._give_back()

    def lost(self) -> Hold | None:
        """Return why the turn that is held is ours no longer, None when it still is.

        Gives it its full TTL again, so that the restart that follows has all of it.
        """
        if self._ours is None:
            return None  # without etcd, on the operator's word
        try:
            other = self._renew()
        except EtcdError as error:
            return self._unasked(error)
        return _held_by(other) if other is not None else None

    def _unasked(self, error: EtcdError) -> Hold | None:
        if self._asked:
            _log.warning("docker-restart-without-turn", reason=error.message)
            return None
        why = f"etcd cannot be asked whether another host restarts its Docker: {error.message}"
        return Hold(why, "wait for etcd, or agentctl docker restart --now", soon=True)

    def _renew(self) -> LockHolder | None:
        """Give our turn its full TTL, or take it again; return who has it instead.

        Raises:
            EtcdError: etcd does not say.
        """
        with self._lock:
            if self._ours is None or self._turns.keep(self._ours):
                return None
            found = self._turns.take(_WHAT, _TTL_S)
            if isinstance(found, MeshLock):
                self._ours = found
                return None
            return found

    def _give_back(self) -> None:
        with self._lock:
            turn, self._ours = self._ours, None
            if turn is not None:
                with suppress(EtcdError):  # its TTL ends it
                    self._turns.give_back(turn)

    def _take(self, patience_s: float) -> MeshLock | LockHolder:
        deadline_s = self._clock() + patience_s
        while True:
            found = self._turns.take(_WHAT, _TTL_S, over=self._overdue())
            if isinstance(found, MeshLock):
                return found
            if found.mod_revision != self._seen.mod_revision:
                self._seen, self._seen_s = found, self._clock()
            if self._clock() >= deadline_s or self._stopping.wait(_POLL_S):
                return found

    def _overdue(self) -> int:
        """The revision of a record that has stood for longer than any restart, else 0."""
        overdue = self._clock() - self._seen_s > _LONGEST_S
        return self._seen.mod_revision if overdue else 0

    def _keep(self, ended: threading.Event) -> None:
        until_s = self._clock() + _LONGEST_S
        while not ended.wait(_TTL_S / 3) and self._clock() < until_s:
            with suppress(EtcdError):
                other = self._renew()
                if other is not None:
                    _log.warning("docker-turn-lost", host=other.host_name or "?")


def _held_by(holder: LockHolder) -> Hold:
    why = f"host {holder.host_name or '?'} restarts its Docker"
    return Hold(why, "wait: one after the other", soon=True)
