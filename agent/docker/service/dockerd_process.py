"""Find the dockerd that runs, by the kernel and systemd, not by its name.

Names prove nothing here: any user may call a process dockerd. Docker is the main process of the
unit that systemd runs it by, else the process of root that listens on its API socket.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.docker.service.socket_path import why_replaceable
from agent.docker.service.systemd import DOCKER_UNIT, FOLDER, Systemd, Unit, number
from agent.programs import ProgramRunner, Runner

__all__ = ["SOCKET", "DaemonProcess", "DockerdFinder"]

SOCKET: Final = Path("/var/run/docker.sock")
_PROC = Path("/proc")
_CONNECT_TIMEOUT_S: Final = 1.0
_ASK_AGAIN_S: Final = 30.0
"""How long a process that was identified is taken for Docker without another question."""
_PEER: Final = struct.Struct("=iII")
"""struct ucred of unix(7)."""
_ROOT: Final = ["0"] * 4


@dataclass(frozen=True, slots=True)
class DaemonProcess:
    """A dockerd that runs.

    Attributes:
        pid: In our PID namespace.
        argv: Its command line.
        age_s: Seconds since it started.
    """

    pid: int
    argv: tuple[str, ...]
    age_s: float


class DockerdFinder:
    """Finds the host's dockerd, by what another user cannot fake.

    One object may be used by several threads: at worst two of them ask the same.

    Args:
        api_socket: The engine's unix socket.
        runner: Runs systemctl.
        systemd: A folder that is there when systemd runs the host.
        proc: Where proc is mounted.
    """

    def __init__(
        self,
        api_socket: Path = SOCKET,
        *,
        runner: Runner | None = None,
        systemd: Path = FOLDER,
        proc: Path = _PROC,
    ) -> None:
        self._socket = api_socket
        self._systemd = Systemd(runner or ProgramRunner(), systemd)
        self._proc = proc
        self._known: tuple[int, int, float] | None = None

    def dockerd(self) -> DaemonProcess | None:
        """Return the host's dockerd, None when there is none or it cannot be identified.

        A dockerd in a container (Docker in Docker) has another socket and is another one.
        """
        known = self._known
        if known is not None:
            pid, started, asked_s = known
            fresh = time.monotonic() - asked_s < _ASK_AGAIN_S
            if fresh and (found := self._read(pid)) and found[1] == started:
                return found[0]
        found = self._find()
        self._known = None if found is None else (found[0].pid, found[1], time.monotonic())
        return found[0] if found else None

    def _find(self) -> tuple[DaemonProcess, int] | None:
        if self._systemd.runs:
            units = self._units(DOCKER_UNIT)
            pid = number(units.get(DOCKER_UNIT, {}), "MainPID") if units else 0
            if pid:
                return self._read(pid)
            # A socket of systemd's is not connected to: that would start Docker.
            sockets = self._units("*.socket") if units else None
            if sockets is None:
                return None
            for unit in sockets.values():
                if unit.get("ActiveState") == "active" and self._socket_is_of(unit):
                    service = unit.get("Triggers", "").partition(" ")[0] or DOCKER_UNIT
                    pid = number((self._units(service) or {}).get(service, {}), "MainPID")
                    return self._read(pid) if pid else None
        pid = self._listener()
        found = self._read(pid) if pid else None
        return found if found and self._is_called_dockerd(pid) else None

    def _units(self, name: str) -> Mapping[str, Unit] | None:
        """Return what systemd says of units, by their names; None when it does not answer."""
        units = self._systemd.show("Id,MainPID,ActiveState,Triggers,Listen", name)
        return None if units is None else {unit["Id"]: unit for unit in units if "Id" in unit}

    def _socket_is_of(self, unit: Mapping[str, str]) -> bool:
        """Return whether a socket unit listens on the engine's socket; it may name it by a link."""
        paths = [line.rpartition(" (")[0] for line in unit.get("Listen", "").splitlines()]
        return os.path.realpath(self._socket) in map(os.path.realpath, filter(None, paths))

    def _listener(self) -> int:
        """Return the process of root that listens on the engine's socket, 0 for none.

        The kernel keeps who called listen(2) (SO_PEERCRED, unix(7)).
        """
        if why_replaceable(self._socket):
            return 0
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(_CONNECT_TIMEOUT_S)
                probe.connect(str(self._socket))
                raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        except OSError:
            return 0
        pid, user, _ = _PEER.unpack(raw)
        return pid if user == 0 else 0

    def _is_called_dockerd(self, pid: int) -> bool:
        """Return whether root's process runs a dockerd, by its executable.

        An agent without CAP_SYS_PTRACE may not read that link. Then the name of root's process
        decides.
        """
        folder = self._proc / str(pid)
        try:
            name = (folder / "exe").readlink().name
        except OSError:
            with contextlib.suppress(OSError):
                return (folder / "comm").read_text("utf-8", "replace").startswith("dockerd")
            return False
        return name.startswith("dockerd")

    def _read(self, pid: int) -> tuple[DaemonProcess, int] | None:
        """Return a process of root with the tick at which it started, None for any other.

        Another process may have got the number since it was read.
        """
        folder = self._proc / str(pid)
        try:
            status = (folder / "status").read_text("utf-8", "replace")
            argv = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
            stat = (folder / "stat").read_text("utf-8", "replace")
            uptime_s = float((self._proc / "uptime").read_text("utf-8").split()[0])
            users = next(line for line in status.splitlines() if line.startswith("Uid:"))
            started = int(stat.rpartition(")")[2].split()[19])
        except (OSError, ValueError, IndexError, StopIteration):  # it ended while we looked
            return None
        if not argv or users.split()[1:] != _ROOT or self._elsewhere(folder):
            return None
        age_s = uptime_s - started / os.sysconf("SC_CLK_TCK")
        return DaemonProcess(pid, tuple(argv), age_s), started

    def _elsewhere(self, folder: Path) -> bool:
        """Return whether the process is known to be in another network namespace than the agent."""
        try:
            return (folder / "ns/net").readlink() != (self._proc / "self/ns/net").readlink()
        except OSError:  # not allowed to look: taken for the host's
            return False
