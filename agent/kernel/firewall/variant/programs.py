"""Running the programs that firewalls are written with: by absolute path, with a deadline."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from agent.errors import DependencyMissing, FirewallError

__all__ = ["Finished", "Runner"]

_SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_LAST_WORDS: Final = 500


class Finished(NamedTuple):
    """How a program ended, and what it printed."""

    status: int
    said: str
    complaint: str

    @property
    def words(self) -> str:
        """Its last words on one line, for messages."""
        last = (self.complaint.strip() or self.said.strip())[-_LAST_WORDS:]
        return last.replace("\n", "; ")


class Runner:
    """Runs programs with a minimal environment.

    Args:
        path: PATH to look on, the agent's own by default. The folders for system programs
            are looked in as well: a service's PATH may lack them.
        hint: What to do about a program that is missing.
    """

    def __init__(self, path: str | None, hint: str) -> None:
        own = os.environ.get("PATH", os.defpath) if path is None else path
        self._path = os.pathsep.join((own, *_SBIN))
        self._hint = hint

    def find(self, name: str) -> str | None:
        """Return the path of a program; None when there is none."""
        return shutil.which(name, path=self._path)

    def missing(self, name: str) -> DependencyMissing:
        """Return the error that a program is not there."""
        return DependencyMissing(f"{name} is not on PATH", hint=self._hint)

    def run(
        self,
        argv: Sequence[str],
        timeout_s: float,
        *,
        stdin: str = "",
        started: Callable[[int], None] = lambda _: None,
    ) -> Finished:
        """Run and wait; kill it after ``timeout_s``.

        Args:
            argv: Begins with a path that :meth:`find` returned, or with a name.
            started: Takes the process id.

        Raises:
            DependencyMissing: It is not there.
            FirewallError: It cannot be run, or did not end in time.
        """
        program = self.find(argv[0])
        if program is None:
            raise self.missing(argv[0])
        try:
            with subprocess.Popen(
                (program, *argv[1:]),
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={"PATH": self._path, "LC_ALL": "C"},
            ) as process:
                started(process.pid)
                try:
                    said, complaint = process.communicate(stdin or None, timeout=timeout_s)
                except BaseException:
                    process.kill()
                    raise
        except subprocess.TimeoutExpired as error:
            raise FirewallError(f"{argv[0]} did not end within {timeout_s:.3g} s") from error
        except OSError as error:
            raise FirewallError(f"{argv[0]} cannot be run: {error.strerror}") from error
        return Finished(process.returncode, said, complaint)
