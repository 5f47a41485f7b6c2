"""The dockerd that is installed: its version, and its own check of a daemon.json."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from agent.docker.daemonjson.desired import parse_version
from agent.docker.daemonjson.flags import Flags, for_validation
from agent.docker.daemonjson.known_keys import VALIDATES_SINCE
from agent.docker.service.service import error_line
from agent.model import Condition, Severity
from agent.programs import Runner

__all__ = ["DockerdProgram"]

_TIMEOUT_S = 10.0
_VERSION = re.compile(r"version ([0-9][^\s,]*)")


class DockerdProgram:
    """dockerd on PATH. What it answered is kept until it, or the question, is another one.

    Args:
        runner: Runs programs.
        which: Finds a program by its name.
    """

    def __init__(
        self, runner: Runner, *, which: Callable[[str], str | None] = shutil.which
    ) -> None:
        self._runner = runner
        self._which = which
        self._version: tuple[object, str] | None = None
        self._checked: tuple[object, str] | None = None

    def version(self) -> str:
        """Return the version of the dockerd on PATH, "" when there is none."""
        installed = self._installed()
        if self._version is not None and self._version[0] == installed:
            return self._version[1]
        result = self._runner.run(("dockerd", "--version"), _TIMEOUT_S)
        match = _VERSION.search(result.text)
        version = match[1] if result.status == 0 and match else ""
        self._version = (installed, version) if installed and version else None
        return version

    def check_config(self, text: str, version: str, flags: Flags) -> Condition | None:
        """Return why dockerd would refuse a daemon.json, None when it would not or does not say.

        It does not parse ``bip`` or ``fixed-cidr`` (seen on 26.1), so it finds unknown keys,
        wrong types and keys that are flags as well, not everything.

        Args:
            text: The whole daemon.json.
            version: The engine's; before 23.0 there is no such check.
            flags: The service's.
        """
        known = parse_version(version)
        if known is None or known < VALIDATES_SINCE:
            return None
        arguments = for_validation(flags)
        question = (text, arguments, version, self._installed())
        if self._checked is None or self._checked[0] != question:
            line = self._validate(text, arguments)
            self._checked = None if line is None else (question, line)
        if self._checked is None or not self._checked[1]:
            return None
        return Condition(
            name="docker-config-refused",
            cause=f"dockerd would not start with the new daemon.json: {self._checked[1]}",
            hint="repair what it names; nothing was written",
            severity=Severity.ERROR,
        )

    def _validate(self, text: str, flags: tuple[str, ...]) -> str | None:
        """Return what dockerd finds wrong, "" for nothing, None when it did not say."""
        with tempfile.TemporaryDirectory(prefix="hostmesh-") as folder:
            file = Path(folder) / "daemon.json"
            file.write_text(text, "utf-8", newline="")
            command = ("dockerd", "--validate", *flags, f"--config-file={file}")
            result = self._runner.run(command, _TIMEOUT_S)
        if result.status is None:
            return None
        if result.status == 0 or "unknown flag" in result.text:
            return ""
        return error_line(result.text) or result.last_lines

    def _installed(self) -> tuple[str, int, int, int] | None:
        """Return which dockerd is on PATH: another one after every up- and downgrade."""
        path = self._which("dockerd")
        if path is None:
            return None
        try:
            status = Path(path).stat()
        except OSError:
            return None
        return path, status.st_ino, status.st_mtime_ns, status.st_size
