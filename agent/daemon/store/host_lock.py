"""Lock the host for one agent, or for one verb that works without an agent.

The lock is the kernel's (flock(2)): it ends with the process that holds it, and a process that
hangs or is stopped still holds it. The control socket is no proof: an agent that is busy or stopped
does not answer there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Self

from agent.errors import Refused, StateError
from agent.settings.place import LOCK_NAME

__all__ = ["HostLock", "holder_of"]

_MOST_BYTES = 100


class HostLock:
    """Held from the beginning to :meth:`release` or the process's end.

    Args:
        run_dir: ``agent.run_dir``.
        holder: The program that takes it, for messages: "hostmesh-agent", "agentctl leave".

    Raises:
        Refused: Another process holds it.
        StateError: The file cannot be made.
    """

    def __init__(self, run_dir: Path, holder: str) -> None:
        path = run_dir / LOCK_NAME
        try:
            run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(
                f"{path} cannot be opened: {error.strerror}", hint="check agent.run_dir"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            other = _holder(self._file)
            os.close(self._file)
            raise Refused(
                f"{holder} is not possible while {other} runs on this host: it holds {path}",
                hint="stop the agent first: systemctl stop hostmesh-agent; routes and rules stay",
            ) from error
        with contextlib.suppress(OSError):  # a full disk: who it is is only for the message
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{holder} (pid {os.getpid()})".encode(), 0)

    def release(self) -> None:
        """Release the lock. The file stays: another process may be about to lock it."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_how: object) -> None:
        self.release()


def _holder(file: int) -> str:
    with contextlib.suppress(OSError):
        if text := os.pread(file, _MOST_BYTES, 0).decode("utf-8", "replace").strip():
            return text
    return "another hostmesh-agent"


def holder_of(run_dir: Path) -> int | None:
    """Return the pid of the lock's holder, None when there is none or it is unknown.

    Looks only (proc_locks(5)): to try the lock would be in the way of an agent that starts.
    """
    try:
        file = (run_dir / LOCK_NAME).stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    place = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    for line in lines:
        words = line.split()
        if words[1:2] == ["FLOCK"] and words[5:6] == [place]:
            return int(words[4])
    return None
