"""A join of 1,000 hosts within a minute, as one host of the mesh sees it.

    .venv/bin/python -m tests.bench.control_path.join_storm [--hosts N]

A real etcd, a real agent, and the records of hosts that join at equal distances, written as agents
write them: a heartbeat, the claim (lease and memory in one transaction), the heartbeat with the
subnet. Beside the agent runs a client with one watch and nothing else. The join is over with the
last host's route.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.bare_client import PROGRAM, WATCHES
from tests.bench.control_path.peers import joining, node_of, subnet_of
from tests.bench.harness import Bench, processor_s
from tests.bench.program import Options, main
from tests.bench.statistic import Goal
from tests.netns.mesh.arrivals import Arrivals, lines_of
from tests.netns.mesh.stage import ETCD, Stage

_HOSTS = 1_000
_MINUTE_S = 60.0
_GOAL_S = 0.3
_WITHIN_S = 60
_LINK = "192.0.2"


@dataclass(frozen=True)
class Join:
    """One join of all hosts, in seconds.

    Attributes:
        late_s: From the answer to the last put to the last route.
        agent_s, client_s: Processor time.
    """

    late_s: float
    agent_s: float
    client_s: float


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the program's own arguments."""
    parser.add_argument("--hosts", type=int, default=_HOSTS, help="that join within a minute")


def measure(bench: Bench, options: Options) -> None:
    """Let all hosts join, in a new mesh each time."""
    found = [join(options.hosts) for _ in range(options.rounds)]
    what = f"join of {options.hosts} hosts in a minute"
    bench.value(f"{what}: last put to last route", [each.late_s for each in found],
                goal=Goal(_GOAL_S))  # fmt: skip
    agents, clients = [each.agent_s for each in found], [each.client_s for each in found]
    bench.value(f"{what}: an agent's processor time", agents)
    bench.ratio(f"{what}: processor time", agents, "a bare gRPC client", clients)


def join(hosts: int) -> Join:
    """Let so many hosts join a mesh of one."""
    with Stage(1).running() as stage, Arrivals(stage.nodes[0]) as arrivals:
        node = stage.nodes[0]
        client = [sys.executable, "-c", PROGRAM, f"{ETCD}:2379", "/hostmesh/", "/hostmesh0"]
        with lines_of(node, client) as bare:
            bare.at(WATCHES, _WITHIN_S)
            own = node.subnet()
            numbers = [each for each in range(hosts + 1) if str(subnet_of(each)) != own]
            pids = node.agent_pid, bare.pid
            before = [processor_s(each) for each in pids]
            last_s = put_all(arrivals, numbers[:hosts])
            routes = [str(subnet_of(each)) for each in numbers[:hosts]]
            routed_s = max(arrivals.routes.at(each, _WITHIN_S) for each in routes)
            took = [processor_s(pid) - begin for pid, begin in zip(pids, before, strict=True)]
    return Join(routed_s - last_s, *took)


def put_all(arrivals: Arrivals, numbers: Sequence[int]) -> float:
    """Write the records of all hosts in a minute; return the time of the last answer."""
    began_s = last_s = time.monotonic()
    for place, each in enumerate(numbers):
        time.sleep(max(0.0, began_s + _MINUTE_S * place / len(numbers) - time.monotonic()))
        last_s = arrivals.put_groups(*joining(each, node_of(each, _LINK)))
    return last_s


if __name__ == "__main__":
    main(measure, arguments)
