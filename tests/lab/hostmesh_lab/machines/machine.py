"""A machine of the lab: namespaces, a file tree, cables to links, services under a PID 1.

Hosts, etcd members, the gateway and the stranger are all machines; they differ in their services.
A machine's configuration lies beside its disk, so that any later command finds and boots it again.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hostmesh_lab import cgroups, paths, shell
from hostmesh_lab.errors import LabError
from hostmesh_lab.machines.config import Bind, Config
from hostmesh_lab.processes import Proc
from hostmesh_lab.underlay import net
from hostmesh_lab.underlay.topology import Port

_GUEST = Path(__file__).parents[1] / "guest"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT_TIMEOUT_S = 30.0
_LAB_SERVICE = '#!/bin/sh\nexec /usr/bin/python3 -I -B /run/lab/lab_service.py "$@"\n'
_GONE_S = 20.0


class Machine:
    """One machine, booted or not. Any number of processes may hold an object for the same one."""

    def __init__(self, config: Config, holder: Proc) -> None:
        self.config = config
        self.name = config.name
        self.address = config.address
        self.disk = paths.disk_root() / config.lab / config.name
        self._holder = holder
        self._pid_file = paths.state_root() / config.lab / f"{config.name}.json"
        self._group = cgroups.lab_group(config.lab) / config.name
        self._first_step = _GUEST / "boot.py"

    # -- its disk

    def create_disk(self, files: Mapping[str, str]) -> None:
        """Make the disk with an identity of its own and these files on it."""
        for folder in ("upper", "work", "root", "docker", "containerd", "log"):
            (self.disk / folder).mkdir(parents=True)
        everything = {
            "/etc/machine-id": uuid.uuid4().hex + "\n",
            "/etc/hostname": self.name + "\n",
            "/etc/hosts": f"127.0.0.1 localhost\n{self.address or '127.0.1.1'} {self.name}\n",
            "/etc/resolv.conf": "",
            "/usr/local/sbin/lab-service": _LAB_SERVICE,
            **files,
        }
        for path, text in everything.items():
            self.write_file(path, text, mode=0o755 if "/sbin/" in path else 0o644)
        self.save()

    def save(self) -> None:
        """Keep the configuration for later boots."""
        _write_atomically(self.disk / "machine.json", json.dumps(asdict(self.config), indent=1))

    def path(self, inside: str) -> Path:
        """Where a file of this machine is seen from outside, whether it runs or not. A file that it
        never wrote is found only while it runs."""
        proc = self.proc()
        if inside.startswith("/var/log/"):
            return self.disk / "log" / inside.removeprefix("/var/log/")
        root = Path(f"/proc/{proc.pid}/root") if proc else self.disk / "upper"
        return root / inside.lstrip("/")

    def write_file(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Put a file on its disk, as an operator would with an editor."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def read_file(self, inside: str) -> str:
        """Return the text of one of its files."""
        return self.path(inside).read_text(errors="replace")

    def log(self, service: str) -> str:
        """Return a service's log since the disk was made (`init` for the machine itself)."""
        path = self.disk / "log" / f"{service}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # -- on and off

    def proc(self) -> Proc | None:
        """Return its PID 1 as this machine sees it, or None if it is off."""
        try:
            raw = json.loads(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        proc = Proc(raw["pid"], raw["start"])
        return proc if proc.alive() else None

    def pid(self) -> int:
        """Return the pid of its PID 1, for nsenter and /proc; an error if it is off."""
        proc = self.proc()
        if proc is None:
            raise LabError(f"{self.name} is off", f"start {self.name}")
        return proc.pid

    def boot(self, timeout_s: float = 120.0) -> None:
        """Switch it on and return when its services are up; an error says which is not."""
        self.power_on()
        self.wait_booted(timeout_s)

    def power_on(self) -> None:
        """Switch it on without waiting for its services."""
        if self.proc() is not None:
            raise LabError(f"{self.name} runs already")
        self._clear_group()
        spec = self._write_spec()
        cgroups.create(self._group / "outer")
        cgroups.create(self._group / "root")
        process = self._spawn(spec)
        try:
            self._follow_boot(process)
        except BaseException:
            self.kill()
            shell.kill_session(process)
            raise

    def _write_spec(self) -> Path:
        boot_id = self.disk / "boot_id"
        boot_id.write_text(f"{uuid.uuid4()}\n")
        binds = [
            Bind(str(self.disk / "docker"), "/var/lib/docker", read_only=False),
            Bind(str(self.disk / "containerd"), "/var/lib/containerd", read_only=False),
            Bind(str(self.disk / "log"), "/var/log", read_only=False),
            Bind(str(_GUEST / "init.py"), "/run/lab/init.py"),
            Bind(str(_GUEST / "lab_service.py"), "/run/lab/lab_service.py"),
            Bind(str(self.disk / "spec.json"), "/run/lab/spec.json"),
            *(item for item in self.config.binds if Path(item.source).exists()),
        ]
        spec = {
            "hostname": self.name,
            "cgroup": str(self._group / "root"),
            "layers": self.config.layers,
            **{name: str(self.disk / name) for name in ("root", "upper", "work")},
            "boot_id_file": str(boot_id),
            "binds": [asdict(item) for item in binds],
            "console": str(self.disk / "log/console.log"),
            "sysctls": self.config.sysctls,
            "commands": self.config.commands,
            "services": [{**asdict(item), "log": item.log} for item in self.config.services],
        }
        path = self.disk / "spec.json"
        _write_atomically(path, json.dumps(spec))
        return path

    def _spawn(self, spec: Path) -> "subprocess.Popen[bytes]":
        with open(self.disk / "log/boot.log", "ab") as log:
            return subprocess.Popen(
                [
                    *net.in_group(self._group / "outer"),
                    "nsenter",
                    f"--pid=/proc/{self._holder.pid}/ns/pid",
                    "--",
                    "unshare",
                    "--fork",
                    "--kill-child",
                    "--pid",
                    "--mount",
                    "--net",
                    "--uts",
                    "--ipc",
                    "--propagation",
                    "private",
                    "--",
                    sys.executable,
                    "-I",
                    "-S",
                    "-B",
                    str(self._first_step),
                    str(spec),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )

    def _follow_boot(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdout as said, process.stdin as go:
            line = said.readline().decode().strip()
            if not line.isdigit():
                raise LabError(f"{self.name} does not boot: {line or self._boot_log()}")
            proc = Proc.of(int(line))
            _write_atomically(self._pid_file, json.dumps({"pid": proc.pid, "start": proc.start}))
            net.plug(self._holder, proc, self.config.ports)
            line = said.readline().decode().strip()
            if line != "ready":
                raise LabError(f"{self.name} does not boot: {line or self._boot_log()}")
            go.write(b"go\n")

    def _boot_log(self) -> str:
        return shell.tail(self.log("boot").strip()) or "no word from it"

    def wait_booted(self, timeout_s: float = 120.0) -> None:
        """Return when its services are up; an error says which is not."""
        reply = self.ask("wait-boot", timeout_s=timeout_s)
        if not reply["ok"]:
            raise LabError(f"{self.name}: {reply['message']}")

    def kill(self) -> None:
        """Power cut: every process of it is gone at once, its disk stays.

        A group counts as empty when its last process begins to exit; the first process of a
        PID namespace then still waits for the kernel to end the others.
        """
        proc = self.proc()
        self._clear_group()
        if proc is not None and not proc.wait_gone(_GONE_S):
            raise LabError(f"{self.name}: its first process does not end within {_GONE_S:g} s")
        self._pid_file.unlink(missing_ok=True)
        if self._holder.alive():
            net.unplug(self._holder, self.config.ports)

    def shut_down(self, timeout_s: float = 60.0) -> None:
        """Switch it off in order: services are stopped first."""
        proc = self.proc()
        if proc is None:
            return
        self.ask("shutdown")
        if not proc.wait_gone(timeout_s):
            raise LabError(f"{self.name} does not shut down within {timeout_s:g} s")
        self.kill()

    def _clear_group(self) -> None:
        cgroups.kill(self._group)
        cgroups.remove(self._group)

    def destroy(self) -> None:
        """Switch it off and throw its disk away."""
        self.kill()
        shutil.rmtree(self.disk)

    def cable(self, state: str, device: str = "eth0") -> None:
        """Set a cable: `down` loses the carrier, `silent` drops all unnoticed, `up` mends both."""
        net.set_cable(self._holder, self.port(device), state)

    def port(self, device: str) -> Port:
        """Return the card of that name, with its addresses."""
        for port in self.config.ports:
            if port.device == device:
                return port
        known = ", ".join(port.device for port in self.config.ports)
        raise LabError(f"{self.name} has no {device}", f"one of {known}")

    @contextlib.contextmanager
    def source_check(self, device: str = "eth0") -> Iterator[None]:
        """Let a card's port drop what does not come from the card's own address, meanwhile."""
        image, port = Path(self.config.layers[-1]), self.port(device)
        net.check_sources(self._holder, image, port, on=True)
        try:
            yield
        finally:
            net.check_sources(self._holder, image, port, on=False)

    # -- its services

    def ask(self, verb: str, timeout_s: float = 120.0, **request: Any) -> dict[str, Any]:
        """Ask its PID 1 something; the reply has at least `ok` and `message`."""
        path = f"/proc/{self.pid()}/root/run/lab/init.sock"
        deadline = time.monotonic() + min(timeout_s, _BOOT_TIMEOUT_S)
        line = json.dumps({"verb": verb, "timeout_s": timeout_s, **request}).encode() + b"\n"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s + 5)
            while True:
                try:
                    connection.connect(path)
                    break
                except OSError as error:
                    if time.monotonic() > deadline or self.proc() is None:
                        raise LabError(
                            f"{self.name}: its PID 1 does not answer: {error.strerror}"
                        ) from error
                    time.sleep(0.02)
            try:
                connection.sendall(line)
                answer = connection.makefile("rb").readline()
            except OSError as error:
                raise LabError(f"{self.name}: its PID 1 does not answer: {error}") from error
        if not answer:
            raise LabError(f"{self.name} went off meanwhile")
        reply: dict[str, Any] = json.loads(answer)
        return reply

    def service(self, verb: str, name: str, **request: Any) -> None:
        """`start`, `stop`, `restart`, `kill` or `signal` a service; an error says why not."""
        reply = self.ask(verb, service=name, **request)
        if not reply["ok"]:
            raise LabError(f"{self.name}: {reply['message']}")

    def services(self) -> dict[str, dict[str, Any]]:
        """State, pid (inside) and number of starts of each service."""
        found: dict[str, dict[str, Any]] = self.ask("status")["services"]
        return found

    # -- running programs on it

    def enter(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> list[str]:
        """Return the command line that runs a program on this machine."""
        settings = {
            "PATH": _PATH,
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "TERM": os.environ.get("TERM", "dumb"),
            **(env or {}),
        }
        return [
            *net.in_group(self._group / "root/exec"),
            "nsenter",
            f"--target={self.pid()}",
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
            "--wdns=/root",
            "--",
            "/usr/bin/env",
            "-i",
            *(f"{name}={value}" for name, value in settings.items()),
            *argv,
        ]

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 60.0,
        check: bool = True,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> shell.Completed:
        """Run a program on this machine to its end."""
        doing = f"{self.name}: {' '.join(argv)}"
        return shell.run(
            self.enter(argv, env), timeout_s=timeout_s, check=check, stdin=stdin, doing=doing
        )

    def popen(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start a program on this machine and go on; end it with `shell.kill_session`."""
        return subprocess.Popen(
            self.enter(argv, env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.write_text(text)
    temporary.rename(path)
