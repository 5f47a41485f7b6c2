"""Figures of tunnel objects: a route, a neighbour and a forwarding entry for each peer.

.venv/bin/python -m tests.bench.host.tunnel [--rounds N] [--peers N]
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from typing import Any

import structlog

from agent.reconcile.reconciler import Report
from tests.bench.harness import ROOT, Bench, resident_mb, timed
from tests.bench.program import Options, main
from tests.bench.statistic import Goal
from tests.netns.tables.tunnel import NAME, Tunnel, peer

_PEERS = 10_000
_GOAL_MB = 25
"""For 30,000 objects: 0.8 kB each, the value in Python and its places in two maps."""


def prepare() -> None:
    for command in (
        "link set lo up",
        "link add eth0 type veth peer name far0",
        "addr add 192.0.2.1/24 dev eth0",
        "link set eth0 up",
        "link set far0 up",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def commands(peers: int) -> tuple[str, str]:
    """Return what writes the same with iproute2: a batch for ``ip``, one for ``bridge``."""
    ip, bridge = [], []
    for number in range(peers):
        route, neighbour, entry = peer(number)
        ip.append(f"neigh add {neighbour} nud permanent")
        ip.append(
            f"route add {route.destination} via {route.gateway} dev {NAME} src {route.prefsrc}"
            f" onlink proto 140 mtu {route.mtu}"
        )
        bridge.append(f"fdb add {entry.mac} dev {NAME} dst {entry.destination} self permanent")
    return "\n".join(ip), "\n".join(bridge)


def run(program: str, *words: str, stdin: str | None = None) -> None:
    subprocess.run([program, *words], input=stdin, text=True, check=True, stdout=subprocess.DEVNULL)


def device(tunnel: Tunnel) -> None:
    """Have the device, its address and nothing else."""
    tunnel.want(())
    tunnel.run()
    tunnel.want_peers(0)
    tunnel.settle()


def written(bench: Bench, peers: int, rounds: int) -> None:
    tunnel = Tunnel()
    ip, bridge = commands(peers)

    def ours() -> float:
        device(tunnel)
        tunnel.want_peers(peers)
        reports: list[Report[Any]] = []
        took_s = timed(lambda: reports.extend(tunnel.run()))()
        assert all(each.complete for each in reports)
        return took_s

    def other() -> float:
        device(tunnel)

        def write() -> None:
            run("ip", "-force", "-batch", "-", stdin=ip)
            run("bridge", "-force", "-batch", "-", stdin=bridge)

        return timed(write)()

    what = f"{3 * peers} tunnel objects of {peers} peers written"
    bench.compare(what, ours, "ip -batch, bridge -batch", other, rounds=rounds, goal=Goal(2.5))


def compared(bench: Bench, peers: int, rounds: int) -> None:
    tunnel = Tunnel()
    device(tunnel)
    tunnel.want_peers(peers)
    tunnel.settle()

    def compare() -> None:
        assert [len(each.done) for each in tunnel.run()] == [0] * 5

    def show() -> None:
        run("ip", "-j", "route", "show", "proto", "140")
        run("ip", "-j", "neigh", "show", "dev", NAME, "nud", "permanent")
        run("bridge", "-j", "fdb", "show", "dev", NAME)

    bench.compare(
        f"comparison of {3 * peers} tunnel objects without a change",
        timed(compare),
        "ip -j route, ip -j neigh, bridge -j fdb",
        timed(show),
        rounds=rounds,
        goal=Goal(2),
    )
    one_change(bench, tunnel, peers)


def one_change(bench: Bench, tunnel: Tunnel, peers: int) -> None:
    """One peer gets another MAC and node address: a neighbour and a forwarding entry."""
    took: list[float] = []
    for number in range(200):
        changed = peer(number, 1)
        began_s = time.perf_counter()
        _, neighbour, new = changed
        tunnel.neighbours.want({neighbour.key: neighbour})
        tunnel.fdb.want({peer(number)[2].key: None, new.key: new}, known_gone=True)
        reports = tunnel.step()
        took.append(time.perf_counter() - began_s)
        assert sum(len(each.done) for each in reports) == 3
    bench.value(f"one peer's change among {peers}", took, goal=Goal(0.01))


def grown_mb(peers: int) -> None:
    """In a child: print the resident MB that all objects add, desired and listed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    prepare()
    before_mb = resident_mb()
    tunnel = Tunnel()
    device(tunnel)
    tunnel.want_peers(peers)
    tunnel.settle()
    print(resident_mb() - before_mb)


def memory(bench: Bench, peers: int, rounds: int) -> None:
    """Each round is a process in a namespace of its own."""
    call = f"from tests.bench.host.tunnel import grown_mb; grown_mb({peers})"
    command = ["unshare", "--net", sys.executable, "-c", call]
    found = [float(subprocess.check_output(command, cwd=ROOT)) for _ in range(rounds)]
    goal = Goal(_GOAL_MB) if peers == _PEERS else None
    bench.value(f"resident with {3 * peers} tunnel objects", found, unit="MB", goal=goal)


def measure(bench: Bench, options: Options) -> None:
    """Make every figure."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    prepare()
    memory(bench, options.peers, options.rounds)
    compared(bench, options.peers, 2 * options.rounds)
    written(bench, options.peers, options.rounds)


if __name__ == "__main__":
    main(measure, lambda parser: parser.add_argument("--peers", type=int, default=_PEERS))
