"""dockerd as a service: restarting it, what its unit says, and what it said when it died."""

from __future__ import annotations

import contextlib
import math
import re
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent.docker.service.dockerd_process import SYSTEMD, DockerdFinder
from agent.errors import DockerError
from agent.programs import ProgramRunner, Runner

__all__ = ["DockerService", "error_line"]

_UNIT = "docker.service"
_GATE = "hostmesh-docker-gate.service"
_QUERY_TIMEOUT_S = 10.0
_TRIES = 3
_ON_THE_WAY = frozenset({"activating", "deactivating", "reloading"})
_QUOTES = ("'", '"')
_FATAL = re.compile(
    r"failed to start daemon|unable to configure|fatal|level=error|invalid|error", re.IGNORECASE
)
_LOGFMT = re.compile(r'msg="((?:[^"\\]|\\.)*)"')
_VERSION = re.compile(r"version ([0-9][^\s,]*)")


class DockerService:
    """dockerd, as systemd or the operator's own command runs it.

    Args:
        command: Program and arguments that restart dockerd; empty for systemd.
        timeout_s: Deadline of a restart.
        runner: Runs programs.
        processes: Where a running dockerd is looked for.
        systemd: A folder that is there when systemd runs the host.
        which: Finds a program by its name.
    """

    def __init__(
        self,
        command: tuple[str, ...] = (),
        timeout_s: float = 60.0,
        *,
        runner: Runner | None = None,
        processes: DockerdFinder | None = None,
        systemd: Path = SYSTEMD,
        which: Callable[[str], str | None] = shutil.which,
    ) -> None:
        self._command = command
        self._timeout_s = timeout_s
        self._runner = runner or ProgramRunner()
        self._processes = processes or DockerdFinder()
        self._systemd = systemd
        self._which = which
        self._version: tuple[tuple[str, int, int, int], str] | None = None

    @property
    def by_systemd(self) -> bool:
        """Whether restarts go through systemd."""
        return not self._command and self._systemd.exists()

    def can_restart(self) -> str:
        """Return why dockerd cannot be restarted from here, "" when it can."""
        if self._command or self._systemd.exists():
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
        argv = self._command or ("systemctl", "restart", _UNIT)
        if not self._command:
            # Three starts in 60 s and the unit refuses; a roll back must not meet that.
            self._runner.run(("systemctl", "reset-failed", _UNIT), _QUERY_TIMEOUT_S)
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

        A restart asked for now would wait behind it, and with it whoever asked: at boot the
        gate holds Docker back until the agent has written its configuration.
        """
        if not self.by_systemd:
            return ""
        argv = ("systemctl", "show", _UNIT, _GATE, "--property=Id,ActiveState,Job")
        busy: set[str] = set()
        for text in self._runner.run(argv, _QUERY_TIMEOUT_S).output.split("\n\n"):
            unit = _properties(text)
            if unit.get("ActiveState") in _ON_THE_WAY or unit.get("Job", "0") not in {"", "0"}:
                busy.add(unit.get("Id", ""))
        if _GATE in busy:
            return f"{_GATE} holds Docker back"
        return "systemd starts or stops Docker" if busy else ""

    def failed(self, *, started_within_s: float = math.inf) -> bool:
        """Return whether systemd gave up on dockerd. Without systemd nobody can say: False.

        A unit without a limit of starts never fails; there the third one in vain counts.

        Args:
            started_within_s: It must have been started for the last time less than this ago.
        """
        if not self.by_systemd:
            return False
        names = "ActiveState,SubState,NRestarts,ExecMainStartTimestampMonotonic"
        argv = ("systemctl", "show", _UNIT, f"--property={names}")
        unit = _properties(self._runner.run(argv, _QUERY_TIMEOUT_S).output)
        in_vain = unit.get("SubState") == "auto-restart" and _number(unit, "NRestarts") >= _TRIES
        if unit.get("ActiveState") != "failed" and not in_vain:
            return False
        started_s = _number(unit, "ExecMainStartTimestampMonotonic") / 1e6
        return time.monotonic() - started_s <= started_within_s

    def unit_argv(self) -> tuple[str, ...]:
        """Return the command line of the unit, drop-ins included; empty without systemd.

        Variables are filled in from the unit's Environment= and EnvironmentFile=, which is
        where Debian's DOCKER_OPTS come from.
        """
        if not self._systemd.exists():
            return ()
        names = ("ExecStart", "Environment", "EnvironmentFiles")
        argv = ("systemctl", "show", _UNIT, *(f"--property={name}" for name in names))
        result = self._runner.run(argv, _QUERY_TIMEOUT_S)
        match = re.search(r"^ExecStart=.*?argv\[\]=(.*?) ; ", result.output, re.MULTILINE)
        if result.status != 0 or not match:
            return ()
        variables = environment_of(result.output)
        return tuple(word for each in match[1].split() for word in _filled_in(each, variables))

    def log_line(self, since_s: float) -> str:
        """Return dockerd's own error line since a moment (Unix time), "" when none is found."""
        if not self.by_systemd:
            return ""
        argv = ("journalctl", "-u", _UNIT, "-o", "cat", "-n", "200", "--no-pager")
        result = self._runner.run((*argv, f"--since=@{int(since_s)}"), _QUERY_TIMEOUT_S)
        return error_line(result.output)

    def installed(self) -> tuple[str, int, int, int] | None:
        """Return which dockerd is on PATH: another one after every up- and downgrade."""
        path = self._which("dockerd")
        if path is None:
            return None
        try:
            status = Path(path).stat()
        except OSError:
            return None
        return path, status.st_ino, status.st_mtime_ns, status.st_size

    def installed_version(self) -> str:
        """Return the version of the dockerd on PATH, "" when there is none; asked once of each."""
        installed = self.installed()
        if self._version is not None and self._version[0] == installed:
            return self._version[1]
        result = self._runner.run(("dockerd", "--version"), _QUERY_TIMEOUT_S)
        match = _VERSION.search(result.output)
        version = match[1] if result.status == 0 and match else ""
        self._version = (installed, version) if installed and version else None
        return version

    def validate(self, config_file: Path, flags: Sequence[str]) -> str | None:
        """Let dockerd check a file together with flags; from Docker 23.0.

        Args:
            config_file: The file to check.
            flags: Of :func:`~agent.docker.daemonjson.flags.for_validation`, never a process's own.

        Returns:
            What is wrong in dockerd's words, "" when nothing is, None when it did not say.
        """
        command = ("dockerd", "--validate", *flags, f"--config-file={config_file}")
        result = self._runner.run(command, _QUERY_TIMEOUT_S)
        if result.status is None:
            return None
        if result.status == 0 or "unknown flag" in result.text:
            return ""
        return error_line(result.text) or result.last_lines


