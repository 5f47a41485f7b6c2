"""Figures of the route reconciler, each as a ratio to something measured in the same run.

    .venv/bin/python -m tests.bench.control_path.routes

The reconciler and what follows etcd run in this process, in a network namespace of its own.
"""

from __future__ import annotations

import logging
import queue
import subprocess
import tempfile
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import structlog

from agent.kernel.facts import read_host_facts
from agent.kernel.netlink_monitor import KernelEvent, Monitor
from agent.kernel.tables.routes import RouteTable
from agent.kernel.uplink import choose_uplink
from agent.mesh.desired import desired_objects
from agent.mesh.object_kinds import route_kind
from agent.mesh.world import World
from agent.model import Lease, MeshConfig, Route
from agent.reconcile.interfaces import Operation, OperationKind, Reason, Result
from agent.reconcile.reconciler import Permission, Reconciler, reconcile
from tests.bench.control_path import large_mesh
from tests.bench.harness import Bench, timed
from tests.bench.program import Options, main
from tests.bench.statistic import Goal

CIDR = IPv4Network("10.0.0.0/8")
GATEWAYS = 250
_CHANGES = 500


def peer(number: int, shift: int = 0, gateways: int = GATEWAYS) -> Lease:
    """The lease of host ``number``; ``shift`` gives it another address."""
    return Lease(
        subnet=IPv4Network((int(IPv4Address("10.1.0.0")) + number * 128, 25)),
        node_address=IPv4Address(int(IPv4Address("172.16.0.2")) + (number + shift) % gateways),
        backend="host-gw",
    )


def world(count: int, gateways: int = GATEWAYS) -> World:
    facts = read_host_facts()
    peers = [peer(number, gateways=gateways) for number in range(count)]
    return World(
        config=MeshConfig(
            cidr=CIDR,
            subnet_len=25,
            subnet_min=IPv4Address("10.1.0.0"),
            subnet_max=IPv4Address("10.255.0.0"),
        ),
        peers={each.subnet: each for each in peers},
        uplink=choose_uplink(facts, "eth0"),
        host=facts,
        complete=True,
    )


def flush() -> None:
    subprocess.run(["ip", "route", "flush", "proto", "140"], check=False, capture_output=True)


def full_programming(
    bench: Bench, count: int, goal: float, gateways: int = GATEWAYS, *, rounds: int
) -> None:
    made = world(count, gateways)
    desired = desired_objects(made)
    missing = [
        Operation(OperationKind.REPLACE, each, Reason.MISSING)
        for each in desired.of(Route).values()
    ]
    lines = "".join(
        f"route add {route.destination} via {route.gateway} dev eth0 proto 140\n"
        for route in desired.of(Route).values()
        if route.gateway is not None
    )
    command = ["ip", "-force", "-batch", "-"]

    def ours() -> float:
        flush()
        table = RouteTable()
        results: list[Result[Route]] = []
        took_s = timed(lambda: results.extend(table.apply(missing)))()
        assert all(result.ok for result in results)
        table.close()
        return took_s

    def other() -> float:
        flush()
        return timed(lambda: subprocess.run(command, input=lines, text=True, check=True))()

    what = f"apply of {count} routes, {gateways} gateways"
    bench.compare(what, ours, "ip -batch", other, rounds=rounds, goal=Goal(goal))
    flush()


def reconciler(table: RouteTable, made: World) -> Reconciler[Route]:
    table.limit_foreign((CIDR,))
    found = Reconciler(route_kind(140), table, clock=time.monotonic)
    found.want(desired_objects(made).of(Route))
    return found


def run(target: Reconciler[Route]) -> int:
    """Run one pass; how much it did."""
    (report,) = reconcile((target,), Permission(may_delete=True))
    assert report.complete
    return len(report.done)


def no_change(bench: Bench, count: int, rounds: int) -> None:
    target = reconciler(RouteTable(), world(count))
    run(target)

    def compare() -> None:
        target.look_again()
        assert run(target) == 0

    compare()

    def show() -> None:
        subprocess.run(
            ["ip", "-j", "route", "show", "proto", "140"], check=True, stdout=subprocess.DEVNULL
        )

    what = f"full comparison without a change, {count} routes"
    other = "ip -j route show"
    bench.compare(what, timed(compare), other, timed(show), rounds=rounds, goal=Goal(2))
    flush()


