"""Run programs with a deadline; errors quote the end of their output."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hostmesh_lab.errors import CommandFailed

_KEPT_OUTPUT = 600


@dataclass(frozen=True)
class Completed:
    """The output of a program and how it ended."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    def check(self, doing: str = "") -> "Completed":
        """Return itself if the program succeeded; otherwise raise an error that quotes it."""
        if self.returncode == 0:
            return self
        said = tail(self.stderr.strip() or self.stdout.strip())
        raise CommandFailed(
            f"{doing or ' '.join(self.argv)}: exit status {self.returncode}"
            + (f": {said}" if said else "")
        )


def tail(text: str) -> str:
    """Return the last lines of a text, on one line."""
    return " | ".join(text[-_KEPT_OUTPUT:].split("\n"))


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    doing: str = "",
    log: Path | None = None,
) -> Completed:
    """Run a program to its end. With `log`, output goes to that file."""
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(open(log, "ab")) if log else None
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=sink or subprocess.PIPE,
            stderr=subprocess.STDOUT if sink else subprocess.PIPE,
            env=None if env is None else dict(env),
            start_new_session=True,
        )
        out, err = _communicate(process, stdin, timeout_s, doing or " ".join(argv))
    text = tail_of_log(log) if log else ""
    result = Completed(
        tuple(argv),
        process.returncode,
        (out or b"").decode(errors="replace"),
        (err or b"").decode(errors="replace") or text,
    )
    return result.check(doing) if check else result


def _communicate(
    process: "subprocess.Popen[bytes]", stdin: str | None, timeout_s: float, doing: str
) -> tuple[bytes | None, bytes | None]:
    """Wait for the end; on timeout kill the whole session, not only its first process.

    The children of nsenter and unshare would outlive it.
    """
    try:
        return process.communicate(None if stdin is None else stdin.encode(), timeout=timeout_s)
    except subprocess.TimeoutExpired:
        kill_session(process)
        raise CommandFailed(f"{doing}: not done after {timeout_s:g} s") from None
    except BaseException:
        kill_session(process)
        raise


def tail_of_log(log: Path) -> str:
    """Return the end of a log file, for an error message."""
    try:
        return log.read_text(errors="replace")[-_KEPT_OUTPUT:]
    except OSError:
        return ""


def kill_session(process: "subprocess.Popen[bytes]") -> None:
    """Kill a program started in a session of its own, and everything it started there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
