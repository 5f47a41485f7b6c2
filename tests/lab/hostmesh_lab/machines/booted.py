"""A host that boots for real: systemd as PID 1, Docker and the agent from their units.

systemd-nspawn runs it inside the namespaces that any machine of the lab has, so that its cable,
its power cut and its disk are the same. What a unit file promises can only be seen here.
"""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hostmesh_lab import paths, shell
from hostmesh_lab.errors import LabError
from hostmesh_lab.filesystems import images, repository
from hostmesh_lab.machines.config import Config
from hostmesh_lab.machines.host import Host
from hostmesh_lab.processes import Proc
from hostmesh_lab.wait import wait_until

_GUEST = Path(__file__).parents[1] / "guest"
_UNITS = {"agent": "hostmesh-agent.service", "docker": "docker.service"}
_OUR_UNITS = (
    "hostmesh-agent.service",
    "hostmesh-docker-gate.service",
    "hostmesh-wireguard.service",
    "hostmesh-check.service",
    "hostmesh-dns@.service",
    "hostmesh-dns-53.socket",
    "hostmesh-dns-54.socket",
)
_NOT_WANTED = ("hostmesh-wireguard.service", "hostmesh-check.service", "hostmesh-dns@.service")
"""The agent starts the first two, the sockets start the other."""
_POWER_OFF = signal.SIGRTMIN + 4
_BOOTED = ("running", "degraded")
# etcd-server starts one on every machine that has the package; the lab's are elsewhere.
_MASKED = ("etcd.service", "apt-daily.timer", "apt-daily-upgrade.timer")
_LAB_IMAGE_UNIT = """\
[Unit]
Description=The lab's Docker image
After=docker.service

[Service]
Type=oneshot
RemainAfterExit=yes
"""


