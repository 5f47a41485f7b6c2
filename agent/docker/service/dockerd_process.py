"""What the kernel and systemd say of the running dockerd, and the routes Docker avoids.

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
from agent.model.family import Network, read_network
from agent.programs import ProgramRunner, Runner

__all__ = ["SOCKET", "SYSTEMD", "DaemonProcess", "DockerdFinder", "read_routes"]

SOCKET: Final = Path("/var/run/docker.sock")
SYSTEMD: Final = Path("/run/systemd/system")
"""A folder that is there when systemd runs the host."""

_PROC = Path("/proc")
_UNIT: Final = "docker.service"
_QUERY_TIMEOUT_S: Final = 5.0
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
        systemd: Path = SYSTEMD,
        proc: Path = _PROC,
    ) -> None:
        self._socket = api_socket
        self._runner = runner or ProgramRunner()
        self._systemd = systemd
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
        if self._systemd.exists():
            units = self._units(_UNIT)
            pid = _main_pid(units.get(_UNIT, {})) if units else 0
            if pid:
                return self._read(pid)
            # A socket of systemd's is not connected to: that would start Docker.
            sockets = self._units("*.socket") if units else None
            if sockets is None:
                return None
            for unit in sockets.values():
                if unit.get("ActiveState") == "active" and self._socket_is_of(unit):
                    service = unit.get("Triggers", "").partition(" ")[0] or _UNIT
                    pid = _main_pid((self._units(service) or {}).get(service, {}))
                    return self._read(pid) if pid else None
        pid = self._listener()
        found = self._read(pid) if pid else None
        return found if found and self._is_called_dockerd(pid) else None

    def _units(self, name: str) -> Mapping[str, Mapping[str, str]] | None:
        """Return what systemd says of units, by their names; None when it does not answer."""
        wanted = "--property=Id,MainPID,ActiveState,Triggers,Listen"
        shown = self._runner.run(("systemctl", "show", wanted, name), _QUERY_TIMEOUT_S)
        if shown.status != 0:
            return None
        units = [_properties(text) for text in shown.output.split("\n\n")]
        return {unit["Id"]: unit for unit in units if "Id" in unit}

    def _socket_is_of(self, unit: Mapping[str, str]) -> bool:
        """Whether a socket unit listens on the engine's socket; it may name it by a link."""
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
        """Whether root's process runs a dockerd, by its executable.

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
        """Whether the process is known to be in another network namespace than ours."""
        try:
            return (folder / "ns/net").readlink() != (self._proc / "self/ns/net").readlink()
        except OSError:  # not allowed to look: taken for the host's
            return False


def _properties(shown: str) -> Mapping[str, str]:
    """Return a unit's properties; values of one that comes several times are lines."""
    found: dict[str, str] = {}
    for line in shown.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found[name] = f"{found[name]}\n{value}" if name in found else value
    return found


def _main_pid(unit: Mapping[str, str]) -> int:
    value = unit.get("MainPID", "")
    return int(value) if value.isdecimal() else 0


def read_routes(table: Path = _PROC / "net/route") -> tuple[Network, ...]:
    """Return the destinations of the main routing table, the default route left out.

    Only to choose an address for docker0 when it is given back; the mesh's own view of the
    kernel is the kernel room's.
    """
    found = []
    try:
        lines = table.read_text("ascii").splitlines()[1:]
    except OSError:
        return ()
    for line in lines:
        fields = line.split()
        destination, mask = (struct.pack("=I", int(fields[i], 16)) for i in (1, 7))
        if any(mask):
            text = f"{socket.inet_ntoa(destination)}/{socket.inet_ntoa(mask)}"
            found.append(read_network(text, strict=False))
    return tuple(found)
