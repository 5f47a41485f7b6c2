"""From a put into etcd to the route in the kernel, beside `etcdctl watch`.

    .venv/bin/python -m tests.bench.control_path.put_to_route [--leases N] [--burst N] [--rounds N]

A real etcd and two real agents on a LAN of namespaces (root). Both times of a round belong to the
same put. A burst is put over one connection, one put after the other; its time is that from the
answer to the last put to the last route.
"""

from __future__ import annotations

import argparse
import sys

from tests.bench.harness import Bench
from tests.bench.statistic import Goal
from tests.netns.mesh.arrivals import Arrivals, lease_record
from tests.netns.mesh.stage import Stage

_PUT_GOAL_MS = 6
_BURST_GOAL_S = 0.3
_WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leases", type=int, default=40, help="leases that are put one by one")
    parser.add_argument("--burst", type=int, default=2_000, help="leases of a burst")
    parser.add_argument("--rounds", type=int, default=6, help="bursts")
    arguments = parser.parse_args()
    bench = Bench("control_path")
    with Stage(2).running() as stage, Arrivals(stage.nodes[0]) as arrivals:
        one_by_one(bench, arrivals, arguments.leases)
        bursts(bench, arrivals, arguments.burst, arguments.rounds)
    sys.exit(bench.finish())


def one_by_one(bench: Bench, arrivals: Arrivals, leases: int) -> None:
    """Put a lease, wait for its route, put the next."""
    found = [arrivals.one(number) for number in range(leases + _WARM_UP)][_WARM_UP:]
    routes_ms, watch_ms = ([1000 * each for each in times] for times in zip(*found, strict=True))
    bench.value("put to route", routes_ms, unit="ms", goal=Goal(_PUT_GOAL_MS))
    bench.ratio("put to route", routes_ms, "put to etcdctl watch", watch_ms, unit="ms")


def bursts(bench: Bench, arrivals: Arrivals, leases: int, rounds: int) -> None:
    """Put many leases at once, other ones in each round."""
    found = []
    for burst in range(rounds):
        first = 256 + burst * leases
        records = [lease_record(number) for number in range(first, first + leases)]
        last_s = arrivals.put(*((key, value) for _, key, value in records))
        found.append(max(arrivals.routes.at(each, 60) for each, _, _ in records) - last_s)
    bench.value(
        f"burst of {leases} leases: last put to last route", found, goal=Goal(_BURST_GOAL_S)
    )


if __name__ == "__main__":
    main()
