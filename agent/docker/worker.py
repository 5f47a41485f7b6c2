"""The thread that owns Docker, so that no call to it holds up the reconcile loop."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar

from agent import threads
from agent.docker.attach.conditions import engine_report
from agent.docker.attach.daemon_json import DaemonJsonAttacher
from agent.docker.attach.detach import Detacher, DetachTerms
from agent.docker.attach.network import NetworkAttacher
from agent.docker.daemonjson.desired import DesiredDocker
from agent.docker.engine.engine import Engine
from agent.docker.engine.events import EngineEvent
from agent.docker.engine.watcher import EngineWatcher
from agent.docker.networks.maker import NetworkMaker
from agent.docker.networks.plan import Wanted
from agent.docker.report import AttachReport, DetachReport
from agent.docker.service.restart_policy import Override
from agent.errors import DockerError
from agent.programs import Stopped
from agent.thread_call import (
    CallCancelled,
    CallRunning,
    IsWaiting,
    ThreadCall,
    always_waiting,
    client_is_waiting,
)
from agent.threads import Poller

__all__ = ["Attacher", "DockerWorker", "EventFollower"]

_CHECK_S = 30.0
_JITTER = 0.2
_DEBOUNCE_S = 0.1
_SPACING_S = 0.5
"""At most two looks a second, however many events there are: they coalesce."""


Attacher: TypeAlias = DaemonJsonAttacher | NetworkAttacher
"""A way of giving a lease to Docker. For one thread; calls may take minutes."""

_Answer = TypeVar("_Answer")


class EventFollower(Protocol):
    """A component that follows the engine's events beside the worker."""

    def notice(self, events: tuple[EngineEvent, ...]) -> None:
        """Follow what happened; must not block."""

    def check(self) -> None:
        """Follow that events may have been lost; must not block."""


