"""A machine that deploys, beside the hosts of a lab: ansible-core, ssh, the package or a clone."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hostmesh_lab import shell
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines import booted
from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.machines.kinds import HostOptions

from deploy.deb.build import build
from tests.engine.conftest import running_lab

NAMES = {"host1": "web1", "host2": "web2", "host3": "web3", "host5": "web4"}
"""Names of the hosts for their operator, as in docs/quickstart.md."""

CLONE = Path(__file__).parents[3]
PROGRAM = ("hostmesh-deploy",)
KEY = "/root/.ssh/id_ed25519"
FOLDER = "/root/hostmesh-mesh"
UP = (
    "up", "--hosts", "root@web1,root@web2,root@web3", "--with-etcd", "web1,web2,web3",
    "--accept-host-keys", "--yes",
)  # fmt: skip
_CONTROLLER = "host4"
_RESET = (
    "docker ps -aq | xargs -r docker rm -f >/dev/null; dpkg --purge hostmesh; "
    "systemctl stop hostmesh-etcd; systemctl reset-failed docker; systemctl restart docker; "
    "rm -rf /etc/hostmesh /etc/hostmesh-etcd /var/lib/hostmesh /var/lib/hostmesh-etcd "
    "/var/cache/hostmesh.deb /etc/systemd/system/hostmesh-etcd.service; systemctl daemon-reload"
)


def key_pair(folder: Path) -> tuple[str, str]:
    """Make a key for ssh; its private and its public half."""
    path = folder / "key"
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(path)]
    shell.run(argv, timeout_s=30).check()
    return path.read_text(), path.with_suffix(".pub").read_text()


@contextlib.contextmanager
def deployment(
    folder: Path,
    name: str,
    suite: str,
    program: Sequence[str] = PROGRAM,
    *,
    of_hosts: Sequence[str] = (),
    of_controller: Sequence[str] = (),
) -> Iterator[tuple[Controller, Path]]:
    """Build the package and start the lab: the machine that deploys, and the package."""
    if why := booted.why_not():
        pytest.skip(f"NO MACHINE IS BOOTED: {why}")
    package = build(suite, folder / "dist", say=print)
    private, public = key_pair(folder)
    with running_lab(options(name, suite, public, of_hosts, of_controller)) as lab:
        yield Controller(lab, private, program), package


def options(
    name: str,
    suite: str,
    public: str,
    of_hosts: Sequence[str] = (),
    of_controller: Sequence[str] = (),
) -> LabOptions:
    """Three fresh machines with sshd and no etcd, and one that deploys; more packages for each."""
    fresh = HostOptions(
        systemd=True, agent=False, packages=("openssh-server", *of_hosts), authorized_key=public
    )
    deploys = HostOptions(
        agent=False, docker=False, names=False,
        packages=("ansible-core", "openssh-client", *of_controller),
    )  # fmt: skip
    return LabOptions(
        name=name, hosts=4, suite=suite, host=fresh, hosts_differ={_CONTROLLER: deploys},
        cidr=None, etcd_members=0,
    )  # fmt: skip


class Controller:
    """Runs hostmesh-deploy: the program, or ``python3 -m agent.deploy`` of a clone."""

    def __init__(self, lab: Lab, private: str, program: Sequence[str] = PROGRAM) -> None:
        self.lab = lab
        self.machine = lab.hosts[_CONTROLLER]
        self._program = program
        self.machine.write_file(KEY, private, mode=0o600)
        self.name_hosts()

    def install(self, package: Path) -> None:
        """Install the package, and keep it in ./dist for the hosts."""
        self.machine.path("/root/dist").mkdir(exist_ok=True)
        self.machine.path(f"/root/dist/{package.name}").write_bytes(package.read_bytes())
        self.machine.run(["dpkg", "--install", f"/root/dist/{package.name}"], timeout_s=120)

    def name_hosts(self) -> None:
        """Give the hosts their names, there and for this machine."""
        lines = ["127.0.0.1 localhost"]
        for name, host in self.lab.hosts.items():
            if name in NAMES:
                lines.append(f"{host.address} {NAMES[name]}")
                host.run(["hostname", NAMES[name]])
        self.machine.write_file("/etc/hosts", "\n".join(lines) + "\n")

    def host(self, name: str) -> BootedHost:
        """Return a host by its operator's name."""
        found = self.lab.hosts[next(key for key, each in NAMES.items() if each == name)]
        assert isinstance(found, BootedHost)
        return found

    def hosts(self) -> list[BootedHost]:
        """Return the three hosts that are there from the beginning."""
        return [self.host(name) for name in ("web1", "web2", "web3")]

    def deploy(self, *words: str, check: bool = True, timeout_s: float = 500) -> str:
        """Run it as an operator does, in root's home; what it said."""
        done = self.machine.run([*self._program, *words], check=False, timeout_s=timeout_s)
        print(done.stdout + done.stderr)
        if check:
            done.check()
        return done.stdout + done.stderr

    def deploy_until(self, results: int) -> bool:
        """Run `up`, and kill it with all its programs when that many tasks have ended.

        Returns:
            Whether it was killed; it ended before otherwise.
        """
        process = self.machine.popen(
            ["sh", "-c", f"echo $$; exec hostmesh-deploy {' '.join(UP)} 2>&1"]
        )
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        seen: set[str] = set()
        killed = False
        for task in self._tasks(pid):
            seen.add(task)
            if len(seen) > results:
                # Ansible has a process group of its own.
                self.machine.run(["sh", "-c", _KILL.format(pid=pid)], check=False)
                killed = True
                break
        print(process.stdout.read().decode(errors="replace"))
        process.wait(60)
        return killed

    def _tasks(self, pid: int) -> Iterator[str]:
        """Yield each task of the playbook that changes hosts, as it begins."""
        follow = f"tail -n +1 --pid={pid} -F {FOLDER}/log/*-{pid}-up.log 2>/dev/null"
        wait = f"until ls {FOLDER}/log/*-{pid}-up.log; do kill -0 {pid} || exit; done"
        tail = self.machine.popen(["sh", "-c", f"{wait} >/dev/null 2>&1; {follow}"])
        try:
            assert tail.stdout is not None
            changing = False
            for raw in tail.stdout:
                line = raw.decode(errors="replace")
                changing = changing or "up.yml" in line
                if changing and (found := re.search(r'"event": "task".*"task": "([^"]*)"', line)):
                    yield found[1]
        finally:
            with contextlib.suppress(ProcessLookupError):
                shell.kill_session(tail)

    def reset(self) -> None:
        """Take Hostmesh and etcd off all hosts, and forget the mesh."""
        for host in self.hosts():
            host.run(["sh", "-c", _RESET], timeout_s=120, check=False)
        self.machine.run(["rm", "-rf", FOLDER])


_KILL = "for child in $(pgrep -P {pid}); do kill -9 -- -$child; done; kill -9 {pid}"