def one_change(bench: Bench, count: int, gateways: int, rounds: int) -> None:
    """From an event of etcd to the route written, all of the daemon's steps between.

    Two agents side by side, one with ten peers and a table of its own, in turn.
    """
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        agents = (
            large_mesh.Agent(Path(one), count, gateways),
            large_mesh.Agent(Path(other), 10, gateways, "protocol = 141\ntable = 100"),
        )
        took: tuple[list[float], list[float]] = ([], [])
        for number in range(_CHANGES):
            event = large_mesh.new_address(1 + number % 9, number + 1, gateways)
            for agent, times in zip(agents, took, strict=True):
                times.append(timed(lambda a=agent, e=event: a.follow(e))())  # type: ignore[misc]
                assert agent.scheduler.report.complete
    what = f"the kernel's part of it (ip -batch), {gateways} gateways"
    bench.compare(
        what,
        lambda: replaced_by_ip(gateways, "proto 140"),
        "among 10",
        lambda: replaced_by_ip(gateways, "proto 141 table 100"),
        rounds=rounds,
    )
    flush()
    what = f"one peer's change among {count}, {gateways} gateways"
    bench.ratio(what, took[0], "among 10", took[1], goal=Goal(1.5))


def replaced_by_ip(gateways: int, where: str, rounds: int = 200) -> float:
    """Seconds that one replacement of a route takes `ip`, beside all that stand there."""
    changes = (large_mesh.lease_of(1 + n % 9, n + 2, gateways) for n in range(rounds))
    lines = "".join(
        f"route replace {each.subnet} via {each.node_address} dev eth0 {where}\n"
        for each in changes
    )
    command = ["ip", "-force", "-batch", "-"]
    return timed(lambda: subprocess.run(command, input=lines, text=True, check=True))() / rounds


def drift_repair(bench: Bench, count: int, rounds: int = 500) -> None:
    """Measure from an ``ip route del`` or ``replace`` until the route is right again."""
    events: queue.SimpleQueue[KernelEvent] = queue.SimpleQueue()
    table = RouteTable()
    monitor = Monitor(events.put, own_ports=lambda: table.port_ids)
    monitor.watch_range((CIDR,), 140)
    made = world(count)
    monitor.start()
    target = reconciler(table, made)
    run(target)
    run(target)
    vandal = RouteTable()
    took: dict[str, list[float]] = {"deleted": [], "modified": []}
    leases = list(made.peers.values())
    for number in range(rounds):
        victim = leases[number * 7 % count]
        wanted = desired_objects(replace(made, peers={victim.subnet: victim}))
        route = next(each for each in wanted.of(Route).values() if each.gateway is not None)
        kind = "modified" if number % 2 else "deleted"
        bent = replace(route, gateway=IPv4Address("172.16.0.254"))
        done = (
            Operation(OperationKind.REPLACE, bent, Reason.MODIFIED, route)
            if kind == "modified"
            else Operation(OperationKind.DELETE, route, Reason.EXTRA)
        )
        started_s = time.perf_counter()
        vandal.apply((done,))
        repaired = 0
        while not repaired:
            event = events.get(timeout=5)
            target.observe(event.of(Route))
            repaired = run(target)
        took[kind].append(time.perf_counter() - started_s)
        time.sleep(0.012)
    monitor.stop()
    flush()
    for kind, times in took.items():
        bench.value(f"repair of a {kind} route among {count}", times, goal=Goal(0.1))
        slow_ms = sorted(times)[len(times) * 99 // 100] * 1000
        bench.fact(f"the same at the 99th percentile, {kind}, ms (goal 100)", round(slow_ms, 1))


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(each for each in status.splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def measure(bench: Bench, options: Options) -> None:
    """Measure everything of the reconciler, one after the other."""
    rounds = options.rounds
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    large_mesh.prepare()
    bench.fact("resident with the packages loaded, MB", round(resident_mb(), 1))
    full_programming(bench, 1_000, 3, rounds=rounds)
    full_programming(bench, 10_000, 2.5, rounds=rounds)
    full_programming(bench, 2_000, 3, gateways=2_000, rounds=rounds)
    no_change(bench, 10_000, rounds * 4)
    drift_repair(bench, 10_000)
    one_change(bench, 10_000, GATEWAYS, rounds)
    one_change(bench, 10_000, 10_000, rounds)
    bench.fact("resident at the end, MB", round(resident_mb(), 1))


if __name__ == "__main__":
    main(measure)
