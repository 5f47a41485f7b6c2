"""How long an agent needs from its start to its last route, by the number of leases in etcd.

    .venv/bin/python -m tests.bench.control_path.cold_start

A real etcd with the leases, heartbeats and memory records of 10, 1,000 and 10,000 hosts, and a real
agent in a namespace, started on a host without state and without routes. Beside it: `etcdctl get`
of the same records, and `ip -batch` of the same routes.
"""

from __future__ import annotations

import time

from tests.bench.control_path.peers import subnet_of, transactions
from tests.bench.harness import Bench, Run, interleave
from tests.bench.program import Options, main
from tests.netns.mesh.arrivals import lines_of
from tests.netns.mesh.stage import Stage

_LEASES = (10, 1_000, 10_000)
_WITHIN_S = 300
_LINK = "192.0.2"


def measure(bench: Bench, options: Options) -> None:
    """Measure with each number of leases, in a mesh that grows."""
    stage = Stage(2)
    try:
        stage.create_mesh()
        before = 0
        for leases in _LEASES:
            for text in transactions(range(before + 1, leases + 1), _LINK):
                done = stage.run_etcdctl(["txn"], text)
                assert done.returncode == 0, done.stderr
            before = leases
            ours, other = interleave(
                (started(stage, leases), by_hand(stage, leases)), options.rounds
            )
            what = f"cold start with {leases} leases: start to last route"
            bench.value(what, ours)
            bench.ratio(what, ours, "etcdctl get and ip -batch", other)
    finally:
        stage.close()


def started(stage: Stage, leases: int) -> Run:
    """Return a run that starts an agent on the first host, for the first time."""
    node = stage.nodes[0]

    def run() -> float:
        node.stop()
        node.inside(["rm", "-rf", str(node.folder / "state")])
        node.host.ip("route flush proto 140", check=False)
        with lines_of(node, ["ip", "monitor", "route"]) as routes:
            began_s = time.monotonic()
            node.spawn()
            last = max(routes.at(str(subnet_of(each)), _WITHIN_S) for each in range(1, leases + 1))
        return last - began_s

    return run


def by_hand(stage: Stage, leases: int) -> Run:
    """Return a run that reads the records and writes the routes on the second host."""
    host = stage.nodes[1].host
    gateway = f"via {stage.nodes[0].address} dev eth0 proto 141"
    lines = [f"route add {subnet_of(each)} {gateway}" for each in range(1, leases + 1)]

    def run() -> float:
        host.ip("route flush proto 141", check=False)
        began_s = time.monotonic()
        stage.on_etcd_host(["sh", "-c", "etcdctl get --prefix /hostmesh/ > /dev/null"])
        host.batch(lines)
        return time.monotonic() - began_s

    return run


if __name__ == "__main__":
    main(measure)
