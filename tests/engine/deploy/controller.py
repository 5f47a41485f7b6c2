"""A machine that deploys: ansible-core, ssh and the package, beside the hosts of a lab."""

from __future__ import annotations

from pathlib import Path

from hostmesh_lab import shell
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions

HOSTS = ("host1", "host2", "host3")
CONTROLLER = "host4"
KEY = "/root/.ssh/id_ed25519"
FOLDER = "/root/hostmesh-mesh"


def key_pair(folder: Path) -> tuple[str, str]:
    """Make a key for ssh; its private and its public half."""
    path = folder / "key"
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(path)]
    shell.run(argv, timeout_s=30).check()
    return path.read_text(), path.with_suffix(".pub").read_text()


def options(name: str, suite: str, public: str) -> LabOptions:
    """Three fresh machines with sshd and no etcd, and one that deploys."""
    fresh = HostOptions(
        systemd=True, agent=False, packages=("openssh-server",), authorized_key=public
    )
    deploys = HostOptions(
        agent=False, docker=False, names=False, packages=("ansible-core", "openssh-client")
    )
    return LabOptions(
        name=name, hosts=4, suite=suite, host=fresh, hosts_differ={CONTROLLER: deploys},
        cidr=None, etcd_members=0,
    )  # fmt: skip


class Controller:
    """Runs hostmesh-deploy of the installed package."""

    def __init__(self, lab: Lab, private: str, package: Path) -> None:
        machine = lab.hosts[CONTROLLER]
        assert isinstance(machine, Host)
        self.machine = machine
        machine.write_file(KEY, private, mode=0o600)
        names = "".join(f"{lab.hosts[name].address} {name}\n" for name in HOSTS)
        machine.write_file("/etc/hosts", f"127.0.0.1 localhost\n{names}")
        machine.path("/root/dist").mkdir(exist_ok=True)
        machine.path(f"/root/dist/{package.name}").write_bytes(package.read_bytes())
        machine.run(["dpkg", "--install", f"/root/dist/{package.name}"], timeout_s=120)

    def deploy(self, *words: str, check: bool = True, timeout_s: float = 400) -> shell.Completed:
        """Run it as an operator does, in root's home."""
        done = self.machine.run(["hostmesh-deploy", *words], check=False, timeout_s=timeout_s)
        print(done.stdout + done.stderr)
        if check:
            done.check()
        return done
