"""Share what the boot tests look at: settings, starts of Docker, all that a removal must undo."""

from __future__ import annotations

import difflib
import itertools
import re
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from hostmesh_lab import shell
from hostmesh_lab.lab import Lab
from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.machines.capture import Pinger
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.machines.machine import Machine
from hostmesh_lab.parallel import in_parallel
from hostmesh_lab.wait import wait_until

FRESH = HostOptions(systemd=True, agent=False)
"""A Debian with Docker and without us."""
CIDR = "10.64.0.0/10"
_EMPTY_TABLE = re.compile(r"^\*\w+\n(:[A-Z]+ ACCEPT *\n)+COMMIT\n", re.MULTILINE)
_LEFT_BEHIND = r"""
cat /etc/docker/daemon.json 2>&1
ls -A /etc/docker 2>&1
echo "== routes"; ip -4 route show table all | grep -v '^broadcast\|^local' | sort
echo "== rules"; ip rule
echo "== addresses"; ip -4 -br address | sed 's/@if[0-9]*//' | sort
echo "== ipsets"; ipset list -n
for variant in nft legacy; do
    echo "== iptables $variant"
    iptables-$variant-save 2>/dev/null | grep -v '^#' | sed 's/\[[0-9]*:[0-9]*\]//'
done
echo "== sysctls"
sysctl -a 2>/dev/null | grep '^net\.\(ipv4\|bridge\)' |
    grep -v 'veth\|_mem\|fastopen_key\|base_reachable'
echo "== units"; systemctl list-unit-files --no-legend --no-pager
echo "== failed"; systemctl list-units --failed --plain --no-legend --no-pager
echo "== users"; cat /etc/passwd /etc/group
echo "== files"
find /etc /usr /opt /root /run/hostmesh /var/lib /var/cache -xdev \
    -not -path '/var/lib/dpkg/*' -not -path '/var/cache/debconf/*' -not -path '/root/hostmesh*' \
    -not -path '/var/lib/systemd/*' -not -path '*/__pycache__*' 2>/dev/null | sort
"""


def settings(lab: Lab, extra: str = "") -> str:
    """agent.toml as a first host has it: where etcd is, and the mesh to create.

    There was none before, so there is nothing to wait for.
    """
    endpoints = ", ".join(f'"{url}"' for url in lab.endpoints())
    return (
        f'[etcd]\nendpoints = [{endpoints}]\n[mesh]\ncidr = "{CIDR}"\n'
        f"[lease]\nempty_cluster_grace_s = 0\n{extra}"
    )


def make_fresh(lab: Lab) -> None:
    """Take containers, Hostmesh and the mesh's records off a lab that other tests have used."""
    in_parallel(clear, [host for host in lab.hosts.values() if host.proc()])
    lab.etcdctl("del", "--prefix", "/hostmesh/")


def clear(host: BootedHost) -> None:
    """Take containers and Hostmesh off a host, where there are any."""
    if names := host.docker("ps", "--all", "--quiet").stdout.split():
        host.docker("rm", "--force", *names)
    if not is_gone(host, "/var/lib/dpkg/info/hostmesh.list"):
        host.run(["dpkg", "--purge", "hostmesh"], timeout_s=120)


def docker_starts(host: BootedHost) -> int:
    """How often dockerd was started in this boot of the machine."""
    said = [entry.get("MESSAGE", "") for entry in host.journal("docker")]
    return len([line for line in said if isinstance(line, str) and 'msg="Starting up"' in line])


def left_behind(host: BootedHost) -> list[str]:
    """Everything on a host that Hostmesh could have changed, as lines.

    Tables of iptables that hold nothing are left out: looking at one makes it.
    """
    text = host.run(["sh", "-c", _LEFT_BEHIND], timeout_s=60).stdout
    return _EMPTY_TABLE.sub("", text).splitlines()


def lasting_differences(host: BootedHost, before: list[str], *, patience_s: float) -> list[str]:
    """Return the lines that came or went, and still differ after a while."""
    deadline_s = time.monotonic() + patience_s
    while True:
        found = [
            line
            for line in difflib.unified_diff(before, left_behind(host), n=0, lineterm="")
            if not line.startswith(("---", "+++", "@@"))
        ]
        if not found or time.monotonic() > deadline_s:
            return found
        time.sleep(0.5)


def main_pid(host: BootedHost) -> int:
    """The agent's process, as the machine counts."""
    return int(host.unit("agent", "MainPID")["MainPID"])


