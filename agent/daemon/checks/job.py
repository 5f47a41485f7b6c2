"""Start a check of all peers now and then, and publish the summary of the last one."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from agent.daemon.membership.publication import publication
from agent.daemon.state.agent_state import StateCell
from agent.errors import EtcdAuthError, EtcdError
from agent.etcd.client import EtcdClient
from agent.mesh.check.result import CheckSummary
from agent.programs import ProgramRunner, Runner
from agent.registry.checks import publish_check
from agent.registry.own.own_records import Holding, NotHeldError
from agent.registry.records import Keys
from agent.registry.records.checks import CHECKS
from agent.retry import Backoff, jittered
from agent.threads import Jobs

__all__ = ["CheckJob"]

_log = structlog.get_logger("agent.checks")

_COMMAND: Final = ("systemctl", "start", "--no-block", "hostmesh-check.service")
_DEADLINE_S: Final = 10.0
_FIRST_S: Final = 60.0
"""After the start of an agent the mesh settles first."""
_LOOK_S: Final = 60.0
"""How often to look at settings and lease that let no check be made, or published."""
_SYSTEMD: Final = Path("/run/systemd/system")


class CheckJob:
    """Starts checks, which run as a program of their own, and publishes their summaries.

    The agent itself may not enter a container's network: its unit has no right to.

    Args:
        jobs: Runs this and nothing that waits.
        runner: Runs the command.
        clock: Monotonic seconds.

    Attributes:
        problem: Why etcd refuses the summary; "" while it does not.
        last: The newest summary since the agent started.
    """

    name = "checks"

    def __init__(
        self,
        cell: StateCell,
        client: EtcdClient,
        jobs: Jobs,
        *,
        runner: Runner | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cell = cell
        self._client = client
        self._jobs = jobs
        self._runner = runner or ProgramRunner()
        self._clock = clock
        self._lock = threading.Lock()
        self._newest: CheckSummary | None = None
        self._backoff = Backoff(1.0, _LOOK_S)
        self._due_s = math.inf
        self.problem = ""
        self.last: CheckSummary | None = None

    def start(self) -> None:
        """Begin; the first check comes when the mesh has settled."""
        every_s = self._cell.now.settings.check.every_s or _FIRST_S
        first_s = jittered(min(every_s, _FIRST_S))
        self._due_s = self._clock() + first_s
        self._jobs.add(self, first_s)

    def stop(self) -> None:
        """End; a check that runs goes on."""
        self._jobs.remove(self)

    def keep(self, summary: CheckSummary) -> None:
        """Publish this summary in place of the last one. Any thread."""
        with self._lock:
            self._newest = self.last = summary
        self._jobs.hurry(self)

    def run(self) -> float:
        """Do what is due; return the seconds until more is."""
        pause_s = self._publish()
        now_s, every_s = self._clock(), self._cell.now.settings.check.every_s
        if not every_s:
            self._due_s = now_s + _LOOK_S
        elif now_s >= self._due_s:
            self._due_s = now_s + jittered(every_s)
            self._start_check()
        elif self._due_s > now_s + 2 * every_s:  # it was longer before
            self._due_s = now_s + jittered(every_s)
        return min(pause_s, max(0.0, self._due_s - now_s))

    def _start_check(self) -> None:
        state = self._cell.now
        if state.mesh.left or state.mesh.own is None:
            return
        command = state.settings.check.start_command
        if not command and not _SYSTEMD.exists():
            return  # another supervisor: check.start_command says how
        done = self._runner.run(command or _COMMAND, _DEADLINE_S)
        if done.status != 0:
            _log.warning("check-not-started", reason=done.last_lines, limit_key="check")

    def _publish(self) -> float:
        """Write the newest summary; return the seconds until it is tried again."""
        with self._lock:
            newest = self._newest
        if newest is None:
            return math.inf
        holding = self._holding()
        if holding is None:
            return _LOOK_S
        try:
            publish_check(self._client, Keys(self._cell.now.settings.etcd.prefix), newest, holding)
            self.problem = ""
        except EtcdAuthError as error:
            self.problem = f"etcd refuses it: {error.message}"
            _log.info("check-not-published", reason=error.message, limit_key="check")
        except NotHeldError:
            return _LOOK_S
        except EtcdError as error:
            _log.info("check-not-published", reason=error.message, limit_key="check")
            return self._backoff.next_s()
        self._backoff.reset()
        with self._lock:
            if self._newest is newest:
                self._newest = None
        return math.inf

    def _holding(self) -> Holding | None:
        """Return the lease to publish under, None where there is none or older agents cannot."""
        state = self._cell.now
        config, wish = state.mesh.config, publication(state)
        if config is None or config.level < CHECKS.level or wish is None:
            return None
        return wish[0].holding
