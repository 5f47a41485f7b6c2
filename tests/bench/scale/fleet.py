"""A large mesh on one machine: the work of its etcd and of each of its hosts.

    .venv/bin/python -m tests.bench.scale.fleet [--quick] [--hosts N] [--etcds 1|3] [STEP...]

Every host is the shipped agent with a network namespace and connections to etcd of its own, many in
one process. Steps: join, steady, reboot, restart, containers; the first is always done, the others
in the order given. The hosts share this machine's processors, so a time says more of the machine
than of a mesh. Processor time, requests and bytes do not. With --watchers only the registry of each
host is there, and more hosts can be. docs/scale.md has the arithmetic.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path

from agent.etcd import kv
from agent.model import LEVEL
from agent.registry.follower import PROGRESS_EVERY_S
from agent.registry.records import CONFIG, MEMORY, encode_config, encode_memory
from agent.registry.registry import Registry
from tests.bench.harness import Bench
from tests.bench.program import Options, main
from tests.bench.scale.etcds import Etcds, Work
from tests.bench.scale.hosts import AGENTS, WATCHERS, Cost, Hosts, Times
from tests.bench.scale.light_agent import ETCD, HEARTBEAT_TTL_S
from tests.bench.scale.light_watcher import write_records
from tests.etcd.support import etcdlab

_STEPS_OF_WATCHERS = ("join", "steady", "reboot", "restart")
_STEPS = (*_STEPS_OF_WATCHERS, "containers")
_HOSTS = 100
_QUICK_HOSTS = 40
_LEAST_S = 1_800
_PER_HOST_S = 10
"""The program ends at the latest after so long, on a machine that does much else, too."""
_SETTLE_S = 120
_STILL_S = 5
_HEARTBEAT_LATE_S = 2
_CONFIG = replace(etcdlab.config("10.0.0.0/8", 22), level=LEVEL)
_ROUTER = (
    "net.ipv4.ip_forward=1",
    "net.ipv4.conf.default.proxy_arp=1",
    "net.ipv4.conf.default.rp_filter=0",
)


@dataclass(frozen=True)
class Sizes:
    """How large the run is.

    Attributes:
        join_s: All hosts start in this time.
        windows, window_s: Of the steady state.
        containers: On each host.
        changes: Of containers, one every tenth of a second.
        timeout_s: Of each step.
        patience: Of the agents; see :class:`LightAgent`.
        kind: Of the hosts; see :class:`Hosts`.
    """

    hosts: int
    etcds: int
    join_s: float
    windows: int
    window_s: float
    containers: int
    changes: int
    timeout_s: float
    patience: int
    kind: str


class Fleet:
    """A mesh under the bench's eyes."""

    def __init__(
        self, bench: Bench, sizes: Sizes, etcds: Etcds, hosts: Hosts, mesh: Registry
    ) -> None:
        self._bench = bench
        self._sizes = sizes
        self._etcds = etcds
        self._hosts = hosts
        self._mesh = mesh
        self._began: tuple[Work, Cost] | None = None

    # --- steps ----------------------------------------------------------------------------

    def join(self) -> None:
        """All hosts join a mesh that has none, within ``join_s``.

        Watchers write nothing: what they read is there before.
        """
        if self._sizes.kind == WATCHERS:
            write_records(self._mesh, self._sizes.hosts, _CONFIG)
        self._begin()
        self._hosts.all("expect", routes=self._sizes.hosts)
        began_s = self._hosts.start(self._sizes.join_s)
        times = self._arrived()
        self._report_times("join", began_s, times)
        self._report_cost("join", per="host")
        self._report_records()

    def steady(self) -> None:
        """Nothing happens."""
        self._settle()
        cpu, agents, requests, sent, received = [], [], [], [], []
        for _ in range(self._sizes.windows):
            self._begin()
            time.sleep(self._sizes.window_s)
            work, cost = self._done()
            hosts = self._sizes.hosts * work.at_s
            cpu.append(1e6 * work.cpu_s / hosts)
            agents.append(1e6 * cost.cpu_s / hosts)
            requests.append(60 * sum(work.requests.values()) / hosts)
            sent.append(60 * work.sent / hosts)
            received.append(60 * work.received / hosts)
        for name, values, unit in (
            ("etcd's processor time per host", cpu, "us/s"),
            ("an agent's processor time", agents, "us/s"),
            ("requests of a host", requests, "a minute"),
            ("bytes to a host", sent, "B a minute"),
            ("bytes from a host", received, "B a minute"),
        ):
            self._bench.value(f"steady: {name}", values, unit=unit)
        what = "steady: an agent's processor time"
        self._bench.ratio(what, agents, "etcd's for a host", cpu, unit="us/s")
        self._report_levels("steady")

    def reboot(self) -> None:
        """All hosts lose power and are back at once."""
        self._hosts.reboot()
        self._begin()
        self._hosts.all("expect", routes=self._sizes.hosts)
        began_s = self._hosts.start(0.0)
        times = self._arrived()
        self._report_times("reboot", began_s, times)
        self._report_cost("reboot", per="host")

    def restart(self) -> None:
        """All members of etcd are killed and start again."""
        cost = self._hosts.cost()
        began_s = self._etcds.restart()
        self._began = (self._etcds.nothing(began_s), cost)
        revision = self._mark()
        self._hosts.all("expect", routes=self._sizes.hosts, revision=revision)
        times = self._arrived()
        self._report_times("restart", began_s, times, leases=False)
        self._report_cost("restart", per="host")

    def containers(self) -> None:
        """Every host runs containers, then ten of them change each second."""
        sizes = self._sizes
        everything = sizes.hosts * sizes.containers
        self._begin()
        config = self._mesh.snapshot().config
        assert config is not None
        put = kv.put(
            self._mesh.keys.of(CONFIG), encode_config(replace(config, domain="mesh.internal"))
        )
        self._mesh.client.txn("turn names on", [], [put])
        began_s = time.monotonic()
        self._hosts.all("containers", each=sizes.containers)
        self._hosts.all("expect", endpoints=everything - sizes.containers)
        self._report_times("containers", began_s, self._arrived(), leases=False)
        self._report_cost("containers", per="host")
        self._bench.fact("containers: records", everything)
        self._begin()
        began_s, late_s = time.monotonic(), 0.0
        for number in range(sizes.changes):
            due_s = began_s + number / 10
            time.sleep(max(0.0, due_s - time.monotonic()))
            late_s = max(late_s, time.monotonic() - due_s)
            self._hosts.change(
                number * 7919 % sizes.hosts,
                count=sizes.containers,
                changed=number % sizes.containers,
                healthy=bool(number // sizes.hosts % 2 == 0),
            )
        time.sleep(2)
        self._report_cost("changes", per="change", count=sizes.changes)
        self._bench.fact("changes: latest was late by, s", round(late_s, 2))

    # --- measuring ------------------------------------------------------------------------

    def _begin(self) -> None:
        self._began = (self._etcds.work(), self._hosts.cost())

    def _done(self) -> tuple[Work, Cost]:
        assert self._began is not None
        work, cost = self._began
        now = self._hosts.cost()
        return self._etcds.work().since(work), replace(now, cpu_s=now.cpu_s - cost.cpu_s)

    def _settle(self) -> None:
        """Wait until no host writes: what changed with the last step is published a TTL later."""
        if self._sizes.kind != WATCHERS:
            time.sleep(HEARTBEAT_TTL_S * self._sizes.patience + _HEARTBEAT_LATE_S)
        until_s = time.monotonic() + _SETTLE_S
        before, now = -1, self._revision()
        while now != before and time.monotonic() < until_s:
            time.sleep(_STILL_S)
            before, now = now, self._revision()

    def _revision(self) -> int:
        return self._mesh.client.range(b"x").revision

    def _arrived(self) -> Sequence[Times]:
        return self._hosts.await_all(self._sizes.timeout_s, print)

    def _mark(self) -> int:
        """Write a record that every host's view shows and none acts on; return its revision."""
        key = self._mesh.keys.of(MEMORY, etcdlab.host(self._sizes.hosts))
        written = kv.put(key, encode_memory(IPv4Network((_CONFIG.subnet_max, _CONFIG.subnet_len))))
        return self._mesh.client.txn("mark", [], [written]).revision

    def _report_times(
        self, step: str, began_s: float, times: Sequence[Times], *, leases: bool = True
    ) -> None:
        fact, hosts = self._bench.fact, len(times)
        met = sorted(each.met_s - began_s for each in times if each.met_s)
        fact(f"{step}: hosts that arrived", f"{len(met)} of {hosts}")
        if leases:
            got = sorted(each.leased_s - each.started_s for each in times if each.leased_s)
            if got:
                fact(f"{step}: start to lease, s", _spread(got))
                last = max(each.leased_s for each in times) - began_s
                fact(f"{step}: last lease, s", round(last, 1))
        if met:
            fact(f"{step}: until a host is there, s", _spread(met))

    def _report_cost(self, step: str, *, per: str, count: int = 0) -> None:
        work, cost = self._done()
        fact, count = self._bench.fact, count or self._sizes.hosts
        fact(f"{step}: took, s", round(work.at_s, 1))
        fact(f"{step}: etcd's processor time, s", round(work.cpu_s, 2))
        fact(f"{step}: etcd's processor time per {per}, ms", round(1e3 * work.cpu_s / count, 2))
        fact(f"{step}: agents' processor time per {per}, ms", round(1e3 * cost.cpu_s / count, 1))
        fact(f"{step}: requests per {per}", _counts(work.requests, count))
        fact(f"{step}: answers per {per}", _counts(work.answers, count))
        fact(f"{step}: from etcd, MB", round(work.sent / 1e6, 1))
        fact(f"{step}: to etcd, MB", round(work.received / 1e6, 1))
        fact(f"{step}: raft proposals", int(work.proposals))
        self._report_levels(step, work)

    def _report_levels(self, step: str, work: Work | None = None) -> None:
        work = work or self._etcds.work()
        cost = self._hosts.cost()
        fact = self._bench.fact
        fact(
            f"{step}: etcd's memory now and at its peak, MB",
            _rounded(work.resident_mb, work.peak_mb),
        )
        fact(f"{step}: etcd's database, MB", round(work.db_mb, 2))
        fact(f"{step}: watch streams of each member", list(work.streams))
        fact(f"{step}: watches", work.watches)
        fact(f"{step}: connections of each member", list(work.connections))
        if work.fsyncs:
            fact(f"{step}: mean fsync, ms", round(1e3 * work.fsync_s / work.fsyncs, 2))
        fact(f"{step}: memory of an agent, MB", round(cost.resident_mb / self._sizes.hosts, 2))
        fact(f"{step}: threads of an agent", round(cost.threads / self._sizes.hosts, 1))

    def _report_records(self) -> None:
        found = self._mesh.client.range(b"/hostmesh", b"/hostmesi", limit=0)
        size = sum(len(each.key) + len(each.value) for each in found.records)
        self._bench.fact("records of the mesh", len(found.records))
        self._bench.fact("bytes of its records", size)


def _rounded(*values: float) -> list[float]:
    return [round(each, 1) for each in values]


def _counts(counts: Counter[str], per: int) -> dict[str, float]:
    values = {name: round(number / per, 2) for name, number in sorted(counts.items())}
    return {name: number for name, number in values.items() if number}


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, 95th percentile and the longest."""
    return {
        "p50": round(statistics.median(values), 2),
        "p95": round(values[int(0.95 * (len(values) - 1))], 2),
        "max": round(values[-1], 2),
    }


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hosts", type=int, help=f"{_HOSTS}, with --quick {_QUICK_HOSTS}")
    parser.add_argument("--etcds", type=int, choices=(1, 3), default=1)
    parser.add_argument("--timeout", type=float, default=900, metavar="S", help="of each step")
    parser.add_argument(
        "--patience",
        type=int,
        default=1,
        metavar="N",
        help="N times the agents' time limits: for more hosts than the processors carry",
    )
    parser.add_argument(
        "--watchers",
        action="store_true",
        help="of each host only the registry, which reads all records and watches",
    )
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(_STEPS))


def measure(bench: Bench, given: Options) -> None:
    known = _STEPS_OF_WATCHERS if given.watchers else _STEPS
    if unknown := set(given.steps) - set(known):
        sys.exit(f"there is no step {min(unknown)}")
    hosts = given.hosts or (_QUICK_HOSTS if given.quick else _HOSTS)
    signal.alarm(_LEAST_S + _PER_HOST_S * hosts)
    sizes = Sizes(
        hosts=hosts,
        etcds=given.etcds,
        join_s=60 * hosts / 1_000,
        windows=given.rounds,
        window_s=4 * PROGRESS_EVERY_S,  # and three keep-alives
        containers=max(1, (1_000 if given.quick else 10_000) // hosts),
        changes=50 if given.quick else 300,
        timeout_s=given.timeout,
        patience=given.patience,
        kind=WATCHERS if given.watchers else AGENTS,
    )
    bench.fact("hosts", hosts)
    bench.fact("members of etcd", sizes.etcds)
    if sizes.patience > 1:
        bench.fact("the agents' time limits, times", sizes.patience)
    if sizes.kind == WATCHERS:
        bench.fact("of each host", "its registry only")
    steps = ["join", *(each for each in given.steps or known if each != "join")]
    with tempfile.TemporaryDirectory(prefix="hm-fleet-", dir="/dev/shm") as folder:
        run(bench, sizes, Path(folder), steps)


def run(bench: Bench, sizes: Sizes, folder: Path, steps: Sequence[str]) -> None:
    """Do the steps, one after the other, with one mesh."""
    _prepare(folder)
    etcds = Etcds(sizes.etcds)
    with etcds.running(), etcdlab.registry(*etcds.members) as mesh:
        mesh.create_config(_CONFIG)
        hosts = Hosts(sizes.hosts, etcds.endpoints, folder, sizes.patience, sizes.kind)
        with hosts.booted():
            fleet = Fleet(bench, sizes, etcds, hosts, mesh)
            for each in steps:
                print(f"--- {each}", flush=True)
                step: Callable[[], None] = getattr(fleet, each)
                step()


def _prepare(folder: Path) -> None:
    """Make a router of this program's own namespace."""
    resolv_conf = folder / "resolv.conf"  # the machine's own may name one in the mesh's CIDR
    resolv_conf.write_text("nameserver 127.0.0.53\n")
    for command in (
        ["mount", "--bind", str(resolv_conf), "/etc/resolv.conf"],
        ["ip", "address", "add", f"{ETCD}/32", "dev", "lo"],
        ["sysctl", "-qw", *_ROUTER],
    ):
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main(measure, options)
