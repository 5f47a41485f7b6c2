"""Keep what a deployment knows of its mesh in a folder: the description, the lock, the logs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.disk import replace_file
from agent.errors import HostmeshError, Refused, UsageError

__all__ = ["DeployFolder", "Host", "Mesh"]

_DESCRIPTION = "mesh.json"
_FORMAT = 1
_LOGS_KEPT = 20
_LOCK_S = 60.0
_LOCK_POLL_S = 0.5


@dataclass(frozen=True)
class Host:
    """A host as the operator named it.

    Attributes:
        name: Its name in inventory, in the PKI and in what is printed.
        address: What ssh connects to.
        user: The user of ssh; "" for that of ssh's own configuration.
        port: The port of ssh; None for that of ssh's own configuration.
        member_address: Its address as a member of etcd; "" for a host that is none.
    """

    name: str
    address: str
    user: str = ""
    port: int | None = None
    member_address: str = ""

    @property
    def destination(self) -> str:
        """Return what ssh takes: USER@ADDRESS."""
        return f"{self.user}@{self.address}" if self.user else self.address


@dataclass(frozen=True)
class Mesh:
    """A mesh as `up` was asked to make it; an empty text is "not given"."""

    hosts: tuple[Host, ...] = ()
    own_etcd: bool = False
    etcd: tuple[str, ...] = ()
    etcd_ca: str = ""
    etcd_user: str = ""
    etcd_password_file: str = ""
    cidr: str = ""
    backend: str = ""
    settings: str = ""
    packages: tuple[str, ...] = ()
    apt: str = ""
    apt_key: str = ""
    ssh_key: str = ""
    accept_host_keys: bool = False

    @property
    def members(self) -> tuple[Host, ...]:
        """Return the hosts that are members of its etcd."""
        return tuple(host for host in self.hosts if host.member_address)

    def host(self, name: str) -> Host:
        """Return the host of that name.

        Raises:
            UsageError: There is none.
        """
        for host in self.hosts:
            if name in (host.name, host.address, host.destination):
                return host
        known = ", ".join(host.name for host in self.hosts)
        raise UsageError(f"there is no host {name} in this mesh", hint=f"one of: {known}")

    def without(self, gone: Host) -> Mesh:
        """Return the mesh without a host."""
        return replace(self, hosts=tuple(host for host in self.hosts if host != gone))


class DeployFolder:
    """The folder of one mesh: private, and used by one run at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pki = path / "pki"

    def create(self) -> None:
        """Make the folder, readable by this user only.

        Raises:
            HostmeshError: It cannot be made, or others may enter it.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = self.path.stat().st_mode & 0o077
            (self.path / "log").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise HostmeshError(f"{self.path} cannot be made: {error.strerror}") from error
        if mode:
            raise Refused(
                f"{self.path} has keys in it and may be entered by other users",
                hint=f"chmod 700 {self.path}",
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock. Workers of Ansible do not: those of a killed run may linger.

        Raises:
            Refused: Another run has it for longer than a cut-off run needs to end.
        """
        descriptor = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        deadline_s = time.monotonic() + _LOCK_S
        said = False
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline_s:
                        raise Refused(
                            f"another hostmesh-deploy works on {self.path}",
                            hint="wait until it has ended",
                        ) from None
                if not said:
                    print(f"waiting until another run on {self.path} has ended (up to a minute)")
                    said = True
                time.sleep(_LOCK_POLL_S)
            yield
        finally:
            os.close(descriptor)

    def load(self) -> Mesh | None:
        """Return the mesh that was described here; None where there is none yet.

        Raises:
            HostmeshError: The description cannot be read.
        """
        file = self.path / _DESCRIPTION
        try:
            return _mesh(json.loads(file.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise HostmeshError(
                f"{file} cannot be read: {error}",
                hint="use the hostmesh-deploy that wrote it, or another --folder",
            ) from error

    def save(self, mesh: Mesh) -> None:
        """Keep the description, so that the next run needs no options."""
        text = json.dumps({"format": _FORMAT, **asdict(mesh)}, indent=1) + "\n"
        self.write(_DESCRIPTION, text)

    def write(self, name: str, text: str) -> Path:
        """Write a file that only this user reads, in one step."""
        path = self.path / name
        replace_file(path, [text.encode()], 0o600)
        return path

    def new_log(self, verb: str) -> Path:
        """Return the path of a new, empty log; the oldest ones are deleted."""
        logs = sorted((self.path / "log").glob("*.log"))
        for old in logs[: max(0, len(logs) - _LOGS_KEPT + 1)]:
            old.unlink()
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        path = self.path / "log" / f"{stamp}-{os.getpid()}-{verb}.log"
        path.touch(mode=0o600)
        return path


def _mesh(raw: Mapping[str, Any]) -> Mesh:
    if raw["format"] != _FORMAT:
        raise ValueError("another version wrote it")
    known = {field.name for field in fields(Mesh)}
    values = {name: value for name, value in raw.items() if name in known}
    for name in ("etcd", "packages"):
        values[name] = tuple(values.get(name, ()))
    values["hosts"] = tuple(Host(**host) for host in raw["hosts"])
    return Mesh(**values)
