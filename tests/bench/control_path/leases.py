"""Figures of leases, each beside something measured in the same run.

    .venv/bin/python -m tests.bench.control_path.leases [snapshot] [event] [claims] [down]

Real etcd in network and PID namespaces. Ours and the other's are measured in turn, or on the very
same event.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from agent.etcd import kv
from agent.model import Lease, View
from agent.model.family import Address
from agent.registry.directory import Directory
from agent.registry.records import LEASES, encode_lease
from agent.registry.registry import Registry
from tests.bench.harness import Bench, interleave
from tests.bench.program import Options, main
from tests.bench.statistic import Goal
from tests.etcd.support import etcdlab
from tests.etcd.support.etcdlab import Etcd, Heard, registry
from tests.etcd.support.hostprocess import Member
from tests.etcd.support.storm import check, storm
from tests.waiting import eventually

_LEASES = 10_000
_STORMS = 6
_SHARES = 6
_CONFIG = replace(etcdlab.config("10.0.0.0/8", 24))


def lease(number: int) -> Lease:
    """Host ``number``'s, in a mesh of 65,536 /24s."""
    return Lease(
        subnet=IPv4Network((int(_CONFIG.cidr.network_address) + number * 256, 24)),
        node_address=IPv4Address("172.16.0.1") + number,
        backend="host-gw",
        host_id=etcdlab.host(number),
        host_name=f"host{number}",
        claimed_s=1_700_000_000.0,
        renewed_s=1_700_000_000.0,
        ttl_s=86_400,
    )


def fill(mesh: Registry, count: int) -> None:
    mesh.create_config(_CONFIG)
    for first in range(0, count, kv.MAX_OPERATIONS):
        puts = [
            kv.put(mesh.keys.of(LEASES, each.subnet), encode_lease(each, boot_id="b" * 32))
            for each in map(lease, range(first, min(count, first + kv.MAX_OPERATIONS)))
        ]
        mesh.client.txn("fill", [], puts)


def snapshot(bench: Bench, rounds: int) -> None:
    """A complete, checked view of 10,000 leases against etcdctl printing the same keys."""
    ours_cpu: list[float] = []
    other_cpu: list[float] = []
    with Etcd() as etcd, registry(etcd) as mesh:
        fill(mesh, _LEASES)
        command = [
            *(str(etcdlab.binaries() / "etcdctl"), "--endpoints", etcd.endpoint),
            *("get", "--prefix", "/hostmesh/"),
        ]

        def ours() -> float:
            started_s, before = time.perf_counter(), time.process_time()
            view = mesh.snapshot()
            took_s = time.perf_counter() - started_s
            ours_cpu.append(time.process_time() - before)
            assert (len(view.leases), view.set_aside) == (_LEASES, ())
            return took_s

        def other() -> float:
            started_s, before = time.perf_counter(), _children_cpu_s()
            env = {**os.environ, "ETCDCTL_API": "3"}
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=env)
            other_cpu.append(_children_cpu_s() - before)
            return time.perf_counter() - started_s

        took = interleave((ours, other), rounds)
    what, etcdctl = f"snapshot of {_LEASES} leases", "etcdctl get --prefix"
    bench.ratio(what, took[0], etcdctl, took[1])
    bench.ratio(f"{what}, CPU time", ours_cpu[-rounds:], etcdctl, other_cpu[-rounds:])


