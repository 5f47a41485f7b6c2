"""The demo's steps in a mesh whose etcd has TLS, one account for each host, and owner records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hostmesh_lab import toml
from hostmesh_lab.demo.run import STEPS
from hostmesh_lab.demo.stage import Stage
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.etcd import EtcdMember
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.machines.machine import Machine
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

LAB = LabOptions(
    name="secured", hosts=3, host=HostOptions(reject_forward=True, agent=False), cidr=None
)
LAB_LAST = True

_KIT = Path(__file__).parents[3] / "deploy/etcd/hosts.sh"
_PKI = "/root/pki"
_FOLDER = "/etc/hostmesh-etcd"
_OPERATOR = "/root/operator"
_RESTART = {"docker": {"restart_command": ["/usr/local/sbin/lab-service", "restart", "docker"]}}


def copy(source: Machine, folder: str, target: Machine, into: str) -> None:
    for name in source.run(["ls", folder]).stdout.split():
        target.write_file(f"{into}/{name}", source.read_file(f"{folder}/{name}"), mode=0o600)


class Credentials:
    """hosts.sh on the machine of etcd."""

    def __init__(self, etcd: EtcdMember) -> None:
        self._etcd = etcd
        etcd.write_file("/root/hosts.sh", _KIT.read_text(), mode=0o755)
        self.run("members", f"etcd1={etcd.address}")
        copy(etcd, f"{_PKI}/etcd1", etcd, _FOLDER)

    def run(self, *words: str) -> None:
        self._etcd.run(["/root/hosts.sh", "--folder", _PKI, *words], timeout_s=60)

    def close_etcd(self) -> None:
        """Start etcd as the kit's unit does: TLS, and certificates as accounts."""
        service = self._etcd.config.services[0]
        argv = [
            each.replace("http://", "https://") if before.endswith("client-urls") else each
            for before, each in zip(["", *service.argv], service.argv, strict=False)
        ]
        argv += [f"--cert-file={_FOLDER}/server.crt", f"--key-file={_FOLDER}/server.key"]
        argv += ["--client-cert-auth", f"--trusted-ca-file={_FOLDER}/clients-ca.crt"]
        self._etcd.config = replace(self._etcd.config, services=[replace(service, argv=argv)])
        self._etcd.save()
        self._etcd.kill()
        self._etcd.boot()

    def give(self, host: Host) -> None:
        """Add a host as an operator does: one command, one folder to copy."""
        self.run("add", host.name, "--id", host.run(["hostmesh-agent", "--host-id"]).stdout.strip())
        copy(self._etcd, f"{_PKI}/hosts/{host.name}", host, "/etc/hostmesh")
        settings = host.read_file("/etc/hostmesh/agent.toml")
        host.write_file("/etc/hostmesh/agent.toml", f"{settings}\n{toml.dumps(_RESTART)}")

    def act_as_operator(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the demo's commands on this host that change the mesh be the operator's."""
        copy(self._etcd, f"{_PKI}/operator", host, _OPERATOR)
        plain = host.agentctl

        def agentctl(*words: str, **how: Any) -> Any:  # noqa: ANN401 - handed on
            operator = ["--as-operator", f"{_OPERATOR}/operator.toml"]
            changes = words[:1] in {("config",), ("reserve",), ("remove",), ("network",)}
            return plain(*(operator if changes else ()), *words, **how)

        monkeypatch.setattr(host, "agentctl", agentctl)


def agreed(hosts: Sequence[Host]) -> bool:
    return all(len(host.leases()) == len(hosts) for host in hosts)


def test_the_demos_steps_hold_with_per_host_credentials(
    mesh: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = Credentials(mesh.etcd["etcd1"])
    credentials.close_etcd()
    for host in mesh.hosts.values():
        credentials.give(host)
    credentials.run("enable")
    first = mesh.hosts["host1"]
    credentials.act_as_operator(first, monkeypatch)
    join = mesh.join

    def joining(options: HostOptions) -> Host:
        host = join(options)
        credentials.give(host)
        return host

    monkeypatch.setattr(mesh, "join", joining)
    for host in mesh.hosts.values():
        host.set_autostart(agent=True)
        host.start_agent()
    stage = Stage(mesh, print)
    for title, step in STEPS:
        print(title)
        step(stage)
        if len(stage.containers) == 0:  # the mesh has begun
            first.agentctl("config", "set", "--owners", "required")
            wait_until(lambda: agreed(list(mesh.hosts.values())), 20, "every host's lease")
    assert [host.conditions(open_etcd=True) for host in mesh.hosts.values()] == [{}] * 4
