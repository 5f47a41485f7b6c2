"""Run other programs: no shell, a deadline, a minimal environment, bounded output.

A program gets none of the agent's environment: its variables may hold etcd's password. Output goes
to memory files, so that it cannot fill a pipe and a daemon that the program leaves behind may keep
them open.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

__all__ = ["KIT_FOLDERS", "Finished", "ProgramRunner", "Runner", "Stopped", "kit_folder"]

KIT_FOLDERS: Final = (Path(__file__).parents[1] / "deploy", Path("/usr/share/hostmesh"))
"""Where the kits are that operators run (ansible, etcd): in a clone, and in the package."""

_SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_POLL_S: Final = 0.1
_KILL_WAIT_S: Final = 2.0
_MOST_BYTES: Final = 64 << 20
_LAST_LINES: Final = 8
_LAST_CHARACTERS: Final = 800


def kit_folder(file: str) -> Path | None:
    """Return the first folder of the kits that has a file; None where none has it."""
    return next((each for each in KIT_FOLDERS if (each / file).is_file()), None)


class Stopped(Exception):
    """The wait was ended because the agent stops."""


class Finished(NamedTuple):
    """How a program ended.

    Attributes:
        status: Its exit status; None when it could not be started, or was killed.
        output, errors: What it printed; ``errors`` ends with why the status is None.
    """

    status: int | None
    output: str
    errors: str = ""

    @property
    def text(self) -> str:
        """All that it printed, output first."""
        return self.output + self.errors

    @property
    def last_lines(self) -> str:
        """The last lines of what it printed, joined by " / " for a message of one line."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return " / ".join(lines[-_LAST_LINES:])[-_LAST_CHARACTERS:]


class Runner(Protocol):
    """Runs programs with a deadline."""

    def run(self, argv: Sequence[str], timeout_s: float) -> Finished:
        """Run and wait."""


class ProgramRunner:
    """Runs real programs.

    Args:
        path: PATH to look on, the agent's own by default. Folders for system programs are
            added: a service's PATH may lack them.
        stopping: Ends a wait early with :class:`Stopped`; the program is left to finish.
    """

    def __init__(self, path: str | None = None, stopping: threading.Event | None = None) -> None:
        own = os.environ.get("PATH", os.defpath) if path is None else path
        self._path = os.pathsep.join((own, *_SBIN))
        self._stopping = stopping or threading.Event()

    def find(self, name: str) -> str | None:
        """Return the path of a program; None when there is none."""
        return shutil.which(name, path=self._path)

    def run(
        self,
        argv: Sequence[str],
        timeout_s: float,
        *,
        stdin: str = "",
        started: Callable[[int], None] = lambda _: None,
    ) -> Finished:
        """Run and wait; after ``timeout_s`` kill it and its process group.

        Args:
            argv: Begins with a path or with a name to be looked up.
            started: Called with the process id.

        Raises:
            Stopped: The agent stops.
        """
        with _memory_file(stdin) as given, _memory_file() as output, _memory_file() as errors:
            try:
                process = subprocess.Popen(
                    (self.find(argv[0]) or argv[0], *argv[1:]),
                    stdin=given,
                    stdout=output,
                    stderr=errors,
                    start_new_session=True,
                    env={"PATH": self._path, "LC_ALL": "C"},
                )
            except OSError as error:
                return Finished(None, "", f"{argv[0]}: {error.strerror}")
            started(process.pid)
            why = self._wait(process, timeout_s, lambda: _size(output) + _size(errors))
            printed = _printed(output), _printed(errors)
        if why:
            return Finished(None, printed[0], f"{printed[1]}\n{argv[0]} {why}")
        return Finished(process.returncode, *printed)

    def _wait(
        self, process: subprocess.Popen[bytes], timeout_s: float, size: Callable[[], int]
    ) -> str:
        """Wait for the end; return why it was killed, "" when it was not."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(_POLL_S, timeout_s))
                return ""
            if self._stopping.is_set():
                raise Stopped
            if size() > _MOST_BYTES:
                why = f"printed more than {_MOST_BYTES} bytes"
            elif time.monotonic() >= deadline_s:
                why = f"did not end within {timeout_s:.3g} s"
            else:
                continue
            os.killpg(process.pid, 9)
            with contextlib.suppress(subprocess.TimeoutExpired):  # it waits in the kernel
                process.wait(_KILL_WAIT_S)
            return why


@contextlib.contextmanager
def _memory_file(text: str = "") -> Iterator[int]:
    """Open a file in memory that holds ``text``, to be read from its beginning."""
    descriptor = os.memfd_create("hostmesh-program")
    try:
        with open(descriptor, "w", closefd=False, encoding="utf-8") as file:
            file.write(text)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _size(descriptor: int) -> int:
    return os.fstat(descriptor).st_size


def _printed(descriptor: int) -> str:
    return os.pread(descriptor, min(_size(descriptor), _MOST_BYTES), 0).decode("utf-8", "replace")
