"""Memory of the objects of a tunnel backend: a route, a neighbour and an FDB entry per peer.

    .venv/bin/python tests/bench/host/tunnel_objects.py [--rounds N] [PEERS]

Each round is a process of its own. Its tables hold in memory what the kernel would, and list it
anew each time, as netlink does. Measured is the resident memory that the desired objects and their
reconcilers add, after three full comparisons; a list itself is gone by then.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from agent.mesh.object_kinds import FDB, NEIGHBOUR, route_kind
from agent.model import FdbEntry, Neighbour, Route
from agent.reconcile.interfaces import NONE_KNOWN, Listing, Operation, OperationKind, Result
from agent.reconcile.object_kind import Kind
from agent.reconcile.reconciler import Permission, Reconciler, reconcile
from tests.bench.harness import Bench
from tests.bench.statistic import Goal

_PEERS = 10_000
_GOAL_MB = 25
"""For 30,000 objects: 0.8 kB each, the value in Python and its places in two maps."""
_LINK = "hostmesh.1"


class Memory:
    """A table whose kernel is a dictionary; every list is made of new values."""

    def __init__(self) -> None:
        self._there: dict[Hashable, Any] = {}

    def list_all(self, known: Mapping[Any, Any] = NONE_KNOWN) -> Listing[Any]:
        read = (replace(each) for each in self._there.values())
        return Listing(tuple(same if (same := known.get(e.key)) == e else e for e in read))

    def apply(
        self, operations: Sequence[Operation[Any]], *, for_s: float | None = None
    ) -> tuple[Result[Any], ...]:
        del for_s
        for each in operations:
            if each.kind is OperationKind.REPLACE:
                self._there[each.object.key] = each.object
            else:
                self._there.pop(each.object.key, None)
        return tuple(map(Result, operations))


def objects(number: int) -> tuple[Route, Neighbour, FdbEntry]:
    """Return what peer ``number`` needs."""
    subnet = IPv4Network((int(IPv4Address("10.0.0.0")) + number * 256, 24))
    gateway = subnet.network_address
    mac = f"02:00:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    node = IPv4Address(int(IPv4Address("172.16.0.1")) + number)
    return (
        Route(destination=subnet, gateway=gateway, link=_LINK, protocol=140, onlink=True),
        Neighbour(link=_LINK, address=gateway, mac=mac),
        FdbEntry(link=_LINK, mac=mac, destination=node),
    )


def resident_mb() -> float:
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(each for each in status.splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def measure(peers: int) -> None:
    """In the child: print the MB that were added, without what the tables hold themselves."""
    kinds: tuple[Kind[Any], ...] = (route_kind(140), NEIGHBOUR, FDB)
    kernel = [Memory() for _ in kinds]
    before_mb = resident_mb()
    reconcilers = [
        Reconciler(kind, table, clock=time.monotonic)
        for kind, table in zip(kinds, kernel, strict=True)
    ]
    for number in range(peers):
        made: tuple[Any, ...] = objects(number)
        for target, each in zip(reconcilers, made, strict=True):
            target.want({each.key: each})
    for _ in range(4):
        for target in reconcilers:
            target.look_again()
        reports = reconcile(reconcilers, Permission(may_delete=True))
        assert all(each.complete for each in reports)
    print(resident_mb() - before_mb)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", type=int, nargs="?", default=_PEERS)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(arguments.peers)
        return
    bench = Bench("tunnel_objects")
    command = [sys.executable, __file__, "--child", str(arguments.peers)]
    found = [float(subprocess.check_output(command)) for _ in range(arguments.rounds)]
    goal = Goal(_GOAL_MB) if arguments.peers == _PEERS else None
    bench.value(f"{3 * arguments.peers} tunnel objects", found, unit="MB", goal=goal)
    sys.exit(bench.finish())


if __name__ == "__main__":
    main()
