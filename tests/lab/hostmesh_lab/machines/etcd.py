"""A member of the lab's etcd, and what tests do to it."""

import base64
import json
import signal
import uuid
from dataclasses import replace
from typing import Any

from hostmesh_lab import shell
from hostmesh_lab.errors import LabError
from hostmesh_lab.machines.config import Service
from hostmesh_lab.machines.machine import Machine
from hostmesh_lab.underlay.topology import in_url

_BACKUP = "/root/backup.db"


class EtcdMember(Machine):
    """A machine that runs one etcd. Its data stay when it is stopped, killed or switched off."""

    @property
    def endpoint(self) -> str:
        return f"http://{in_url(self.address)}:2379"

    def start(self) -> None:
        """Start etcd; returns when it serves clients (with three members: when two of them run)."""
        self.service("start", "etcd")

    def stop(self) -> None:
        """End etcd in order."""
        self.service("stop", "etcd")

    def kill_etcd(self) -> None:
        """kill -9 etcd. The machine goes on and refuses connections."""
        self.service("kill", "etcd")

    def pause(self) -> None:
        """Freeze etcd: connections stay open and get no answer."""
        self.service("signal", "etcd", number=int(signal.SIGSTOP))

    def resume(self) -> None:
        """Let a paused etcd go on."""
        self.service("signal", "etcd", number=int(signal.SIGCONT))

    def replace_with_empty(self) -> None:
        """Put a new, empty cluster with another cluster id in the only member's place."""
        service = self.config.services[0]
        if "," in service.argv[service.argv.index("--initial-cluster") + 1]:
            raise LabError("only the one member of a lab can be replaced by an empty one")
        self._with_token(f"lab-{uuid.uuid4().hex[:8]}", service)
        self.kill()
        self.boot()

    def back_up(self) -> None:
        """Save a snapshot of the store on its disk, for `restore`."""
        self.etcdctl("snapshot", "save", _BACKUP)

    def restore(self) -> None:
        """Put the store as it was at `back_up` in the place of the only member's, by etcdctl.

        With the same token: the cluster id is the same, only the past is another.
        """
        service = self.config.services[0]
        argv = list(service.argv)
        data = argv.index("--data-dir") + 1
        argv[data] = f"{argv[data]}-{uuid.uuid4().hex[:8]}"
        again = [
            word
            for flag in (
                "--name",
                "--initial-cluster",
                "--initial-cluster-token",
                "--initial-advertise-peer-urls",
                "--data-dir",
            )
            for word in (flag, argv[argv.index(flag) + 1])
        ]
        self.etcdctl("snapshot", "restore", _BACKUP, *again)
        self.config = replace(self.config, services=[replace(service, argv=argv)])
        self.save()
        self.kill()
        self.boot()

    def _with_token(self, token: str, service: Service) -> None:
        """Another token makes another cluster id; the data of the old one stay beside the new."""
        argv = list(service.argv)
        data = argv.index("--data-dir") + 1
        argv[data] = argv[data].rsplit("/", 1)[0] + "/" + token
        argv[argv.index("--initial-cluster-token") + 1] = token
        self.config = replace(self.config, services=[replace(service, argv=argv)])
        self.save()

    def etcdctl(
        self, *args: str, check: bool = True, timeout_s: float = 20.0, stdin: str | None = None
    ) -> shell.Completed:
        """Run etcdctl (version 3) against this member."""
        return self.run(
            ["etcdctl", f"--endpoints={self.endpoint}", *args],
            timeout_s=timeout_s,
            check=check,
            stdin=stdin,
            env={"ETCDCTL_API": "3"},
        )

    def keys(self, prefix: str) -> dict[str, str]:
        """Return all keys below a prefix, with their values."""
        answer: dict[str, Any] = json.loads(
            self.etcdctl("get", "--prefix", prefix, "-w", "json").stdout
        )
        return {
            base64.b64decode(item["key"]).decode(): base64.b64decode(item.get("value", "")).decode(
                errors="replace"
            )
            for item in answer.get("kvs", [])
        }
