"""Start wireguard-go where the kernel has no wireguard: a program that outlives the agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from agent.programs import ProgramRunner

__all__ = ["Userspace"]

_log = structlog.get_logger(__name__)

_UNIT: Final = "hostmesh-wireguard.service"
_COMMAND: Final = ("systemctl", "start", "--no-block", _UNIT)
_DEADLINE_S: Final = 10.0


class Userspace:
    """Starts the unit in which wireguard-go makes the device and gives it the owner mark.

    Args:
        command: Program and arguments that start it; empty: systemd starts the unit.
    """

    def __init__(self, command: Sequence[str] = (), runner: ProgramRunner | None = None) -> None:
        self._command = tuple(command) or _COMMAND
        self._runner = runner or ProgramRunner()

    def start(self) -> str:
        """Ask for the device, and return what became of it. It appears some time later."""
        done = self._runner.run(self._command, _DEADLINE_S)
        what = " ".join(self._command)
        _log.info("wireguard-go-started", command=what, status=done.status)
        if done.status == 0:
            return f"{what} was run, and the device is waited for"
        return f"{what} failed: {done.last_lines}"
