"""What /proc shows: the running dockerd, its command line, and the routes Docker avoids."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

__all__ = ["DaemonProcess", "Flags", "ProcessTable", "parse_flags", "read_routes"]

_PROC = Path("/proc")

_VALUES = {
    "-b": "bridge",
    "--bridge": "bridge",
    "--bip": "bip",
    "--default-gateway": "default-gateway",
    "--fixed-cidr": "fixed-cidr",
    "--mtu": "mtu",
    "-H": "hosts",
    "--host": "hosts",
    "--default-address-pool": "default-address-pools",
    "--default-network-opt": "default-network-opts",
    "--config-file": "config-file",
}
_SHORT = {"b": "bridge", "D": "debug", "G": "group", "H": "host", "l": "log-level"}
_SHORT |= {"p": "pidfile", "s": "storage-driver"}
_PLURALS = {
    "authorization-plugin": "authorization-plugins",
    "default-address-pool": "default-address-pools",
    "default-network-opt": "default-network-opts",
    "default-ulimit": "default-ulimits",
    "dns-opt": "dns-opts",
    "exec-opt": "exec-opts",
    "host": "hosts",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "log-opt": "log-opts",
    "node-generic-resource": "node-generic-resources",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}
"""Flags that may be given more than once have a key of another name."""

_SWITCHES = {"--iptables": "iptables", "--live-restore": "live-restore"}


@dataclass(frozen=True, slots=True)
class Flags:
    """Flags of a dockerd, under daemon.json's names.

    Attributes:
        values: Of those that matter to us, as given, in order.
        names: Of all that were given.
    """

    values: tuple[tuple[str, str], ...] = ()
    names: tuple[str, ...] = ()

    def get(self, name: str) -> tuple[str, ...]:
        """Return all values that were given for ``name``."""
        return tuple(value for key, value in self.values if key == name)


def parse_flags(argv: Sequence[str]) -> Flags:
    """Return the flags in a dockerd command line, ``argv[0]`` included.

    Understands ``--bip=X``, ``--bip X``, ``-b X``, ``-bX`` and ``-H X``, as dockerd does.
    """
    found: list[tuple[str, str]] = []
    names: list[str] = []
    rest = list(argv[1:])
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word.startswith("-"):
            given = name[2:] if name.startswith("--") else _SHORT.get(word[1:2], "")
            names.append(_PLURALS.get(given, given))
        if name in _SWITCHES:
            found.append((_SWITCHES[name], value if equals else "true"))
        elif name in _VALUES and equals:
            found.append((_VALUES[name], value))
        elif name in _VALUES and rest:
            found.append((_VALUES[name], rest.pop(0)))
        elif word[:2] in _VALUES and not word.startswith("--") and len(word) > len("-b"):
            found.append((_VALUES[word[:2]], word[2:]))
    return Flags(tuple(found), tuple(dict.fromkeys(filter(None, names))))


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


class ProcessTable:
    """Finds dockerd in /proc.

    Args:
        proc: Where proc is mounted.
    """

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc

    def dockerd(self) -> DaemonProcess | None:
        """Return the host's dockerd, None when none is seen.

        A dockerd inside a container (Docker in Docker) is seen too; it has a network
        namespace of its own and is passed over where that can be told. Of several left the
        oldest is taken.
        """
        found = [process for pid in self._pids() if (process := self._read(pid))]
        return max(found, key=lambda process: process.age_s, default=None)

    def dockerd_pid(self) -> int | None:
        """Return the process id of :meth:`dockerd`."""
        found = self.dockerd()
        return found.pid if found else None

    def _pids(self) -> list[int]:
        try:
            return [int(entry.name) for entry in self._proc.iterdir() if entry.name.isdigit()]
        except OSError:
            return []

    def _read(self, pid: int) -> DaemonProcess | None:
        folder = self._proc / str(pid)
        try:
            if (folder / "comm").read_text("utf-8", "replace").strip() != "dockerd":
                return None
            argv = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
            stat = (folder / "stat").read_text("utf-8", "replace")
            uptime_s = float((self._proc / "uptime").read_text("utf-8").split()[0])
        except (OSError, ValueError, IndexError):  # it ended while we looked
            return None
        if not argv or self._elsewhere(folder):
            return None
        ticks = int(stat.rpartition(")")[2].split()[19])
        return DaemonProcess(pid, tuple(argv), uptime_s - ticks / os.sysconf("SC_CLK_TCK"))

    def _elsewhere(self, folder: Path) -> bool:
        """Whether the process is known to be in another network namespace than ours."""
        try:
            return (folder / "ns/net").readlink() != (self._proc / "self/ns/net").readlink()
        except OSError:  # not allowed to look: taken for the host's
            return False


def read_routes(table: Path = _PROC / "net/route") -> tuple[IPv4Network, ...]:
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
            found.append(IPv4Network(text, strict=False))
    return tuple(found)
