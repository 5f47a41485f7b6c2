"""Processes by identity: a pid that the kernel has given to another process is never killed."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass

from hostmesh_lab.errors import LabError


@dataclass(frozen=True)
class Proc:
    """A process: its pid and when it started, in the kernel's ticks since boot."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> "Proc":
        start = start_time(pid)
        if start is None:
            raise LabError(f"process {pid} is gone")
        return cls(pid, start)

    def alive(self) -> bool:
        """Return whether this very process runs (a zombie does not)."""
        return start_time(self.pid) == self.start

    def send(self, number: int) -> None:
        """Send a signal if the process is still this one."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait_gone(self, timeout_s: float) -> bool:
        """Return whether it ended within the time."""
        deadline = time.monotonic() + timeout_s
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


def start_time(pid: int) -> int | None:
    """Return when a process started, or None if there is no such process or only its zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def machine_boot_id() -> str:
    """Names this run of the machine: start times mean nothing after a reboot."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def require_root() -> None:
    """Refuse early: nothing of the lab works without root."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root", "sudo, or run as root")


def die_on_sigterm() -> None:
    """Make SIGTERM and SIGHUP end the program the way Ctrl-C does, so that it cleans up."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
