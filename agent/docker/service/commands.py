"""Programs that are run with a deadline, without a shell, and what they left."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Protocol

__all__ = ["CommandResult", "Commands", "Runner", "Stopped"]

_POLL_S = 0.1
_TAIL_LINES = 8
_TAIL_CHARACTERS = 800
_TAIL_BYTES = 16 * 1024
_KILL_WAIT_S = 2.0


class Stopped(Exception):
    """The wait was ended because the agent stops."""


class CommandResult:
    """What a command left: exit status (None when it was cut short) and its last lines."""

    def __init__(self, status: int | None, output: str) -> None:
        self.status = status
        self.output = output

    @property
    def last_lines(self) -> str:
        """The last lines of output, joined by " / " for a message of one line."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return " / ".join(lines[-_TAIL_LINES:])[-_TAIL_CHARACTERS:]


class Runner(Protocol):
    """Runs programs with a deadline."""

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult:
        """Run and wait; status None when the deadline passed or it could not be started."""


class Commands:
    """Runs real programs; output goes to an unlinked file, so that it cannot fill a pipe.

    Args:
        stopping: Ends a wait early with :class:`Stopped`; the program is left to finish.
    """

    def __init__(self, stopping: threading.Event | None = None) -> None:
        self._stopping = stopping or threading.Event()

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult:
        """Run ``argv`` without a shell; killed with its process group after ``timeout_s``.

        Raises:
            Stopped: The agent stops.
        """
        with tempfile.TemporaryFile() as output:
            try:
                process = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                return CommandResult(None, f"{argv[0]}: {error.strerror}")
            status = self._wait(process, timeout_s)
            size = output.seek(0, os.SEEK_END)
            output.seek(max(0, size - _TAIL_BYTES))
            text = output.read().decode("utf-8", "replace")
        if status is None:
            text += f"\nno end within {timeout_s:g} s"
        return CommandResult(status, text)

    def _wait(self, process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                return process.wait(min(_POLL_S, timeout_s))
            except subprocess.TimeoutExpired:
                if self._stopping.is_set():
                    raise Stopped from None
                if time.monotonic() < deadline_s:
                    continue
            os.killpg(process.pid, 9)
            with contextlib.suppress(subprocess.TimeoutExpired):  # it waits in the kernel
                process.wait(_KILL_WAIT_S)
            return None
