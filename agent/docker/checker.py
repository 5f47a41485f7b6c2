"""Lets dockerd itself check a daemon.json before it is written (Docker 23.0 and later)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from agent.docker.knownkeys import VALIDATES_SINCE
from agent.docker.processes import ProcessTable
from agent.docker.service import DockerService
from agent.docker.wants import parse_version
from agent.model import Condition, Severity

__all__ = ["FileChecker"]


class FileChecker:
    """Runs ``dockerd --validate`` with the service's own flags, once for each text.

    It does not parse ``bip`` or ``fixed-cidr`` (seen on 26.1), so it finds unknown keys,
    wrong types and keys that are flags as well, not everything.

    Args:
        service: Knows dockerd.
        processes: The running dockerd's flags.
    """

    def __init__(self, service: DockerService, processes: ProcessTable) -> None:
        self._service = service
        self._processes = processes
        self._checked: tuple[str, tuple[str, ...], str] | None = None

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
        argv = self._service.unit_argv() or (process.argv if process else ("dockerd",))
        if self._checked is None or self._checked[:2] != (text, argv):
            self._checked = (text, argv, self._ask(text, argv))
        line = self._checked[2]
        return _refused(line) if line else None

    def _ask(self, text: str, argv: tuple[str, ...]) -> str:
        with tempfile.TemporaryDirectory(prefix="hostmesh-") as folder:
            file = Path(folder) / "daemon.json"
            file.write_bytes(text.encode("utf-8"))
            return self._service.validate(file, argv)


def _refused(line: str) -> Condition:
    return Condition(
        name="docker-config-refused",
        cause=f"dockerd would not start with the new daemon.json: {line}",
        hint="nothing was written; repair what it names",
        severity=Severity.ERROR,
    )