def why_not() -> str:
    """Why this machine cannot boot such hosts, "" when it can."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    if shutil.which("systemd-nspawn", path=path) is None:
        return "systemd-nspawn is not installed: apt-get install systemd-container"
    return ""


class BootedHost(Host):
    """A Docker host with systemd as PID 1. Its services are units; its log is the journal."""

    def __init__(self, config: Config, holder: Proc) -> None:
        super().__init__(config, holder)
        self._first_step = _GUEST / "nspawn.py"

    # -- its disk

    def create_disk(self, files: Mapping[str, str]) -> None:
        """Make the disk: a Debian with Docker, where packages may start what they bring."""
        units = {"lab-image.service": self._image_unit(), "lab-first.service": self._first_unit()}
        if any(item.name == "agent" and item.autostart for item in self.config.services):
            clone = paths.clone_root() / "systemd"
            units |= {name: (clone / name).read_text() for name in _OUR_UNITS}
        wanted = [name for name in units if name not in _NOT_WANTED]
        wants = "[Unit]\nWants=" + " ".join(wanted) + "\n"
        super().create_disk(
            {
                **{f"/etc/systemd/system/{name}": text for name, text in units.items()},
                "/etc/systemd/system/multi-user.target.d/lab.conf": wants,
                **files,
            }
        )
        self.write_file("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 0\n", mode=0o755)
        (self.disk / "log/journal").mkdir()
        if "/etc/hostmesh/agent.toml" not in files:
            # The image has these folders for the lab's other hosts; a fresh Debian has not.
            for folder in ("etc/docker", "etc/hostmesh"):
                _hide(self.disk / "upper" / folder)
        for name in _MASKED:
            (self.disk / "upper/etc/systemd/system" / name).symlink_to("/dev/null")

    def _image_unit(self) -> str:
        docker = next(each for each in self.config.services if each.name == "docker")
        loads = "".join(f"ExecStart=/bin/sh -c '{argv[-1]}'\n" for argv in docker.afterwards)
        return _LAB_IMAGE_UNIT + loads

    def _first_unit(self) -> str:
        lines = "".join(f"ExecStart={' '.join(argv)}\n" for argv in self.config.commands)
        return (
            "[Unit]\nDescription=What the lab sets up first\n"
            "Before=docker.service hostmesh-agent.service\n\n"
            f"[Service]\nType=oneshot\nRemainAfterExit=yes\n{lines}"
        )

    def log(self, service: str) -> str:
        """Return a unit's log since the disk was made; `init` is the whole journal."""
        if self.proc() is None:
            return super().log("console")
        unit = [] if service == "init" else ["-u", _unit(service)]
        argv = ["journalctl", "--no-pager", "-q", "-o", "short-precise", *unit]
        return self.run(argv, check=False, timeout_s=30).stdout

    def journal(self, service: str, *options: str) -> list[dict[str, Any]]:
        """Return a unit's entries of this boot as the journal has them."""
        argv = ["journalctl", "--no-pager", "-q", "-b", "-o", "json", "-u", _unit(service)]
        lines = self.run([*argv, *options], timeout_s=30).stdout.splitlines()
        return [json.loads(line) for line in lines]

    # -- on and off

    def _follow_boot(self, process: "subprocess.Popen[bytes]") -> None:
        super()._follow_boot(process)
        outer = super().proc()
        if outer is None:
            raise LabError(f"{self.name} does not boot: {self._boot_log()}")
        inner = wait_until(lambda: _first_process(outer), 30, f"{self.name}: systemd as PID 1")
        assert inner is not None
        record = {"pid": inner.pid, "start": inner.start, "outer": [outer.pid, outer.start]}
        self._pid_file.write_text(json.dumps(record))

    def _outer(self) -> Proc | None:
        """systemd-nspawn, which ends after the machine."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            return Proc(*json.loads(self._pid_file.read_text())["outer"])
        return None

    def wait_booted(self, timeout_s: float = 120.0) -> None:
        """Return when every job of the boot is done; units that failed are an error."""
        state = wait_until(
            lambda: self.system_state() in _BOOTED, timeout_s, f"{self.name}: booted", every_s=0.2
        )
        assert state
        failed = self.systemctl("list-units", "--failed", "--plain", "--no-legend").stdout.strip()
        if failed:
            raise LabError(f"{self.name}: units failed: {failed}")

    def system_state(self) -> str:
        """Return systemd's state: starting, running, degraded, stopping."""
        return self.systemctl("is-system-running", check=False).stdout.strip()

    def shut_down(self, timeout_s: float = 60.0) -> None:
        """Switch it off in order: units are stopped first."""
        proc, outer = self.proc(), self._outer()
        if proc is not None:
            proc.send(_POWER_OFF)
            if not proc.wait_gone(timeout_s):
                raise LabError(f"{self.name} does not shut down within {timeout_s:g} s")
        if outer is not None and not outer.wait_gone(timeout_s):
            raise LabError(f"{self.name}: systemd-nspawn does not end within {timeout_s:g} s")
        self.kill()

    def kill(self) -> None:
        """Power cut."""
        outer = self._outer()
        super().kill()
        if outer is not None and not outer.wait_gone(20):
            raise LabError(f"{self.name}: systemd-nspawn does not end")

    def reboot(self, timeout_s: float = 120.0) -> float:
        """Shut it down and boot it; seconds from the order to the end of the boot."""
        started = time.monotonic()
        self.shut_down()
        self.boot(timeout_s)
        return time.monotonic() - started

    # -- its units

    def systemctl(self, *args: str, check: bool = True) -> shell.Completed:
        """Run systemctl on this host."""
        return self.run(["systemctl", "--no-pager", *args], check=check, timeout_s=120)

    def unit(self, service: str, *names: str) -> dict[str, str]:
        """Properties of a unit, as `systemctl show` has them."""
        wanted = [f"--property={name}" for name in names]
        lines = self.systemctl("show", _unit(service), *wanted).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def drop_in(self, service: str, text: str) -> None:
        """Give a unit a drop-in, as an operator would; for the next start of it."""
        self.write_file(f"/etc/systemd/system/{_unit(service)}.d/test.conf", text)
        if self.proc() is not None:
            self.systemctl("daemon-reload")

    def service(self, verb: str, name: str, **request: Any) -> None:
        """`start`, `stop`, `restart`, `kill` or `signal` a service; an error says why not."""
        unit = _unit(name)
        if verb == "signal":
            number = str(int(request["number"]))
            self.systemctl("kill", f"--signal={number}", "--kill-whom=main", unit)
        elif verb == "kill":
            self.systemctl("kill", "--signal=9", "--kill-whom=main", unit)
            self.systemctl("stop", unit)
        else:
            self.systemctl(verb, unit)

    def services(self) -> dict[str, dict[str, Any]]:
        """State, pid (inside) and number of restarts of each service."""
        found = {}
        for name in _UNITS:
            shown = self.unit(name, "ActiveState", "MainPID", "NRestarts")
            found[name] = {
                "state": shown.get("ActiveState", ""),
                "pid": int(shown.get("MainPID", 0)),
                "starts": int(shown.get("NRestarts", 0)) + 1,
            }
        return found

    def ask(self, verb: str, timeout_s: float = 0.0, **request: Any) -> dict[str, Any]:
        """There is no program of the lab's to ask."""
        asked = {"verb": verb, "timeout_s": timeout_s, **request}
        raise LabError(f"{self.name} has systemd as PID 1, which takes no {asked}")

    # -- packages. There is no mirror in the lab: dpkg needs none, apt reads a folder

    def copy_in(self, package: Path) -> str:
        """Put a file on its disk, under /root; return its name there."""
        target = self.path(f"/root/{package.name}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package, target)
        return f"/root/{package.name}"

    def install(self, package: Path) -> str:
        """Install a package as an operator would, and return what was said."""
        done = self.run(["dpkg", "--install", self.copy_in(package)], timeout_s=120, env=_APT)
        return done.stdout + done.stderr

    def add_repository(self, packages: Sequence[Path]) -> None:
        """Give apt these packages, in a folder of this host, and no other source."""
        repository.write(self.path(repository.PLACE), packages)
        self.write_file("/etc/apt/sources.list", repository.SOURCE)
        self.apt("update")

    def apt(self, *args: str) -> str:
        """Run apt-get on this host, and return what it said."""
        done = self.run(["apt-get", "-q", "-y", *args], timeout_s=120, env=_APT)
        return done.stdout + done.stderr

    def preinstall(self, package: Path) -> None:
        """Install a package on the disk while the machine is off, as one makes a cloud's image."""
        disk = {name: str(self.disk / name) for name in ("upper", "work")}
        overlay = f"lowerdir={':'.join(self.config.layers)},upperdir={disk['upper']}"
        images.in_chroot(
            self.disk / "root",
            f"dpkg --install {self.copy_in(package)}",
            self.disk / "log/preinstall.log",
            doing=f"{self.name}: installing {package.name} into the image",
            mounts=f'mount -t overlay overlay -o "{overlay},workdir={disk["work"]}" "$0"',
        )


_APT = {"DEBIAN_FRONTEND": "noninteractive"}


def _hide(path: Path) -> None:
    """Let an overlay not show what lies below (a whiteout)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def _unit(service: str) -> str:
    return _UNITS.get(service, service)


def _first_process(outer: Proc) -> Proc | None:
    """The child of systemd-nspawn that is PID 1 of its own namespace and has become systemd."""
    try:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
    except OSError:
        raise LabError("systemd-nspawn ended") from None
    for child in children:
        with contextlib.suppress(OSError, LabError):
            status = Path(f"/proc/{child}/status").read_text()
            namespaced = next(x for x in status.splitlines() if x.startswith("NSpid:")).split()
            if namespaced[-1] == "1" and status.startswith("Name:\tsystemd\n"):
                return Proc.of(int(child))
    if not outer.alive():
        raise LabError("systemd-nspawn ended")
    return None
