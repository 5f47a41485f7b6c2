"""From a put into etcd to the route in the kernel, beside `etcdctl watch`.

    .venv/bin/python -m tests.bench.control_path.put_to_route [--quick]

A real etcd and real agents on a LAN of namespaces. Both times of a round belong to the same put. A
burst is put over one connection, one put after the other, into a mesh of one host; its time is that
from the answer to the last put to the last route. A client in Python with one watch and nothing
else, on a host whose agent is ended, shows how much of the time is that of gRPC's library.
"""

from __future__ import annotations

import signal
import sys
import time

from tests.bench.bare_client import PROGRAM, WATCHES
from tests.bench.harness import Bench
from tests.bench.program import Options, main
from tests.bench.statistic import Goal
from tests.netns.mesh.arrivals import Arrivals, lease_record, lines_of
from tests.netns.mesh.stage import ETCD, Stage

_PUT_GOAL_MS = 6
_RATIO_GOAL = 2
_BURST_GOAL_S = 0.3
_WARM_UP = 5
_PUTS_OF_ROUND = 100
_BURSTS = (2_000, 10_000)
_WITHIN_S = 120
_CLIENT = [
    sys.executable,
    "-c",
    PROGRAM,
    f"{ETCD}:2379",
    "/hostmesh/subnets/",
    "/hostmesh/subnets0",
]


def measure(bench: Bench, options: Options) -> None:
    """Put leases one by one, then bursts of them."""
    with Stage(2).running() as stage, Arrivals(stage.nodes[0]) as arrivals:
        puts = _PUTS_OF_ROUND * options.rounds
        one_by_one(bench, arrivals, puts)
        stage.nodes[0].stop(signal.SIGKILL)
        of_a_client(bench, stage, arrivals, puts)
    for leases in _BURSTS[:1] if options.quick else _BURSTS:
        bursts(bench, leases, options.rounds)


def one_by_one(bench: Bench, arrivals: Arrivals, leases: int) -> None:
    """Put a lease, wait for its route, put the next."""
    found = [arrivals.one(number) for number in range(leases + _WARM_UP)][_WARM_UP:]
    routes_ms, watch_ms = ([1000 * each for each in times] for times in zip(*found, strict=True))
    bench.value("put to route", routes_ms, unit="ms", goal=Goal(_PUT_GOAL_MS))
    bench.ratio(
        "put to route",
        routes_ms,
        "put to etcdctl watch",
        watch_ms,
        unit="ms",
        goal=Goal(_RATIO_GOAL),
    )
    slow_ms = sorted(routes_ms)[len(routes_ms) * 99 // 100]
    bench.fact("put to route, 99th percentile, ms", round(slow_ms, 1))


def of_a_client(bench: Bench, stage: Stage, arrivals: Arrivals, leases: int) -> None:
    """Put a lease, wait until a client in Python has it, put the next."""
    found: list[list[float]] = []
    with lines_of(stage.nodes[0], _CLIENT) as client:
        client.at(WATCHES, _WITHIN_S)
        first = leases + _WARM_UP
        for number in range(first, first + leases + _WARM_UP):
            _, key, value = lease_record(number)
            began_s = time.monotonic()
            arrivals.put((key, value))
            found.append([each.at(key, _WITHIN_S) - began_s for each in (client, arrivals.watch)])
    times = zip(*found[_WARM_UP:], strict=True)
    client_ms, watch_ms = ([1000 * each for each in every] for every in times)
    what = "put to a client in Python that prints"
    bench.ratio(what, client_ms, "put to etcdctl watch", watch_ms, unit="ms")


def bursts(bench: Bench, leases: int, rounds: int) -> None:
    """Put many leases at once."""
    routes, watch = zip(*(burst(leases) for _ in range(rounds)), strict=True)
    what = f"burst of {leases} leases: last put to last route"
    bench.value(what, routes, goal=Goal(_BURST_GOAL_S))
    bench.difference(what, routes, "last line of etcdctl watch", watch)


def burst(leases: int) -> tuple[float, float]:
    """Return the seconds from the last put to the last route and to the last line of the watch."""
    with Stage(1).running() as stage, Arrivals(stage.nodes[0]) as arrivals:
        arrivals.one(0)
        records = [lease_record(number) for number in range(256, 256 + leases)]
        last_s = arrivals.put(*((key, value) for _, key, value in records))
        routed_s = max(arrivals.routes.at(each, _WITHIN_S) for each, _, _ in records)
        watched_s = max(arrivals.watch.at(key, _WITHIN_S) for _, key, _ in records)
    return routed_s - last_s, watched_s - last_s


if __name__ == "__main__":
    main(measure)
