"""Restart Docker with a checkpoint, and finalise or roll back: nothing else restarts it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from agent.docker.daemonjson.store import DaemonJsonStore
from agent.docker.daemonjson.undo_journal import Failure, Phase
from agent.docker.engine.engine import Engine
from agent.docker.engine.reading import EngineReading
from agent.docker.service.dockerd_process import DockerdFinder
from agent.docker.service.service import DockerService
from agent.errors import DockerError
from agent.programs import Stopped

__all__ = ["Outcome", "Restarter"]

_log = structlog.get_logger("docker.restart")

_POLL_S = 0.2
_SETTLE_S = 3.0
"""How long a dockerd that was started anew may answer with other values before that counts:
its API is up only after its networks are, but the old one may answer a moment longer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a restart ended.

    Attributes:
        reading: The engine's last.
        failure: Why it failed, "" when it did not.
    """

    reading: EngineReading
    failure: str = ""


class Restarter:
    """Restarts Docker with a way back.

    Args:
        engine: Asked whether it came up with the values wanted.
        service: Restarts dockerd.
        store: Where the way back is kept.
        processes: Tells an old dockerd from a new one.
        timeout_s: Deadline for coming up with the values wanted.
        stopping: Ends waits when the agent stops.
    """

    def __init__(
        self,
        engine: Engine,
        service: DockerService,
        store: DaemonJsonStore,
        processes: DockerdFinder,
        *,
        timeout_s: float,
        stopping: threading.Event,
    ) -> None:
        self._engine = engine
        self._service = service
        self._store = store
        self._processes = processes
        self._timeout_s = timeout_s
        self._stopping = stopping

    def apply(self, attempt: str, is_right: Callable[[EngineReading], bool]) -> Outcome:
        """Restart Docker; if it does not come up as wanted, put the previous file back.

        Args:
            attempt: The name under which a failure is remembered.
            is_right: Returns whether a reading is as wanted.

        Raises:
            HostmeshError: The journal or daemon.json cannot be written.
            Stopped: The agent stops; the next one goes on from the journal.
        """
        self._store.mark(Phase.RESTARTING)
        since_s = time.time()
        before = self._processes.dockerd()
        _log.debug("docker-restarting")
        try:
            self._engine.end_events()
            self._service.restart()
        except DockerError as error:
            return self._roll_back(attempt, error.message, since_s)
        old_pid = before.pid if before else None
        reading = self.await_reading(is_right, old_pid=old_pid)
        if is_right(reading):
            self._store.mark(Phase.APPLIED)
            _log.info("docker-restarted", seconds=round(time.time() - since_s, 1))
            return Outcome(reading)
        why = reading.facts.problem or "it came up with other values than those wanted"
        return self._roll_back(attempt, why, since_s)

    def resume(self, attempt: str, is_right: Callable[[EngineReading], bool]) -> Outcome:
        """Go on after a kill in the middle of :meth:`apply`: look, finalise or roll back.

        An engine that answers with the old values was never restarted: then nothing is
        done but to say so in the journal.
        """
        reading = self.await_reading(lambda seen: seen.facts.reachable)
        if is_right(reading):
            self._store.mark(Phase.APPLIED)
            return Outcome(reading)
        if reading.facts.reachable:
            self._store.mark(Phase.WRITTEN)
            return Outcome(reading)
        return self._roll_back(attempt, reading.facts.problem, time.time() - self._timeout_s)

    def roll_back(self, attempt: str, why: str) -> Outcome:
        """Put the previous file back because dockerd failed with the new one, and start dockerd."""
        return self._roll_back(attempt, why, time.time() - 3600)

    def start_after_roll_back(self) -> EngineReading:
        """Start Docker with the previous file, else without any key of Hostmesh; each once.

        The previous file may be one that Hostmesh wrote and that does not fit any more: an engine
        that was downgraded, another flag in its unit. The operator's own is the last resort.
        """
        reading = self._start()
        if not reading.facts.reachable and self._store.take_out():
            _log.error("docker-keys-taken-out", reason=reading.facts.problem)
            reading = self._start()
        self._store.mark(Phase.APPLIED)
        return reading

    def _start(self) -> EngineReading:
        """Start Docker; a command that fails shows in the reading."""
        self._engine.end_events()
        with contextlib.suppress(DockerError):
            self._service.restart()
        return self.await_reading(lambda seen: seen.facts.reachable)

    def plain(self, is_right: Callable[[EngineReading], bool]) -> Outcome:
        """Restart Docker without a way back: after Hostmesh's keys have been taken out."""
        try:
            self._engine.end_events()
            self._service.restart()
        except DockerError as error:
            return Outcome(self._engine.read(), error.message)
        reading = self.await_reading(is_right)
        return Outcome(reading, "" if is_right(reading) else reading.facts.problem)

    def _roll_back(self, attempt: str, why: str, since_s: float) -> Outcome:
        reason = self._service.log_line(since_s) or why
        _log.error("docker-rolling-back", reason=reason)
        self._store.roll_back(Failure(attempt, reason))
        reading = self.start_after_roll_back()
        if not reading.facts.reachable:
            reason += f"; with the previous file: {reading.facts.problem}"
        return Outcome(reading, reason)

    def await_reading(
        self, is_right: Callable[[EngineReading], bool], *, old_pid: int | None = None
    ) -> EngineReading:
        """Ask the engine until it is right, or has settled on being wrong, or it is too late.

        Raises:
            Stopped: The agent stops.
        """
        deadline_s = time.monotonic() + self._timeout_s
        wrong_since_s: float | None = None
        while True:
            reading = self._engine.read()
            now_s = time.monotonic()
            if is_right(reading) or now_s >= deadline_s:
                return reading
            wrong_since_s = (wrong_since_s or now_s) if self._anew(reading, old_pid) else None
            if wrong_since_s is not None and now_s - wrong_since_s >= _SETTLE_S:
                return reading
            if self._stopping.wait(_POLL_S):
                raise Stopped

    def _anew(self, reading: EngineReading, old_pid: int | None) -> bool:
        """Return whether it is a new dockerd that answers."""
        process = self._processes.dockerd()
        return (
            reading.facts.reachable
            and old_pid is not None
            and process is not None
            and process.pid != old_pid
        )
