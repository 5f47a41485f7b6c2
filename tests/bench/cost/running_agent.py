"""Measure what a running agent takes while nothing happens: memory, CPU, wake-ups, requests.

    .venv/bin/python -m tests.bench.cost.running_agent [--quick] [--window S] [--peers N ...]

A lab host with Docker, whose mesh has 10, 1,000 and 10,000 peers: their leases, heartbeats and
memory records are in etcd as agents write them. Each round is a window in which nothing is done.
Beside the agent runs a bare gRPC client with one watch, which asks for progress as often as the
agent does, at an etcd of its own. CPU is that of all threads, ended ones included; that of the
programs which the agent runs is a fact beside it. Requests are the messages that etcd received,
bytes those of the agent's TCP connections to etcd, in both directions.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hostmesh_lab.cgroups import lab_group
from hostmesh_lab.lab import CIDR, Lab, LabOptions
from hostmesh_lab.machines.kinds import HostOptions

from tests.bench.bare_client import PROGRAM
from tests.bench.control_path.peers import transactions
from tests.bench.harness import Bench, processor_s
from tests.bench.program import Options, main
from tests.bench.statistic import Goal
from tests.waiting import eventually

_PEERS_OF_GOALS = 10
_PEERS = (_PEERS_OF_GOALS, 1_000, 10_000)
_GOALS = {"resident_mb": 60.0, "private_mb": 45.0, "idle_percent": 0.2, "requests": 15.0}
_SETTLE_S = 15
_WINDOW_S, _QUICK_WINDOW_S = 60.0, 30.0
"""Four requests for progress and three keep-alives, or twice as many."""
_PYTHON = "/opt/hostmesh/venv/bin/python"
_BARE_PORT = 22379
_TICKS = os.sysconf("SC_CLK_TCK")
_SWITCHES = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)$", re.MULTILINE)
_METRICS = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1] + "/metrics", timeout=10).read().decode())
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
    wakeups: float


class Process:
    """A process of a lab host, seen from outside."""

    def __init__(self, pid: int) -> None:
        self._proc = Path(f"/proc/{pid}")
        self._pid = pid
        self._began = (0.0, 0.0, 0.0, 0)

    def begin(self) -> None:
        """Begin a window."""
        self._began = (
            time.monotonic(),
            processor_s(self._pid),
            self._programs_s(),
            self._switches(),
        )

    def end(self) -> Cost:
        """End the window."""
        began_s, own_s, programs_s, switches = self._began
        took_s = time.monotonic() - began_s
        names = Counter(
            (each / "comm").read_text().strip() for each in (self._proc / "task").iterdir()
        )
        return Cost(
            self._mb("status", "VmRSS"),
            self._mb("smaps_rollup", "Private_"),
            names["python"],
            sum(names.values()),
            100 * (processor_s(self._pid) - own_s) / took_s,
            100 * (self._programs_s() - programs_s) / took_s,
            60 * (self._switches() - switches) / took_s,
        )

    def _mb(self, file: str, field: str) -> float:
        lines = (self._proc / file).read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

    def _programs_s(self) -> float:
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[13]) + int(fields[14])) / _TICKS

    def _switches(self) -> int:
        """Return how often a thread went to sleep and was woken; of the threads that there are."""
        texts = ((each / "status").read_text() for each in (self._proc / "task").iterdir())
        found = map(_SWITCHES.search, texts)
        return sum(int(each[1]) for each in found if each)


class Traffic:
    """The traffic between a host and etcd."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._url = lab.endpoints()[0]
        self._began = (0.0, 0, 0)

    def begin(self) -> None:
        """Begin a window."""
        self._began = (time.monotonic(), self._requests(), self._bytes())

    def end(self) -> tuple[float, float]:
        """End the window; return requests a minute, and kB an hour."""
        began_s, requests, count = self._began
        took_s = time.monotonic() - began_s
        return (
            60 * (self._requests() - requests) / took_s,
            3600 * (self._bytes() - count) / 1000 / took_s,
        )

    def _requests(self) -> int:
        text = self._lab.hosts["host1"].run([_PYTHON, "-c", _METRICS, self._url]).stdout
        found = re.findall(r"^grpc_server_msg_received_total\{.*\} (\S+)$", text, re.MULTILINE)
        return round(sum(map(float, found)))

    def _bytes(self) -> int:
        """By TCP's own count, of the connections that there are."""
        words = ["ss", "-tinHO", "state", "established", "dport = :2379"]
        text = self._lab.hosts["host1"].run(words).stdout
        return sum(map(int, re.findall(r"\bbytes_(?:sent|received):(\d+)", text)))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the program's own arguments."""
    parser.add_argument("--window", type=float, default=0.0, metavar="S", help="length of a round")
    parser.add_argument("--peers", type=int, nargs="+", default=[], metavar="N")