def _children_cpu_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def event(bench: Bench, rounds: int) -> None:
    """From one host's put to another host's view of it, and to etcdctl watch's line."""
    seen: dict[Address, float] = {}
    arrived = threading.Event()

    def on_view(view: View) -> None:
        now_s = time.perf_counter()
        for each in view.leases[:1]:
            seen.setdefault(each.node_address, now_s)
        arrived.set()

    ours, other = [], []
    with Etcd() as etcd, registry(etcd) as writer, registry(etcd) as reader:
        fill(writer, 100)
        directory = Directory(reader, on_view, Heard())
        directory.start()
        words = ["--endpoints", etcd.endpoint, "watch", "--prefix", "/hostmesh/subnets/"]
        with subprocess.Popen(
            [str(etcdlab.binaries() / "etcdctl"), *words],
            stdout=subprocess.PIPE,
            env={**os.environ, "ETCDCTL_API": "3"},
            bufsize=0,
        ) as watch:
            assert watch.stdout is not None
            printed: list[float] = []
            stdout = watch.stdout

            def read() -> None:
                while stdout.readline():  # PUT, key, value
                    stdout.readline()
                    stdout.readline()
                    printed.append(time.perf_counter())

            threading.Thread(target=read, daemon=True).start()
            first = lease(0)
            key = writer.keys.of(LEASES, first.subnet)
            eventually(lambda: _probe_watch(writer, printed))
            for number in range(1, rounds + 1):
                moved = replace(first, node_address=IPv4Address("172.20.0.1") + number)
                count, value = len(printed), encode_lease(moved)
                time.sleep(0.03)  # a quiet watch, not a storm
                put_s = time.perf_counter()
                writer.client.txn("put", [], [kv.put(key, value)])
                while moved.node_address not in seen or len(printed) == count:
                    arrived.wait(0.05)
                    arrived.clear()
                    if time.perf_counter() - put_s > 5:  # a lost event
                        sys.exit("an event did not arrive within 5 s")
                ours.append(seen[moved.node_address] - put_s)
                other.append(printed[count] - put_s)
            watch.kill()
        directory.stop()
    bench.ratio("lease put to a peer's view of it", ours, "etcdctl watch", other)


def _probe_watch(writer: Registry, printed: list[float]) -> bool:
    writer.client.txn("put", [], [kv.put(b"/hostmesh/subnets/probe", b"x")])
    time.sleep(0.1)
    return bool(printed)


def claims(bench: Bench, hosts: int) -> None:
    """The average that a host needs when all boot at once."""
    needed = []
    for number in range(_STORMS):
        with Etcd() as etcd:
            needed.append(check(storm(etcd, f"/hostmesh{number}", hosts), 256))
    what = f"transactions per successful claim, {hosts} hosts for 256 subnets"
    bench.value(what, needed, unit="transactions", goal=Goal(2.0))


def down(bench: Bench, seconds: float) -> None:
    """Measure one host's packages for etcd with all three members gone, and with all there."""
    with etcdlab.cluster() as members:
        with registry(members[0]) as mesh:
            mesh.create_config(_CONFIG)
        with Member(*members, ttl_s=86_400, beat_s=30) as member:
            eventually(member.lease)
            up = _share(member, seconds)
            for each in members:
                each.kill()
            eventually(lambda: member.said("problem")[-1]["problem"] is not None, timeout_s=20)
            lines = len(member.log_lines())
            shares = [_share(member, seconds / _SHARES) for _ in range(_SHARES)]
            lines = len(member.log_lines()) - lines
    bench.fact("lines of log a minute while etcd is down", round(lines * 60 / seconds, 1))
    bench.fact("CPU while etcd is up, of a core", round(up, 5))
    bench.value("CPU while etcd is down", shares, unit="of a core", goal=Goal(0.01))


def _share(member: Member, seconds: float) -> float:
    before_s, started_s = member.cpu_s(), time.monotonic()
    time.sleep(seconds)
    return (member.cpu_s() - before_s) / (time.monotonic() - started_s)


FIGURES: dict[str, Callable[[Bench, int], None]] = {
    "snapshot": lambda bench, rounds: snapshot(bench, max(6, rounds // 20)),
    "event": event,
    "claims": lambda bench, rounds: claims(bench, min(256, rounds)),
    "down": lambda bench, rounds: down(bench, min(120, rounds)),
}
"""By name; they take the rounds of the quickest, an event, and do less with fewer."""


def measure(bench: Bench, options: Options) -> None:
    """Measure the figures that the options name, or all."""
    for name in options.figures or FIGURES:
        FIGURES[name](bench, options.rounds)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the program's own arguments."""
    parser.add_argument("figures", nargs="*", metavar="FIGURE",
                        help=", ".join(FIGURES))  # fmt: skip


if __name__ == "__main__":
    main(measure, arguments)
