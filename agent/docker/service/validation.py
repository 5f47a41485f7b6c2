"""Lets dockerd itself check a daemon.json before it is written (Docker 23.0 and later)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from agent.docker.daemonjson.desired import parse_version
from agent.docker.daemonjson.flags import for_validation, parse_flags
from agent.docker.daemonjson.known_keys import VALIDATES_SINCE
from agent.docker.service.dockerd_process import DockerdFinder
from agent.docker.service.service import DockerService
from agent.model import Condition, Severity

__all__ = ["ConfigValidator"]


class ConfigValidator:
    """Runs ``dockerd --validate`` with those of the service's flags that are known here.

    It does not parse ``bip`` or ``fixed-cidr`` (seen on 26.1), so it finds unknown keys,
    wrong types and keys that are flags as well, not everything. The answer is kept for as long
    as the text, the flags and the dockerd are the same.

    Args:
        service: Knows dockerd.
        processes: The running dockerd's flags.
    """

    def __init__(self, service: DockerService, processes: DockerdFinder) -> None:
        self._service = service
        self._processes = processes
        self._asked: tuple[object, ...] = ()
        self._line = ""

    def check(self, text: str, version: str) -> Condition | None:
        """Return why dockerd would refuse ``text``, None when it would not or cannot say.

        Args:
            text: The whole daemon.json.
            version: The engine's version.
        """
        known = parse_version(version)
        if known is None or known < VALIDATES_SINCE:
            return None
        process = self._processes.dockerd()
        argv = self._service.unit_argv() or (process.argv if process else ())
        flags = for_validation(parse_flags(argv))
        question = (text, flags, version, self._service.installed())
        if self._asked != question:
            line = self._ask(text, flags)
            if line is None:
                return None  # it is asked again
            self._asked, self._line = question, line
        return _refused(self._line) if self._line else None

    def _ask(self, text: str, flags: tuple[str, ...]) -> str | None:
        with tempfile.TemporaryDirectory(prefix="hostmesh-") as folder:
            file = Path(folder) / "daemon.json"
            file.write_bytes(text.encode("utf-8"))
            return self._service.validate(file, flags)


def _refused(line: str) -> Condition:
    return Condition(
        name="docker-config-refused",
        cause=f"dockerd would not start with the new daemon.json: {line}",
        hint="nothing was written; repair what it names",
        severity=Severity.ERROR,
    )