class DockerWorker:
    """Runs the attacher when something may have changed, and at least every 30 s.

    Args:
        attacher: Brings Docker to the lease.
        detacher: Takes the lease back from it.
        engine: Whose events are followed.
        on_report: Called in the worker's thread after every look; must not block.
        stopping: Shared with everything that waits for Docker.
        poller: For the engine's events; None: one of its own.
        follower: Gets the engine's events, too.
        networks: Makes the networks of records; None: none are made.
        check_s: How often to look without an event, with 20 % jitter.
    """

    def __init__(
        self,
        attacher: Attacher,
        detacher: Detacher,
        engine: Engine,
        on_report: Callable[[AttachReport], None],
        *,
        stopping: threading.Event,
        poller: Poller | None = None,
        follower: EventFollower | None = None,
        networks: NetworkMaker | None = None,
        check_s: float = _CHECK_S,
    ) -> None:
        self._attacher = attacher
        self._detacher = detacher
        self._on_report = on_report
        self._stopping = stopping
        self._check_s = check_s
        self._condition = threading.Condition()
        self._desired: DesiredDocker | None = None
        self._calls: deque[ThreadCall[Any]] = deque()
        self._due_s = 0.0
        self._looked_s = 0.0
        self._engine = engine
        self._follower = follower
        self._networks = networks
        self._wanted = Wanted()
        self._watcher = EngineWatcher(engine, self._notice, poller=poller)
        self._thread = threading.Thread(target=self._run, name="docker-worker", daemon=True)

    def start(self) -> None:
        """Start the worker; it follows the engine's events."""
        self._thread.start()
        self._watcher.start()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """End the thread; return whether it ended within ``timeout_s``.

        A restart of Docker that is under way is left to finish; the next agent goes on from
        the journal.
        """
        deadline_s = time.monotonic() + timeout_s
        self._stopping.set()
        with self._condition:
            self._condition.notify_all()
        ended = self._watcher.stop()
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline_s - time.monotonic()))
        return ended and not self._thread.is_alive()

    def set_desired(self, desired: DesiredDocker | None) -> None:
        """Set what Docker should have; None: nothing, only look. The same again changes nothing."""
        with self._condition:
            if desired != self._desired:
                self._desired = desired
                self._hurry(0.0)

    def set_networks(self, wanted: Wanted) -> None:
        """Set which networks records ask for. The same again changes nothing."""
        with self._condition:
            if wanted != self._wanted:
                self._wanted = wanted
                self._hurry(0.0)

    def look(self) -> None:
        """Look at Docker soon, before the timer is due; calls coalesce."""
        with self._condition:
            spaced_s = self._looked_s + _SPACING_S - time.monotonic()
            self._hurry(max(_DEBOUNCE_S, spaced_s))

    def restart_now(self, *, force: bool, timeout_s: float, replace: bool = False) -> AttachReport:
        """Do what is pending now, for the operator; wait for it.

        Args:
            force: Also under running containers.
            timeout_s: How long to wait for it.
            replace: Also in place of the operator's own ``bip`` and pools.

        Raises:
            Refused: Containers run and ``force`` is not given.
            DockerError: There is no lease, or it takes longer than ``timeout_s``.
        """
        desired = self._desired
        if desired is None:
            raise DockerError(
                "this host has no subnet (it has left, or is still joining)",
                hint="agentctl status",
            )
        override = Override.CONTAINERS if force else Override.POLICY
        report = self._call(
            lambda: self._attacher.ensure(desired, override, replace=replace),
            timeout_s,
            client_is_waiting(),
        )
        self._on_report(report)
        return report

    def detach(self, terms: DetachTerms, *, timeout_s: float) -> DetachReport:
        """Give Docker its previous configuration back and leave it alone; wait for it.

        Raises:
            DockerError: daemon.json could not be restored, or it takes longer than
                ``timeout_s``.
        """
        self.set_desired(None)
        report = self._call(lambda: self._detacher.detach(terms), timeout_s)
        self.look()
        return report

    def _call(
        self, run: Callable[[], _Answer], timeout_s: float, is_waiting: IsWaiting = always_waiting
    ) -> _Answer:
        call = ThreadCall(run, is_waiting)
        with self._condition:
            self._calls.append(call)
            self._condition.notify_all()
        try:
            return call.answer(timeout_s)
        except CallCancelled:
            raise DockerError(
                f"Docker is busy: this was not begun within {timeout_s:g} s and nothing was done",
                hint="agentctl status, then the command again",
            ) from None
        except CallRunning:
            raise DockerError(
                f"Docker is busy: this was begun, is not done after {timeout_s:g} s and goes on",
                hint="agentctl status and agentctl events show when it is done",
            ) from None
        except Stopped:
            raise DockerError(
                "the agent stops", hint="run the command again when the agent runs"
            ) from None

    def _notice(self, events: tuple[EngineEvent, ...]) -> None:
        """Follow the engine's events; none: their stream has ended."""
        if self._follower is not None:
            self._follower.notice(events)
        if not events or any(each.action != "health_status" for each in events):
            self.look()

    def _hurry(self, delay_s: float) -> None:
        """Bring the next look forward to ``delay_s`` from now. Holds the lock."""
        self._due_s = min(self._due_s, time.monotonic() + delay_s)
        self._condition.notify_all()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
            except Stopped:
                break
            except Exception as error:  # noqa: BLE001 - the top of a thread
                threads.report_error(error)
                self._stopping.wait(_SPACING_S)
        for call in tuple(self._calls):
            call.refuse(Stopped())

    def _step(self) -> None:
        """Wait for a call or until a look is due, and do it."""
        with self._condition:
            while not self._stopping.is_set() and not self._calls:
                left_s = min(self._due_s, self._watcher.due_s) - time.monotonic()
                if left_s <= 0:
                    break
                self._condition.wait(left_s)
            if self._stopping.is_set():
                return
            call = self._calls.popleft() if self._calls else None
        if call is not None:
            call.execute()
            return
        news = self._watcher.due_s <= time.monotonic() and self._watcher.follow()
        if news and self._follower is not None:
            self._follower.check()
        with self._condition:
            if not news and self._due_s > time.monotonic():
                return
            desired, wanted = self._desired, self._wanted
            spread = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
            self._due_s = time.monotonic() + self._check_s * spread
        report = (
            engine_report(self._engine.read())
            if desired is None
            else self._attacher.ensure(desired)
        )
        if desired is not None and self._networks is not None:
            report = self._networks.ensure(wanted, desired, report)
        self._looked_s = time.monotonic()
        if report.again_in_s is not None:
            with self._condition:
                self._hurry(report.again_in_s * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311
        self._on_report(report)