def measure(bench: Bench, options: Options) -> None:
    """Measure with so many peers as the options say, one mesh that grows."""
    window_s = options.window or (_QUICK_WINDOW_S if options.quick else _WINDOW_S)
    with Lab.up(
        LabOptions(
            name="costbench",
            hosts=1,
            host=HostOptions(settings={"mesh": {"cidr": CIDR, "subnet_len": 24}}),
        )
    ) as lab:
        lab.wait_ready(90)
        host = lab.hosts["host1"]
        at = lab.endpoints()[0].removeprefix("http://").rpartition(":")[0]
        bare_at = f"{at}:{_BARE_PORT}"
        url = f"http://{bare_at}"
        own_etcd = lab.etcd["etcd1"].popen(
            f"etcd --data-dir /root/bare --listen-client-urls {url} --advertise-client-urls {url}"
            " --listen-peer-urls http://127.0.0.1:22380".split()
        )
        bare = host.popen([_PYTHON, "-c", PROGRAM, bare_at, "/bare", "/barf"])
        host.restart_agent()  # its modules are compiled and cached now, as a package's are
        lab.wait_ready(60)
        agent = Process(pid_of(lab, "host1", "agent"))
        client = Process(pid_of(lab, "host1", bare_at))
        before = 0
        wanted = options.peers or (_PEERS[:1] if options.quick else _PEERS)
        for peers in wanted:
            add_peers(lab, before, peers)
            before = peers
            bench.settle()
            found = windows(agent, client, Traffic(lab), window_s, options.rounds)
            figures(bench, peers, found)
        bare.kill()
        own_etcd.kill()


def add_peers(lab: Lab, before: int, peers: int) -> None:
    """Put the records of more hosts, and wait until the agent routes to all and is at rest."""
    host = lab.hosts["host1"]
    own = host.status()["subnet"]
    for text in transactions(range(before + 1, peers + 1), "192.168.50", own):
        lab.etcd["etcd1"].etcdctl("txn", stdin=text, timeout_s=60)
    count = "ip route show proto 140 | wc -l"
    eventually(lambda: int(host.run(["sh", "-c", count]).stdout) > peers, 120, 0.5)
    time.sleep(_SETTLE_S)


def pid_of(lab: Lab, host: str, word: str) -> int:
    """Return the pid, as seen from here, of the host's Python process with that argument."""
    for each in (lab_group(lab.record.name) / host).rglob("cgroup.procs"):
        for pid in each.read_text().split():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"python" in words[0] and word.encode() in words:
                return int(pid)
    sys.exit(f"no process {word} on {host}")


@dataclass(frozen=True)
class Windows:
    """The measurements of each window."""

    length_s: float
    agent: list[Cost]
    client: list[Cost]
    traffic: list[tuple[float, float]]


def windows(
    agent: Process, client: Process, traffic: Traffic, length_s: float, rounds: int
) -> Windows:
    """Measure so many windows."""
    found = Windows(length_s, [], [], [])
    traffic.begin()
    for _ in range(rounds):
        agent.begin()
        client.begin()
        time.sleep(length_s)
        found.agent.append(agent.end())
        found.client.append(client.end())
        found.traffic.append(traffic.end())
        traffic.begin()
    return found


def figures(bench: Bench, peers: int, found: Windows) -> None:
    """Keep the figures at so many peers; goals are for ten."""
    name = f"{peers} peers"

    def each(of: Sequence[Cost], field: str) -> list[float]:
        return [float(getattr(cost, field)) for cost in of]

    def value(what: str, values: Sequence[float], unit: str, field: str) -> None:
        goal = Goal(_GOALS[field]) if peers == _PEERS_OF_GOALS and field in _GOALS else None
        bench.value(f"{name}: {what}", values, unit=unit, goal=goal)

    shown = (
        ("resident", "MB", "resident_mb"),
        ("private", "MB", "private_mb"),
        ("idle", "% of a core", "idle_percent"),
        ("wake-ups", "a minute", "wakeups"),
    )
    for what, unit, field in shown:
        value(what, each(found.agent, field), unit, field)
        mine, its = each(found.agent, field), each(found.client, field)
        bench.ratio(f"{name}: {what}", mine, "a bare gRPC client", its, unit=unit)
    requests, kilobytes = zip(*found.traffic, strict=True)
    if found.length_s >= _WINDOW_S:  # shorter ones hold a few requests each
        value("requests to etcd", requests, "a minute", "requests")
        value("bytes to and from etcd", kilobytes, "kB an hour", "bytes")
    else:
        bench.fact(f"{name}: requests to etcd a minute", round(statistics.fmean(requests), 1))
        bench.fact(f"{name}: kB to and from etcd an hour", round(statistics.fmean(kilobytes)))
    bench.fact(f"{name}: programs that it runs, % of a core, each window",
               [round(each.programs_percent, 3) for each in found.agent])  # fmt: skip
    for what, field in (("Python threads", "python_threads"), ("all threads", "threads")):
        bench.fact(f"{name}: {what}", max(map(int, each(found.agent, field))))
        bench.fact(f"the client's {what}", max(map(int, each(found.client, field))))


if __name__ == "__main__":
    main(measure, arguments)