def _properties(shown: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def _number(unit: Mapping[str, str], name: str) -> int:
    value = unit.get(name, "")
    return int(value) if value.isdecimal() else 0


def environment_of(shown: str) -> Mapping[str, str]:
    """Return a unit's variables from what ``systemctl show`` says; files win, as in systemd."""
    words: list[str] = []
    for line in shown.splitlines():
        name, _, value = line.partition("=")
        if name == "Environment":
            words += _words(value)
        elif name == "EnvironmentFiles":
            path = value.rpartition(" (ignore_errors=")[0] or value
            with contextlib.suppress(OSError, UnicodeDecodeError):
                text = Path(path).read_text("utf-8")
                words += (word for each in text.splitlines() for word in _assignment(each))
    return dict(word.partition("=")[::2] for word in words if "=" in word)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quote that is not closed
        return text.split()


def _assignment(line: str) -> list[str]:
    """Return ``NAME=value`` of a line of an environment file, its quotes taken off."""
    name, equals, value = line.strip().partition("=")
    if not equals or name.startswith(("#", ";")):
        return []
    return [f"{name}={value.strip()[1:-1] if value.strip()[:1] in _QUOTES else value.strip()}"]


def _filled_in(word: str, variables: Mapping[str, str]) -> tuple[str, ...]:
    """Fill variables in as systemd does: ``$NAME`` alone becomes words, ``${NAME}`` stays one."""
    if re.fullmatch(r"\$[A-Za-z_][A-Za-z0-9_]*", word):
        return tuple(_words(variables.get(word[1:], "")))
    filled = re.sub(
        r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", lambda found: variables.get(found[1], ""), word
    )
    return (filled,)


def error_line(log: str) -> str:
    """Return the line of dockerd's log that says why it ended, "" when there is none.

    dockerd up to 28 logs in logfmt and prints the reason bare as its last words.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    ours = [line for line in lines if not line.startswith("docker.service:")]
    for line in reversed(ours):
        if re.search(r"failed to start daemon|unable to configure", line):
            return _plain(line)
    for line in reversed(ours):
        if _FATAL.search(line):
            return _plain(line)
    return ""


def _plain(line: str) -> str:
    match = _LOGFMT.search(line)
    return (match[1].replace('\\"', '"') if match else line)[:500]
