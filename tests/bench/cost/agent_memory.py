"""Resident memory of what grows with the mesh, with 10, 1,000 and 10,000 peers.

    .venv/bin/python -m tests.bench.cost.agent_memory [--rounds N] [PEERS ...]

Each round of a count is measured in a process of its own, in an empty network namespace (root).
It measures what the daemon holds: everything that ``agent.daemon.app`` imports, the records as
etcd would send them (lease, heartbeat and memory of each host), the view of them, what the loop
knows, desired and actual routes of a real kernel, and the host's own copy, written once. Threads
and sockets to etcd and Docker are not there: they do not grow with the mesh, and running_agent.py
measures them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.control_path.large_mesh import Agent, new_address, prepare
from tests.bench.harness import ROOT, Bench
from tests.bench.statistic import Goal

GOALS_MB = {10: 50, 1_000: 55, 10_000: 95}
_AS_INSTALLED = """
import runpy, sys
sys.modules["rich"] = None
runpy.run_module("tests.bench.cost.agent_memory", run_name="__main__", alter_sys=True)
"""
"""structlog takes rich where it finds it; requirements.lock does not have it, development does."""


def resident_mb(field: str = "VmRSS") -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(each for each in status.splitlines() if each.startswith(field))
    return int(line.split()[1]) / 1024


def measure(peers: int) -> None:
    """In the child: print what was found."""
    loaded_mb = resident_mb()
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        agent = Agent(Path(folder), peers)
        for shift in range(1, 4):
            agent.follow(new_address(1 + shift, shift))
        working_mb = resident_mb()
        agent.compare_all()
        report = agent.scheduler.report
        assert report.complete, report
        assert (report.desired or 0) > peers, report
    print(f"{loaded_mb} {working_mb} {resident_mb()} {resident_mb('VmHWM')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", type=int, nargs="*", default=list(GOALS_MB))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(arguments.peers[0])
        return
    bench = Bench("agent_memory")
    for peers in arguments.peers:
        found = [in_a_child(peers) for _ in range(arguments.rounds)]
        goal_mb = GOALS_MB.get(peers)
        for number, (state, goal) in enumerate(
            (
                ("loaded", None),
                ("working", None),
                ("after a full pass and the copy", goal_mb),
                ("at most", None),
            )
        ):
            bench.value(
                f"{peers} peers: {state}",
                [each[number] for each in found],
                unit="MB",
                goal=None if goal is None else Goal(goal),
            )
    sys.exit(bench.finish())


def in_a_child(peers: int) -> list[float]:
    """Resident MB: loaded, working, after a full pass and the copy, at most."""
    start = [sys.executable, "-c", _AS_INSTALLED, "--child", str(peers)]
    command = ["unshare", "--net", *start]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return [float(each) for each in done.stdout.splitlines()[-1].split()]


if __name__ == "__main__":
    main()
