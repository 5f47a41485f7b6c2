"""How long drift of each kind lasts: from another program's change to the agent's repair.

    .venv/bin/python -m tests.bench.control_path.drift [--quick]

A lab host with Docker whose mesh uses vxlan and has 200 more hosts in etcd. Times are those of the
kernel's notifications: of the deletion, and of the object that is there again. Members of a set and
the rules of the firewall have no such notifications: a program looks for them all the time.
The 99th percentile is that of each round of 50 deletions; of what is repaired by a timer it is the
longest.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from hostmesh_lab import shell
from hostmesh_lab.lab import CIDR, Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions

from tests.bench.control_path.peers import subnet_of
from tests.bench.harness import Bench
from tests.bench.program import Options, main
from tests.bench.statistic import Goal
from tests.waiting import eventually

_LEASES = 200
_OF_ROUND = 50
_GOAL_S = 0.1
_RULE_GOAL_S, _TIMER_GOAL_S = 1.0, 6.0
_WITHIN_S = 30
_NO_FIGHT_S = 4
"""A device that is deleted more often is in a fight, and repaired later."""
_LINK = "hm-vxlan"
_SET = f"hostmesh-in-{_LINK}"
_MONITORS = (["ip", "monitor", "route", "neigh", "link"], ["bridge", "monitor", "fdb"])
_OWN = "203.0.113.1"
_PYTHON = "/opt/hostmesh/venv/bin/python"
_WAIT_FOR = """
import subprocess, sys, time
remove, look = sys.argv[1].split(), sys.argv[2].split()
def there():
    done = subprocess.run(look, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.returncode, done.stdout
before = there()
subprocess.run(remove, check=True)
began_s = time.monotonic()
while there() != before:
    if time.monotonic() - began_s > 60:
        sys.exit("not repaired")
    time.sleep(0.005)
print(time.monotonic() - began_s)
"""
"""Deletes, and looks until all is again as it was."""


class Changes:
    """The kernel's notifications on a host, each with the time at which it was read."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lines: list[tuple[float, str]] = []
        self._changed = threading.Condition()
        self._programs = [host.popen(["stdbuf", "-oL", *each]) for each in _MONITORS]
        for each in self._programs:
            threading.Thread(target=self._read, args=(each,), daemon=True).start()

    def _read(self, program: subprocess.Popen[bytes]) -> None:
        assert program.stdout is not None
        for line in program.stdout:
            with self._changed:
                self._lines.append((time.monotonic(), f" {line.decode().strip()} "))
                self._changed.notify_all()

    def listening(self) -> bool:
        """Change a route of its own; return whether a change of it was seen."""
        for verb in ("replace", "del"):
            self._host.run(["ip", "route", verb, _OWN, "dev", "lo"])
        with self._changed:
            return self._changed.wait_for(lambda: any(_OWN in each for _, each in self._lines), 0.5)

    def repair(self, command: str, of: Sequence[str], again: Sequence[str] = ()) -> float:
        """Run a command that deletes; return the seconds from that to what is there again.

        Args:
            command: Deletes one object.
            of: Words of the line that says so.
            again: Words of the line that says that all is there again; those of ``of``.
        """
        with self._changed:
            self._lines.clear()
        self._host.run(command.split())
        with self._changed:
            found = self._changed.wait_for(lambda: self._took_s(of, again or of), _WITHIN_S)
        if not found:
            raise TimeoutError(f"no repair of {' '.join(of)} within {_WITHIN_S} s")
        return found

    def _took_s(self, of: Sequence[str], again: Sequence[str]) -> float | None:
        gone_s: float | None = None
        for at_s, line in self._lines:
            deleted = line.startswith(" Deleted ")
            if gone_s is None and deleted and all(f" {word} " in line for word in of):
                gone_s = at_s
            elif gone_s is not None and not deleted and all(f" {word} " in line for word in again):
                return at_s - gone_s
        return None

    def close(self) -> None:
        """End the programs."""
        for each in self._programs:
            shell.kill_session(each)


@dataclass(frozen=True)
class Peer:
    """A host that is only in etcd."""

    number: int

    @property
    def inner(self) -> str:
        """The address of its device in the mesh."""
        return str(subnet_of(self.number).network_address)

    @property
    def node(self) -> str:
        return f"192.168.50.{101 + self.number % 99}"

    @property
    def mac(self) -> str:
        return f"02:00:00:00:{self.number // 256:02x}:{self.number % 256:02x}"

    @property
    def put(self) -> str:
        """Return the line of `etcdctl txn` that puts its lease, in flannel's format."""
        data = {"VNI": 1, "VtepMAC": self.mac}
        value = {"PublicIP": self.node, "BackendType": "vxlan", "BackendData": data}
        key = f"/hostmesh/subnets/{self.inner}-24"
        return f"put {key} {json.dumps(json.dumps(value))}"


def measure(bench: Bench, options: Options) -> None:
    """Delete objects of every kind, one after the other."""
    with mesh() as host, changing(host) as changes:
        bench.settle()
        peers = [Peer(number) for number in range(1, _LEASES + 1)]
        for what, run in kinds(changes).items():
            several(bench, what, [run(each) for each in _in_turn(peers, options.rounds)])
            if options.quick:
                return
        took = [device(changes) for _ in range(options.rounds)]
        bench.value(f"repair of a deleted vxlan device and all {_LEASES} routes by it", took)
        rules(bench, host, options.rounds)


def _in_turn(peers: Sequence[Peer], rounds: int) -> Iterator[Peer]:
    """Yield each peer seldom: an object that is deleted again and again is a fight."""
    for number in range(rounds * _OF_ROUND):
        yield peers[number % len(peers)]


def device(changes: Changes) -> float:
    """Delete the device, seldom enough for no fight; the last route by it comes last."""
    last = str(subnet_of(_LEASES))
    took_s = changes.repair(f"ip link del {_LINK}", (f"{_LINK}:",), (last, "via"))
    time.sleep(_NO_FIGHT_S)
    return took_s


def kinds(changes: Changes) -> dict[str, Callable[[Peer], float]]:
    """Return for each kind of object how to delete one of a peer's and time the repair."""
    return {
        "route": lambda peer: changes.repair(
            f"ip route del {peer.inner}/24", (f"{peer.inner}/24",)
        ),
        "neighbour": lambda peer: changes.repair(
            f"ip neigh del {peer.inner} dev {_LINK}", (peer.inner, _LINK), (peer.inner, "PERMANENT")
        ),
        "FDB entry": lambda peer: changes.repair(
            f"bridge fdb del {peer.mac} dev {_LINK} dst {peer.node} self", (peer.mac,)
        ),
    }


def several(bench: Bench, what: str, took: Sequence[float]) -> None:
    """Keep the median and the 99th percentile."""
    name = f"repair of a deleted {what} among {_LEASES} hosts"
    bench.value(name, took, goal=Goal(_GOAL_S))
    rounds = [sorted(took[at : at + _OF_ROUND]) for at in range(0, len(took), _OF_ROUND)]
    slowest = [each[len(each) * 99 // 100] for each in rounds]
    bench.value(f"{name}, 99th percentile", slowest, goal=Goal(_GOAL_S))


def rules(bench: Bench, host: Host, rounds: int) -> None:
    """Delete a rule, which nft announces, and a member of a set, which no event announces."""
    peer = Peer(1)
    for what, remove, look, goal_s in (
        (
            "iptables chain (its rules)",
            "iptables-nft -F HOSTMESH-FORWARD",
            "iptables-nft -S HOSTMESH-FORWARD",
            _RULE_GOAL_S,
        ),
        (
            "ipset member",
            f"ipset del {_SET} {peer.inner}/24",
            f"ipset test {_SET} {peer.inner}/24",
            _TIMER_GOAL_S,
        ),
    ):
        found = [
            float(host.run([_PYTHON, "-c", _WAIT_FOR, remove, look], timeout_s=90).stdout)
            for _ in range(rounds)
        ]
        bench.value(f"repair of a deleted {what}", found, goal=Goal(goal_s))
        bench.fact(f"repair of a deleted {what}, the longest, s", round(max(found), 2))


@contextmanager
def mesh() -> Iterator[Host]:
    """Start the host, and let its agent follow the others."""
    settings = {"mesh": {"cidr": CIDR, "subnet_len": 24}}
    options = LabOptions(
        name="driftbench",
        hosts=1,
        host=HostOptions(settings=settings),
        backend={"Type": "vxlan"},
    )
    with Lab.up(options) as lab:
        lab.wait_ready(90)
        host = lab.hosts["host1"]
        puts = [Peer(number).put for number in range(1, _LEASES + 1)]
        for start in range(0, _LEASES, 100):
            text = "\n" + "\n".join(puts[start : start + 100]) + "\n\n\n"
            lab.etcd["etcd1"].etcdctl("txn", stdin=text, timeout_s=60)
        count = f"ip route show dev {_LINK} | wc -l"
        eventually(lambda: int(host.run(["sh", "-c", count]).stdout) >= _LEASES, 60, 0.2)
        yield host


@contextmanager
def changing(host: Host) -> Iterator[Changes]:
    """Listen to the kernel."""
    changes = Changes(host)
    try:
        eventually(changes.listening, 30)
        yield changes
    finally:
        changes.close()


if __name__ == "__main__":
    main(measure)
