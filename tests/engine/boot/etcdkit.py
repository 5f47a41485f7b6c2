"""deploy/etcd on booted machines: three members, their accounts, and all of it taken away again."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.wait import wait_until

UNIT = "hostmesh-etcd.service"
_KIT = Path(__file__).parents[3] / "deploy/etcd"
_FOLDER = "/etc/hostmesh-etcd"
_CTL = f"ETCDCTL_API=3 ETCDCTL_CACERT={_FOLDER}/ca.crt etcdctl"
_REMOVE = (
    f"systemctl stop {UNIT}; rm -rf {_FOLDER} /var/lib/hostmesh-etcd /root/kit"
    f" /etc/systemd/system/{UNIT}; systemctl daemon-reload; systemctl reset-failed {UNIT} || true"
)


class Kit:
    """An etcd of the kit beside the lab's own.

    Args:
        folder: Of this test, for certificates.
        hosts: The members by name.
    """

    def __init__(self, folder: Path, hosts: Mapping[str, BootedHost]) -> None:
        self._folder = folder
        self._hosts = hosts
        self._user = ""

    def start(self) -> None:
        """Certificates as the script makes them, the unit as it is, and a quorum."""
        members = [f"{name}={host.address}" for name, host in self._hosts.items()]
        pki = self._folder / "pki"
        subprocess.run(
            [_KIT / "make-certs.sh", pki, *members], check=True, capture_output=True,
            env={**os.environ, "HOSTMESH_DAYS": "2"},
        )  # fmt: skip
        for name, host in self._hosts.items():
            for file in (pki / name).iterdir():
                host.write_file(f"{_FOLDER}/{file.name}", file.read_text(), mode=0o600)
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
        asked = f"{_CTL} {self._user} --endpoints https://{host.address}:2379 endpoint health"
        return host.run(["sh", "-c", asked], check=False, timeout_s=15).returncode == 0

    def make_accounts(self) -> None:
        """roles.sh on one of the machines."""
        host = next(iter(self._hosts.values()))
        host.write_file("/root/kit/roles.sh", (_KIT / "roles.sh").read_text(), mode=0o755)
        where = f"ETCDCTL_ENDPOINTS=https://{host.address}:2379 ETCDCTL_CACERT={_FOLDER}/ca.crt"
        host.run(["sh", "-c", f"{where} /root/kit/roles.sh /root/kit/passwords"], timeout_s=60)
        self._user = f"--user root:{host.read_file('/root/kit/passwords/root').strip()}"

    def doctor(self, host: BootedHost) -> dict[str, Any]:
        """What the doctor says on a machine of this etcd, with an agent's account."""
        first = next(iter(self._hosts.values()))
        host.write_file("/root/kit/password", first.read_file("/root/kit/passwords/agent"))
        endpoints = ",".join(f"https://{each.address}:2379" for each in self._hosts.values())
        settings = {
            "etcd.endpoints": endpoints, "etcd.ca_file": f"{_FOLDER}/ca.crt",
            "etcd.username": "hostmesh-agent", "etcd.password_file": "/root/kit/password",
        }  # fmt: skip
        words = [word for name, text in settings.items() for word in ("--set", f"{name}={text}")]
        done = host.run(["agentctl", "doctor", "-o", "json", *words], check=False, timeout_s=60)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def remove(self) -> None:
        """The machines are as before."""
        for host in self._hosts.values():
            host.run(["sh", "-c", _REMOVE], timeout_s=60)