def install_seed(host: BootedHost, text: str) -> None:
    """Do what cloud-init does with `write_files` before the network is up."""
    host.write_file("/var/lib/cloud/seed/agent.toml", text)
    host.write_file(
        "/etc/systemd/system/seed.service",
        "[Unit]\nDefaultDependencies=no\nBefore=network-online.target\n"
        "ConditionPathExists=!/etc/hostmesh/seeded\n"
        "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        "ExecStart=install -D -m 600 /var/lib/cloud/seed/agent.toml /etc/hostmesh/agent.toml\n"
        "ExecStart=touch /etc/hostmesh/seeded\n",
    )
    host.write_file(
        "/etc/systemd/system/network-online.target.d/seed.conf", "[Unit]\nWants=seed.service\n"
    )


class Watched:
    """A ping every 10 ms from a container to a container, over the time of a ``with``."""

    def __init__(self, source: BootedHost, container: str, target: object) -> None:
        self._start = (source, target, container)

    def __enter__(self) -> Pinger:
        source, target, container = self._start
        self.pinger = Pinger(source, target, container=container, every_s=0.01)
        self.pinger.wait_reply(10, f"a ping to {target}")
        return self.pinger

    def __exit__(self, *_: object) -> None:
        self.pinger.stop()


_KNOCK = """
import socket, sys, time
while True:
    with socket.socket() as one:
        one.settimeout(float(sys.argv[3]))
        said = "asked"
        try:
            one.connect((sys.argv[1], int(sys.argv[2])))
            said = "answered, and cut off"
            # To the end: a server whose queue is full of such that were not served loses packets.
            one.settimeout(5)
            one.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            while one.recv(4096):
                said = "answered"
        except ConnectionRefusedError:
            said = "answered by a refusal"
        except OSError:
            pass
        print(said, flush=True)
    time.sleep(float(sys.argv[4]))
"""


class Knocking:
    """A machine that asks for a TCP port again and again, over the time of a ``with``.

    Args:
        wait_s: How long it waits for an answer.
        pause_s: Between two attempts.

    Attributes:
        asked: How often so far.
        answered: Which of the attempts were.
        failed: Which of them got no page, and when.
    """

    def __init__(
        self, source: Machine, target: object, port: int, wait_s: float = 0.05, pause_s: float = 0
    ) -> None:
        self.asked = 0
        self.answered: list[int] = []
        self.failed: list[str] = []
        words = [str(each) for each in (target, port, wait_s, pause_s)]
        self._process = source.popen(["/usr/bin/python3", "-I", "-c", _KNOCK, *words])
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        shell.kill_session(self._process)
        self._thread.join(timeout=5)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.asked += 1
            if line.startswith(b"answered"):
                self.answered.append(self.asked)
            if line != b"answered\n":
                at = datetime.now(UTC).time()
                self.failed.append(f"{line.decode().strip()} {self.asked} at {at}")

    def wait_asked(self, number: int) -> None:
        """Return when so many attempts are over."""
        wait_until(lambda: self.asked >= number, 60, f"attempt {number}", every_s=0.05)


def runs(host: BootedHost, container: str) -> bool:
    """Whether a container runs, on a machine that may not be up yet."""
    asked = ["inspect", "-f", "{{.State.Running}}", container]
    return host.proc() is not None and host.docker(*asked, check=False).stdout.strip() == "true"


def longest_silence_s(pinger: Pinger) -> float:
    """The longest time between two replies."""
    times = [at for at, _ in pinger.replies]
    return max((b - a for a, b in itertools.pairwise(times)), default=0.0)


def until_reply_s(source: BootedHost, target: object, since_s: float, timeout_s: float) -> float:
    """Seconds from a moment (monotonic) to the first reply."""
    wait_until(lambda: source.ping(target, wait_s=1), timeout_s, f"{target} answers", every_s=0.05)
    return time.monotonic() - since_s


def package_version(host: BootedHost) -> str:
    """The version of the package that is installed."""
    return host.run(["dpkg-query", "-W", "-f", "${Version}", "hostmesh"]).stdout


def version_of(package: Path) -> str:
    """The version of a package in a file."""
    return shell.run(["dpkg-deb", "--field", str(package), "Version"], timeout_s=30).stdout.strip()


def is_gone(host: BootedHost, path: str) -> bool:
    """Whether a file is not there."""
    return host.run(["test", "-e", path], check=False).returncode != 0


def seed_package(host: BootedHost, package: Path, text: str) -> None:
    """Make the disk of a machine that was never booted one with package and seed."""
    host.preinstall(package)
    install_seed(host, text)
