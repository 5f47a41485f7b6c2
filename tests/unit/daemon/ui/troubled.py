"""A sample mesh in which a few things are wrong.

``python -m tests.unit.daemon.ui.troubled 300`` serves it, to look at the page.
"""

from __future__ import annotations

import sys
import threading

from agent.model import Condition, Severity
from tests.unit.daemon.ui.sample import SampleAgent

__all__ = ["with_problems"]


def with_problems(hosts: int) -> SampleAgent:
    """Return a mesh in which a few things are wrong."""
    agent = SampleAgent(hosts, sites=2 if hosts < 50 else 6)
    agent.down = {hosts - 1} if hosts < 50 else {17, 83, 211}
    agent.failing = {2} if hosts < 50 else {42}
    agent.outdated = {4}
    agent.reported = {4: ("docker-restart-pending",)}
    agent.conditions = [
        Condition(
            name="operator-blocks-mesh",
            severity=Severity.ERROR,
            cause="rule 2 of DOCKER-USER (-i eth0 -j DROP) drops what containers of other hosts"
            " send to this one",
            hint="delete it: iptables -D DOCKER-USER -i eth0 -j DROP; or put the mesh first:"
            " iptables -I DOCKER-USER -s 10.64.0.0/10 -j RETURN",
        ),
        Condition(
            name="docker-absent",
            severity=Severity.INFO,
            cause="no Docker Engine answers on /var/run/docker.sock",
            hint="nothing to do: it uses this host's subnet when it starts",
        ),
    ]
    agent.happened = [
        ("agent-started", "", "hostmesh-agent 0.2.0 started"),
        ("subnet-held", "10.64.0.0/20", "this host holds 10.64.0.0/20"),
        ("peer-joined", "10.64.16.0/20", "ams1 at 192.0.2.2 joined with 10.64.16.0/20"),
        ("peer-joined", "10.64.32.0/20", "fra2 at 192.0.2.3 joined with 10.64.32.0/20"),
        ("peer-joined", "10.64.48.0/20", "ams2 at 192.0.2.4 joined with 10.64.48.0/20"),
        ("route-repaired", "10.64.32.0/20", "10.64.32.0/20 via 192.0.2.3 was missing; put right"),
        ("condition-raised", "peer-dead", "peer-dead: ams3 has no heartbeat and answers no probe"),
    ]  # fmt: skip
    return agent


if __name__ == "__main__":
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    served = with_problems(size).serve(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(f"http://127.0.0.1:{served.port}/ui", flush=True)
    threading.Event().wait()
