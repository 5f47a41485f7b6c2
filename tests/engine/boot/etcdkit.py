"""deploy/etcd on booted machines: three members, a host's account, and all of it removed again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.wait import wait_until

UNIT = "hostmesh-etcd.service"
_KIT = Path(__file__).parents[3] / "deploy/etcd"
_FOLDER = "/etc/hostmesh-etcd"
_PKI = "/root/kit/pki"
_CTL = (
    f"ETCDCTL_API=3 ETCDCTL_CACERT={_PKI}/ca.crt ETCDCTL_CERT={_PKI}/admin/etcd.crt"
    f" ETCDCTL_KEY={_PKI}/admin/etcd.key etcdctl"
)
_REMOVE = (
    f"systemctl stop {UNIT}; rm -rf {_FOLDER} /var/lib/hostmesh-etcd /root/kit"
    f" /etc/systemd/system/{UNIT}; systemctl daemon-reload; systemctl reset-failed {UNIT} || true"
)


class Kit:
    """An etcd of the kit beside the lab's own. The first machine is the operator's, too.

    Args:
        hosts: The members by name.
    """

    def __init__(self, hosts: Mapping[str, BootedHost]) -> None:
        self._hosts = hosts
        self._operator = next(iter(hosts.values()))

    def start(self) -> None:
        """Certificates as the script makes them, the unit as it is, and a quorum."""
        script = (_KIT / "hosts.sh").read_text()
        self._operator.write_file("/root/kit/hosts.sh", script, mode=0o755)
        self._run("members", *(f"{name}={host.address}" for name, host in self._hosts.items()))
        for name, host in self._hosts.items():
            self._copy(name, host, _FOLDER)
            host.run(["chown", "-R", "etcd:", _FOLDER])
            host.write_file(f"/etc/systemd/system/{UNIT}", (_KIT / UNIT).read_text())
            host.systemctl("daemon-reload")
            verified = host.run(["systemd-analyze", "verify", "--man=no", UNIT], check=False)
            assert "hostmesh-etcd" not in verified.stdout + verified.stderr
            # Each waits for a quorum before it says READY.
            host.systemctl("start", "--no-block", UNIT)
        for host in self._hosts.values():
            wait_until(lambda host=host: self.healthy(host), 30, f"{host.name}'s member")  # type: ignore[misc]

    def healthy(self, host: BootedHost) -> bool:
        """Whether the member on this machine takes part in decisions."""
        asked = f"{_CTL} --endpoints https://{host.address}:2379 endpoint health"
        made = f"test -e {_PKI}/admin/etcd.crt || /root/kit/hosts.sh --folder {_PKI} list"
        done = self._operator.run(["sh", "-c", f"{made}; {asked}"], check=False, timeout_s=30)
        return done.returncode == 0

    def enable(self) -> None:
        """Refuse everybody without an account."""
        self._run("enable")

    def doctor(self, host: BootedHost) -> dict[str, Any]:
        """Add a host as its operator does; return what its doctor says of this etcd then."""
        host_id = host.run(["hostmesh-agent", "--host-id"]).stdout.strip()
        self._run("add", host.name, "--id", host_id)
        self._copy(f"hosts/{host.name}", host, "/root/kit/own")
        settings = host.read_file("/root/kit/own/agent.toml")
        moved = settings.replace("/etc/hostmesh/", "/root/kit/own/")
        host.write_file("/root/kit/own/agent.toml", moved)
        done = host.run(
            ["agentctl", "--settings", "/root/kit/own/agent.toml", "doctor", "-o", "json"],
            check=False, timeout_s=60,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def remove(self) -> None:
        """The machines are as before."""
        for host in self._hosts.values():
            host.run(["sh", "-c", _REMOVE], timeout_s=60)

    def _run(self, *words: str) -> None:
        command = ["/root/kit/hosts.sh", "--folder", _PKI, *words]
        self._operator.run(["env", "HOSTMESH_DAYS=2", *command], timeout_s=60)

    def _copy(self, name: str, host: BootedHost, folder: str) -> None:
        for file in self._operator.run(["ls", f"{_PKI}/{name}"]).stdout.split():
            text = self._operator.read_file(f"{_PKI}/{name}/{file}")
            host.write_file(f"{folder}/{file}", text, mode=0o600)
