"""dockerd as a service: restart it, ask what systemd does with it, read why it ended."""

from __future__ import annotations

import math
import re
import shlex
import time
from pathlib import Path
from typing import Final

from agent.docker.service.dockerd_process import DockerdFinder
from agent.docker.service.systemd import DOCKER_UNIT, FOLDER, Systemd, number, start_command
from agent.errors import DockerError
from agent.programs import ProgramRunner, Runner

__all__ = ["DockerService", "error_line"]

_GATE: Final = "hostmesh-docker-gate.service"
_QUERY_TIMEOUT_S: Final = 10.0
_TRIES: Final = 3
_ON_THE_WAY: Final = frozenset({"activating", "deactivating", "reloading"})
_REASONS: Final = (
    re.compile(r"failed to start daemon|unable to configure"),
    re.compile(r"fatal|level=error|invalid|error", re.IGNORECASE),
)
_LOGFMT: Final = re.compile(r'msg="((?:[^"\\]|\\.)*)"')
_MOST_CHARACTERS: Final = 500


class DockerService:
    """dockerd, as systemd or the operator's own command runs it.

    Args:
        command: Program and arguments that restart dockerd; empty for systemd.
        timeout_s: Deadline of a restart.
        runner: Runs programs.
        processes: Finds a running dockerd.
        systemd: A folder that is there when systemd runs the host.
    """

    def __init__(
        self,
        command: tuple[str, ...] = (),
        timeout_s: float = 60.0,
        *,
        runner: Runner | None = None,
        processes: DockerdFinder | None = None,
        systemd: Path = FOLDER,
    ) -> None:
        self._command = command
        self._timeout_s = timeout_s
        self._runner = runner or ProgramRunner()
        self._processes = processes or DockerdFinder()
        self._systemd = Systemd(self._runner, systemd)

    @property
    def by_systemd(self) -> bool:
        """Whether restarts go through systemd."""
        return not self._command and self._systemd.runs

    def can_restart(self) -> str:
        """Return why dockerd cannot be restarted from here, "" when it can."""
        if self._command or self._systemd.runs:
            return ""
        return "there is no systemd here and docker.restart_command is not set"

    def restart(self) -> None:
        """Restart dockerd and wait until the command says it is done.

        Raises:
            DockerError: There is no way to restart it, or the command failed or took too
                long; carries its last lines.
            Stopped: The agent stops; the restart goes on without it.
        """
        why = self.can_restart()
        if why:
            hint = "set docker.restart_command, or restart Docker yourself"
            raise DockerError(why, hint=hint)
        argv = self._command or ("systemctl", "restart", DOCKER_UNIT)
        if not self._command:
            # Three starts in 60 s and the unit refuses; a roll back must not meet that.
            self._runner.run(("systemctl", "reset-failed", DOCKER_UNIT), _QUERY_TIMEOUT_S)
        result = self._runner.run(argv, self._timeout_s)
        if result.status != 0:
            how = "failed" if result.status is None else f"failed ({result.status})"
            what = f"{shlex.join(argv)} {how}: {result.last_lines}".rstrip(": ")
            raise DockerError(what, hint="look at Docker's log: journalctl -u docker")

    def asleep(self) -> str:
        """Return why dockerd must not be spoken to now, "" when it may be.

        With systemd, connecting to docker.sock starts dockerd: an operator who stopped it,
        or a host on its way up, would get it started by an agent that only looked.
        """
        if self.by_systemd and self._processes.dockerd() is None:
            return "dockerd is not running"
        return ""

    def starting(self) -> str:
        """Return what systemd is about to do with dockerd, "" when nothing.

        A restart asked for now would wait behind it, and the agent with it: at boot the gate
        holds Docker back until the agent has written its configuration.
        """
        if not self.by_systemd:
            return ""
        units = self._systemd.show("Id,ActiveState,Job", DOCKER_UNIT, _GATE) or ()
        busy = {
            unit.get("Id", "")
            for unit in units
            if unit.get("ActiveState") in _ON_THE_WAY or unit.get("Job", "0") not in {"", "0"}
        }
        if _GATE in busy:
            return f"{_GATE} holds Docker back"
        return "systemd starts or stops Docker" if busy else ""

    def failed(self, *, started_within_s: float = math.inf) -> bool:
        """Return whether systemd gave up on dockerd; False without systemd, which alone knows.

        A unit without a limit of starts never fails; there the third one in vain counts.

        Args:
            started_within_s: It must have been started for the last time less than this ago.
        """
        if not self.by_systemd:
            return False
        unit = self._systemd.show_docker(
            "ActiveState,SubState,NRestarts,ExecMainStartTimestampMonotonic"
        )
        in_vain = unit.get("SubState") == "auto-restart" and number(unit, "NRestarts") >= _TRIES
        if unit.get("ActiveState") != "failed" and not in_vain:
            return False
        started_s = number(unit, "ExecMainStartTimestampMonotonic") / 1e6
        return time.monotonic() - started_s <= started_within_s

    def unit_argv(self) -> tuple[str, ...]:
        """Return the command line of the unit, drop-ins included; empty without systemd."""
        if not self._systemd.runs:
            return ()
        return start_command(self._systemd.show_docker("ExecStart,Environment,EnvironmentFiles"))

    def log_line(self, since_s: float) -> str:
        """Return dockerd's own error line since a moment (Unix time), "" when none is found."""
        if not self.by_systemd:
            return ""
        argv = ("journalctl", "-u", DOCKER_UNIT, "-o", "cat", "-n", "200", "--no-pager")
        result = self._runner.run((*argv, f"--since=@{int(since_s)}"), _QUERY_TIMEOUT_S)
        return error_line(result.output)


def error_line(log: str) -> str:
    """Return the line of dockerd's log that says why it ended, "" when there is none.

    dockerd up to 28 logs in logfmt and prints the reason bare as its last line.
    """
    lines = [line.strip() for line in log.splitlines()]
    own = [line for line in lines if line and not line.startswith("docker.service:")]
    for reason in _REASONS:
        for line in reversed(own):
            if reason.search(line):
                match = _LOGFMT.search(line)
                return (match[1].replace('\\"', '"') if match else line)[:_MOST_CHARACTERS]
    return ""
