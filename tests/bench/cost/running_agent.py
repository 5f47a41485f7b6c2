"""Measure a running agent: memory, threads and CPU while nothing happens.

    flock -w 1200 /var/cache/hostmesh-lab/lab.lock \\
        .venv/bin/python -m tests.bench.cost.running_agent [--window S] [--rounds N]

Three lab hosts with Docker, so that each agent has two peers; then eight leases more. Each round is
a window in which nothing is done. Beside the agent runs a bare gRPC client with one watch, which
asks for progress as often as the agent does. CPU is that of all threads, by the scheduler's count;
that of the programs which the agent runs comes as a figure of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hostmesh_lab.cgroups import lab_group
from hostmesh_lab.lab import Lab, LabOptions

from tests.bench.harness import Bench
from tests.bench.statistic import Goal

_RESIDENT_GOAL_MB = 60
_PRIVATE_GOAL_MB = 45
_IDLE_GOAL_PERCENT = 0.2
_THREADS_GOAL = 8
_PEERS_OF_GOALS = 10
_SETTLE_S = 15
_PYTHON = "/opt/hostmesh/venv/bin/python"
_TICKS = os.sysconf("SC_CLK_TCK")
_BARE = """
import sys, threading, time
from queue import SimpleQueue
from agent.etcd.etcd3_compat import grpc, rpc
channel = grpc.insecure_channel(sys.argv[1])
requests = SimpleQueue()
create = rpc.WatchCreateRequest(key=b"/bare", range_end=b"/barf")
requests.put(rpc.WatchRequest(create_request=create))
answers = rpc.WatchStub(channel).Watch(iter(requests.get, None))
threading.Thread(target=lambda: [None for _ in answers], daemon=True).start()
while True:
    time.sleep(4)
    requests.put(rpc.WatchRequest.FromString(b"\\x1a\\x00"))
"""


@dataclass(frozen=True)
class Cost:
    """Of one process in one window."""

    resident_mb: float
    private_mb: float
    python_threads: int
    threads: int
    idle_percent: float
    programs_percent: float


class Process:
    """A process of a lab host, seen from outside."""

    def __init__(self, pid: int) -> None:
        self._proc = Path(f"/proc/{pid}")
        self._began = (0.0, 0.0, 0.0)

    def begin(self) -> None:
        """Begin a window."""
        self._began = (time.monotonic(), self._threads_s(), self._programs_s())

    def end(self) -> Cost:
        """End the window."""
        began_s, threads_s, programs_s = self._began
        took_s = time.monotonic() - began_s
        names = Counter(
            (each / "comm").read_text().strip() for each in (self._proc / "task").iterdir()
        )
        return Cost(
            self._mb("status", "VmRSS"),
            self._mb("smaps_rollup", "Private_"),
            names["python"],
            sum(names.values()),
            100 * (self._threads_s() - threads_s) / took_s,
            100 * (self._programs_s() - programs_s) / took_s,
        )

    def _mb(self, file: str, field: str) -> float:
        lines = (self._proc / file).read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

    def _threads_s(self) -> float:
        tasks = (self._proc / "task").glob("*/schedstat")
        return sum(int(each.read_text().split()[0]) for each in tasks) / 1e9

    def _programs_s(self) -> float:
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[13]) + int(fields[14])) / _TICKS


def main() -> int:
    parser = argparse.ArgumentParser(description="what an agent that runs costs")
    parser.add_argument("--window", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    bench = Bench("running_agent")
    with Lab.up(LabOptions(name="agentbench", hosts=3)) as lab:
        lab.wait_ready(90)
        host = lab.hosts["host1"]
        endpoint = lab.endpoints()[0].partition("://")[2]
        bare = host.popen([_PYTHON, "-c", _BARE, endpoint])
        host.restart_agent()  # its modules are compiled and cached now, as a package's are
        lab.wait_ready(60)
        agent = Process(pid_of(lab, "host1", "agent"))
        client = Process(pid_of(lab, "host1", endpoint))
        for peers in (2, _PEERS_OF_GOALS):
            add_leases(lab, peers - 2)
            time.sleep(_SETTLE_S)
            figures(bench, peers, *windows(agent, client, arguments.window, arguments.rounds))
        bare.kill()
    return bench.finish()


def add_leases(lab: Lab, number: int) -> None:
    """Publish leases as flannel would."""
    for each in range(number):
        lease = {"PublicIP": f"192.168.50.{100 + each}", "BackendType": "host-gw"}
        lab.etcdctl("put", f"/hostmesh/subnets/10.{100 + each}.0.0-16", json.dumps(lease))


def pid_of(lab: Lab, host: str, word: str) -> int:
    """Return the pid, as seen from here, of the host's Python process with that argument."""
    for each in (lab_group(lab.record.name) / host).rglob("cgroup.procs"):
        for pid in each.read_text().split():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"python" in words[0] and word.encode() in words:
                return int(pid)
    sys.exit(f"no process {word} on {host}")


def windows(agent: Process, client: Process, length_s: float, rounds: int) -> list[list[Cost]]:
    """Return what the agent and the client beside it cost in each window."""
    found: list[list[Cost]] = [[], []]
    for _ in range(rounds):
        agent.begin()
        client.begin()
        time.sleep(length_s)
        found[0].append(agent.end())
        found[1].append(client.end())
    return found


def figures(bench: Bench, peers: int, agent: list[Cost], client: list[Cost]) -> None:
    """Keep the figures at so many peers; goals are for ten."""

    def goal(value: float) -> Goal | None:
        return Goal(value) if peers == _PEERS_OF_GOALS else None

    resident = [each.resident_mb for each in agent]
    private = [each.private_mb for each in agent]
    idle = [each.idle_percent for each in agent]
    name = f"{peers} peers"
    bench.value(f"{name}: resident", resident, unit="MB", goal=goal(_RESIDENT_GOAL_MB))
    bench.value(f"{name}: private", private, unit="MB", goal=goal(_PRIVATE_GOAL_MB))
    bench.value(f"{name}: idle", idle, unit="% of a core", goal=goal(_IDLE_GOAL_PERCENT))
    bench.fact(f"{name}: programs that it runs, % of a core, each window",
               [round(each.programs_percent, 3) for each in agent])  # fmt: skip
    for what, mine, its in (
        ("resident", resident, [each.resident_mb for each in client]),
        ("private", private, [each.private_mb for each in client]),
        ("idle", idle, [each.idle_percent for each in client]),
    ):
        bench.ratio(f"{name}: {what}", mine, "a bare gRPC client", its, unit="")
    threads = max(each.python_threads for each in agent)
    bench.fact(f"{name}: Python threads (goal {_THREADS_GOAL})", threads)
    bench.fact(f"{name}: all threads", max(each.threads for each in agent))
    bench.fact("the client's Python threads", max(each.python_threads for each in client))
    bench.fact("the client's threads", max(each.threads for each in client))


if __name__ == "__main__":
    sys.exit(main())
