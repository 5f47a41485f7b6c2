"""Resident memory of what grows with the mesh, with 10, 1,000 and 10,000 peers.

    .venv/bin/python -m tests.bench.cost.agent_memory [--peers N ...]

Each round of a count is measured in a process of its own, in an empty network namespace.
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

from tests.bench.harness import ROOT, Bench
from tests.bench.program import Options, main
from tests.bench.statistic import Goal

GOALS_MB = {10: 50, 1_000: 55, 10_000: 95}
_JUDGED = "after a full pass and the copy"
_STATES = ("loaded", "working", _JUDGED, "at most")
_AS_INSTALLED = """
import runpy, sys
sys.modules["rich"] = None
runpy.run_module("tests.bench.cost.followed_mesh", run_name="__main__", alter_sys=True)
"""
"""structlog takes rich where it finds it; requirements.lock does not have it, development does."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the program's own arguments."""
    parser.add_argument("--peers", type=int, nargs="+", default=[*GOALS_MB], metavar="N")


def measure(bench: Bench, options: Options) -> None:
    """Measure each count."""
    for peers in options.peers:
        found = [in_a_child(peers) for _ in range(options.rounds)]
        for number, state in enumerate(_STATES):
            goal = Goal(GOALS_MB[peers]) if state == _JUDGED and peers in GOALS_MB else None
            values = [each[number] for each in found]
            bench.value(f"{peers} peers: {state}", values, unit="MB", goal=goal)


def in_a_child(peers: int) -> list[float]:
    """Return the resident MB in each state."""
    command = ["unshare", "--net", sys.executable, "-c", _AS_INSTALLED, str(peers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return [float(each) for each in done.stdout.splitlines()[-1].split()]


if __name__ == "__main__":
    main(measure, arguments)
