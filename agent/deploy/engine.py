"""Run ansible-playbook, and hand on what it does as events."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.deploy.folder import DeployFolder
from agent.errors import DependencyMissing
from agent.programs import KIT_FOLDERS, kit_folder

__all__ = ["Engine", "Event", "require", "share"]

_END_S: Final = 10.0
_SSH: Final = (
    "-o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3"
    " -o ControlMaster=auto -o ControlPersist=30s"
)


@dataclass(frozen=True)
class Event:
    """A task begins (`task`), or a host has a result of it (`result`).

    Attributes:
        status: Of a result: ok, changed, skipped, failed, ignored, unreachable.
        does, says: What to print when the task begins, and when it changed a host.
        text: What the task printed, or why it failed.
        at: Seconds since 1970.
    """

    kind: str
    task: str
    at: float = 0.0
    host: str = ""
    status: str = ""
    does: str = ""
    says: str = ""
    text: str = ""


def share() -> Path:
    """Return the folder that has ansible/ and etcd/: the clone's, or the package's.

    Raises:
        DependencyMissing: Neither is there.
    """
    if folder := kit_folder("ansible/up.yml"):
        return folder
    places = " or ".join(map(str, KIT_FOLDERS))
    raise DependencyMissing(
        f"the playbooks of hostmesh-deploy are not in {places}",
        hint="install the package hostmesh, or run from a clone: python3 -m agent.deploy",
    )


class Engine:
    """ansible-playbook with the playbooks of Hostmesh.

    Args:
        folder: Has the inventory, and gets the logs.
        ssh_key: A file with a private key; "" for ssh's own choice.
        accept_host_keys: Accept a host key that is not known yet.
    """

    def __init__(self, folder: DeployFolder, ssh_key: str, *, accept_host_keys: bool) -> None:
        self._folder = folder
        self._share = share()
        self._program = _find("ansible-playbook")
        options = [_SSH]
        if ssh_key:
            options.append(f"-o IdentitiesOnly=yes -i {_quoted(ssh_key)}")
        if accept_host_keys:
            options.append("-o StrictHostKeyChecking=accept-new")
        self.ssh_options = " ".join(options)
        # Short: the path of a socket has at most 107 bytes.
        self.sockets = Path(os.environ.get("XDG_RUNTIME_DIR") or Path.home() / ".ansible") / "hm-cp"

    def version(self) -> tuple[int, int]:
        """Return the version of ansible-core.

        Raises:
            DependencyMissing: It does not start.
        """
        done = subprocess.run(
            [self._program, "--version"], capture_output=True, text=True, check=False, timeout=60,
            env=self._environment({}),
        )  # fmt: skip
        found = re.search(r"\[core (\d+)\.(\d+)", done.stdout)
        if found is None:
            raise DependencyMissing(
                f"{self._program} does not say its version: {(done.stderr or done.stdout)[:200]}",
                hint="apt-get install ansible-core",
            )
        return int(found[1]), int(found[2])

    def run(
        self,
        playbook: str,
        handle: Callable[[Event], None],
        *,
        log: Path,
        extra: Mapping[str, str] | None = None,
    ) -> int:
        """Run a playbook to its end; its exit status.

        Args:
            playbook: Its name in deploy/ansible.
            handle: Gets every event.
            log: Gets everything that Ansible says; it is made for this user only.
            extra: More of its environment.
        """
        argv = [
            self._program,
            "--inventory",
            str(self._folder.path / "inventory.json"),
            str(self._share / "ansible" / playbook),
        ]
        with log.open("a") as record:
            record.write(f"== {' '.join(argv)}\n")
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", env=self._environment(extra or {}),
                process_group=0,
            )  # fmt: skip
            try:
                for line in process.stdout or ():
                    record.write(line)
                    record.flush()
                    if event := _event(line):
                        handle(event)
                return process.wait()
            finally:
                _end(process)

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """Return this program's environment, with settings of Ansible for these runs only."""
        plain = {name: text for name, text in os.environ.items() if not name.startswith("ANSIBLE_")}
        return {
            **plain,
            "LC_ALL": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "ANSIBLE_CONFIG": str(self._share / "ansible/deploy.cfg"),
            "ANSIBLE_SSH_ARGS": self.ssh_options,
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.sockets),
            "HOSTMESH_RELAY": str(self._share / "ansible/scripts/relay.sh"),
            **extra,
        }


def _find(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise DependencyMissing(
            f"{name} is not installed on this machine", hint="apt-get install ansible-core"
        )
    return found


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _event(line: str) -> Event | None:
    """Return the event in a line; None for what is only for the log."""
    try:
        raw: dict[str, Any] = json.loads(line)
        kind, task = raw["event"], raw["task"]
    except (ValueError, KeyError, TypeError):
        return None
    texts = (raw.get(name) for name in ("stderr", "module_stderr", "stdout", "module_stdout"))
    said = "\n".join(str(text) for text in texts if text)
    failed = raw.get("status") in ("failed", "unreachable", "ignored")
    text = "\n".join(each for each in (said, str(raw.get("msg", ""))) if each)
    return Event(
        kind=str(kind),
        task=str(task),
        at=float(raw.get("at", 0)),
        host=str(raw.get("host", "")),
        status=str(raw.get("status", "")),
        does=str(raw.get("does", "")),
        says=str(raw.get("says", "")),
        text=text if failed else said,
    )


def _end(process: subprocess.Popen[str]) -> None:
    """End Ansible with all its workers, if it still runs."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def require(*names: str) -> None:
    """Raise an error if a program is missing that the playbooks run on this machine.

    Raises:
        DependencyMissing: It names the first.
    """
    packages = {"ssh": "openssh-client"}
    for name in names:
        if shutil.which(name) is None:
            raise DependencyMissing(
                f"{name} is not installed on this machine",
                hint=f"apt-get install {packages.get(name, name)}",
            )
