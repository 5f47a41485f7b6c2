"""The lock of Docker's restarts: at most one host of the mesh restarts Docker at a time.

While etcd is unreachable, a restart that the agent wants waits, and one that the operator asked for
goes ahead: the operator can look at the other hosts. A lock that is lost during a restart, when
etcd was unreachable for longer than its TTL, is taken again if it is free. A restart that has begun
goes on to its end either way: half of one leaves no Docker.
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

_log = structlog.get_logger("docker.restart-lock")

_WORK = "docker-restart"
_TTL_S = 15
_LONGEST_S = 900.0
"""No restart takes longer: the holder stops keeping the lock, and others replace it."""
_PATIENCE_S = 60.0
"""Longest wait for the lock when an operator asked for the restart."""
_POLL_S = 1.0


class DockerRestartLock:
    """Hold the lock of Docker's restarts for the time of a ``with``.

    Args:
        locks: This host's, in etcd.
        stopping: Ends a wait when the agent stops.
        patience_s: Longest wait for the lock when an operator asked.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        locks: MeshLocks,
        stopping: threading.Event,
        *,
        patience_s: float = _PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._locks = locks
        self._stopping = stopping
        self._patience_s = patience_s
        self._clock = clock
        self._seen = LockHolder("", 0)
        self._seen_s = 0.0
        self._lock = threading.Lock()
        self._held: MeshLock | None = None
        self._asked = False

    @contextmanager
    def __call__(self, *, asked: bool) -> Iterator[Hold | None]:
        """Yield why the restart must wait, None when this host has the lock."""
        self._asked = asked
        try:
            found = self._take(self._patience_s if asked else 0.0)
        except EtcdError as error:
            yield self._without_etcd(error)
            return
        if isinstance(found, LockHolder):
            yield _held_by(found)
            return
        self._held = found
        ended = threading.Event()
        start_thread("docker-restart-lock", partial(self._keep, ended))
        try:
            yield None
        except Stopped:
            # The restart goes on without the agent: keep others out until the TTL ends.
            with self._lock:
                self._held = None
            raise
        finally:
            ended.set()
            self._give_back()

    def lost(self) -> Hold | None:
        """Return why the lock is lost, None while it is held.

        Give it its full TTL again for the restart that follows.
        """
        if self._held is None:
            return None  # without etcd, as the operator asked
        try:
            other = self._renew()
        except EtcdError as error:
            return self._without_etcd(error)
        return _held_by(other) if other is not None else None

    def _without_etcd(self, error: EtcdError) -> Hold | None:
        if self._asked:
            _log.warning("docker-restart-without-lock", reason=error.message)
            return None
        why = f"etcd cannot be asked whether another host restarts its Docker: {error.message}"
        return Hold(why, "wait for etcd, or agentctl docker restart --now", soon=True)

    def _renew(self) -> LockHolder | None:
        """Give the lock its full TTL, or take it again; return another holder.

        Raises:
            EtcdError: etcd does not answer.
        """
        with self._lock:
            if self._held is None or self._locks.keep(self._held):
                return None
            found = self._locks.take(_WORK, _TTL_S)
            if isinstance(found, MeshLock):
                self._held = found
                return None
            return found

    def _give_back(self) -> None:
        with self._lock:
            lock, self._held = self._held, None
            if lock is not None:
                with suppress(EtcdError):  # its TTL ends it
                    self._locks.give_back(lock)

    def _take(self, patience_s: float) -> MeshLock | LockHolder:
        deadline_s = self._clock() + patience_s
        while True:
            found = self._locks.take(_WORK, _TTL_S, over=self._overdue())
            if isinstance(found, MeshLock):
                return found
            if found.mod_revision != self._seen.mod_revision:
                self._seen, self._seen_s = found, self._clock()
            if self._clock() >= deadline_s or self._stopping.wait(_POLL_S):
                return found

    def _overdue(self) -> int:
        """Return the revision of a lock held for longer than any restart takes, else 0."""
        overdue = self._clock() - self._seen_s > _LONGEST_S
        return self._seen.mod_revision if overdue else 0

    def _keep(self, ended: threading.Event) -> None:
        until_s = self._clock() + _LONGEST_S
        while not ended.wait(_TTL_S / 3) and self._clock() < until_s:
            with suppress(EtcdError):
                other = self._renew()
                if other is not None:
                    _log.warning("docker-restart-lock-lost", host=other.host_name or "?")


def _held_by(holder: LockHolder) -> Hold:
    why = f"host {holder.host_name or '?'} restarts its Docker"
    return Hold(why, "wait: one after the other", soon=True)
