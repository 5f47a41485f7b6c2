"""How long a fresh host takes to get its Docker onto the lease, against a restart of that dockerd.

    .venv/bin/python -m tests.bench.host.docker [--quick] [--suite SUITE] [--rounds N]

One lab host, its engine idle. A round is: the agent is started on a host that never had one,
until docker0 has the lease and dockerd answers; leave; then a restart of dockerd alone, until it
answers. The overhead is the difference between the two of a round.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from datetime import datetime

from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions

from tests.bench.harness import Bench, timed
from tests.bench.program import Options, main
from tests.bench.statistic import Goal

GOAL_S = 1.0
_ANSWERS = "curl -sf -m 1 --unix-socket /run/docker.sock http://docker/_ping >/dev/null"
_ON_LEASE = f"until ip -4 -o address show dev docker0 | grep -q ' 10\\.' && {_ANSWERS}"
_STEPS = (
    ("lease-claimed", "lease"),
    ("docker-restart-due", "restart begun"),
    ("docker-restarted", "restart ended"),
)


@dataclass(frozen=True)
class Round:
    """Seconds: the whole way, a restart alone, and when each step was logged."""

    joined_s: float
    restart_s: float
    steps_s: dict[str, float]


def join(host: Host) -> tuple[float, dict[str, float]]:
    """Start the agent; seconds until docker0 has the lease and dockerd answers, and its steps."""
    logged = len(host.agent_log())
    watch = host.popen(["sh", "-c", f"{_ON_LEASE}; do sleep 0.02; done"])
    began, started_s = time.time(), time.monotonic()
    host.service("start", "agent")
    if watch.wait(120) != 0:
        sys.exit("docker0 did not get the lease")
    joined_s = time.monotonic() - started_s
    host.run(["agentctl", "wait", "--ready"], timeout_s=120)
    steps = {}
    for line in host.agent_log()[logged:].splitlines():
        entry = json.loads(line) if line.startswith("{") else {}
        at_s = datetime.fromisoformat(entry["timestamp"]).timestamp() if entry else 0.0
        steps.update({name: at_s - began for event, name in _STEPS if entry.get("event") == event})
    return joined_s, steps


def forget(host: Host) -> None:
    """Make it a host that never had an agent."""
    host.agentctl("leave", timeout_s=120)
    host.stop_agent()
    host.run(["sh", "-c", "rm -rf /var/lib/hostmesh/* /run/hostmesh/*"])


def one_round(host: Host) -> Round:
    joined_s, steps = join(host)
    forget(host)
    time.sleep(2)  # what dockerd does after it answers is no part of the next figure
    restart_s = timed(lambda: host.run(["lab-service", "restart", "docker"], timeout_s=120))()
    time.sleep(2)
    return Round(joined_s, restart_s, steps)


def measure(bench: Bench, options: Options) -> None:
    """Measure with one lab host."""
    lab_options = LabOptions(
        name="dockerbench", hosts=1, suite=options.suite, host=HostOptions(agent=False)
    )
    with Lab.up(lab_options) as lab:
        host = lab.hosts["host1"]
        bench.fact(
            "Docker", host.docker("version", "--format", "{{.Server.Version}}").stdout.strip()
        )
        one_round(host)  # the first restart of a fresh dockerd takes longer
        bench.settle()
        rounds = [one_round(host) for _ in range(options.rounds)]
    for name in [name for _, name in _STEPS]:
        steps = [each.steps_s[name] for each in rounds if name in each.steps_s]
        bench.value(f"agent started to {name}", steps)
    bench.difference(
        "docker0 on the lease",
        [each.joined_s for each in rounds],
        "a restart of dockerd alone",
        [each.restart_s for each in rounds],
        goal=Goal(GOAL_S),
    )


if __name__ == "__main__":
    main(measure, lambda parser: parser.add_argument("--suite", default="forky"))
