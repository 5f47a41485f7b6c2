"""The table of bench programs: one row each, in the order of docs/figures.md.

A new program is a module that calls `tests.bench.program.main`, and a row here. A row without
`quick_rounds` is no part of `make bench`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """A bench program.

    Attributes:
        name: Of its JSON and its block in docs/figures.md.
        module: Run as ``python -m MODULE``.
        rounds: Of each figure, unless ``--rounds`` says otherwise; fewer than six give none.
        quick_rounds: The same with ``--quick``; 0 for a program that is not quick.
        minutes: Expected on two quiet cores, in full.
        quick_minutes: The same with ``--quick``.
        isolated: It runs in network and PID namespaces of its own, with etcd's programs there.
        needs: Programs that it runs, beside those of `tests/prepare.sh lab`.
    """

    name: str
    module: str
    rounds: int
    minutes: float
    quick_rounds: int = 0
    quick_minutes: float = 0
    isolated: bool = False
    needs: tuple[str, ...] = ()

    def deadline_s(self, *, quick: bool) -> int:
        """Return when it ends at the latest: far beyond the expected, for a loaded machine."""
        return 600 + round(5 * 60 * (self.quick_minutes if quick else self.minutes))


PROGRAMS = (
    Program("backends", "tests.bench.data_path.backends", 6, 35, 6, 4),
    Program(
        "distance",
        "tests.bench.data_path.distance",
        12,
        9,
        isolated=True,
        needs=("iperf3", "qperf", "ethtool"),
    ),
    Program("control_path", "tests.bench.control_path.put_to_route", 9, 4, 6, 1, isolated=True),
    Program("join_storm", "tests.bench.control_path.join_storm", 6, 7, isolated=True),
    Program("cold_start", "tests.bench.control_path.cold_start", 6, 4, isolated=True),
    Program("drift", "tests.bench.control_path.drift", 6, 6, 6, 1),
    Program("membership", "tests.bench.control_path.membership", 12, 8, isolated=True),
    Program("network_changes", "tests.bench.control_path.network_changes", 8, 2),
    Program("leases", "tests.bench.control_path.leases", 300, 6, isolated=True),
    Program("routes", "tests.bench.control_path.routes", 7, 4, isolated=True),
    Program("running_agent", "tests.bench.cost.running_agent", 6, 20, 6, 2),
    Program("agent_memory", "tests.bench.cost.agent_memory", 6, 2, isolated=True),
    Program("fleet", "tests.bench.scale.fleet", 6, 8, isolated=True),
    Program("boot", "tests.bench.host.boot", 6, 6),
    Program("docker", "tests.bench.host.docker", 7, 3, 6, 1.5),
    Program("firewall", "tests.bench.host.firewall", 20, 3, 12, 1.5, isolated=True),
    Program("tunnel", "tests.bench.host.tunnel", 6, 3, isolated=True),
    Program("agentctl", "tests.bench.host.agentctl", 12, 2, 6, 1, isolated=True),
    Program("names", "tests.bench.names", 7, 4, isolated=True, needs=("dnsmasq", "dnsperf")),
    Program("names-engine", "tests.bench.spanning.names", 50, 4),
    Program("networks", "tests.bench.spanning.networks", 400, 4, isolated=True),
    Program("networks-engine", "tests.bench.spanning.engine", 50, 4),
)
