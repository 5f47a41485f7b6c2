"""How soon a mesh network's change has its effect on a peer.

    .venv/bin/python -m tests.bench.control_path.network_changes

Two lab hosts with Docker. A round makes a mesh network on one host with `agentctl network create`
and deletes it. The effect is that on the other host: its firewall's set has the first host's part
of the network, or no longer has it. Containers and their names are measured by
tests.bench.spanning.engine and tests.bench.spanning.names.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host

from tests.bench.harness import Bench
from tests.bench.program import Options, main
from tests.waiting import eventually

_WITHIN_S = 30


def measure(bench: Bench, options: Options) -> None:
    """Measure with two hosts."""
    with Lab.up(LabOptions(name="netchange", hosts=2)) as lab:
        lab.wait_ready(90)
        one, two = lab.hosts["host1"], lab.hosts["host2"]
        one.agentctl("config", "set", "--level", "3")
        one_round(one, two, "warm")
        bench.settle()
        rounds = [one_round(one, two, f"w{number}") for number in range(options.rounds)]
    made, gone = zip(*rounds, strict=True)
    bench.value("network create: until the peer's set has the host's part", made)
    bench.value("network rm: until the peer's set has it no longer", gone)


def one_round(one: Host, two: Host, name: str) -> tuple[float, float]:
    """Return the seconds from the command to its effect on the other host, for either command."""

    def part() -> str:
        (network,) = one.inspect(name)["IPAM"]["Config"]
        return str(network["Subnet"])

    def made() -> bool:
        return part() in two.run(["ipset", "save"]).stdout

    made_s = timed(lambda: one.agentctl("network", "create", name), made)
    subnet = part()
    gone_s = timed(
        lambda: one.agentctl("network", "rm", name),
        lambda: subnet not in two.run(["ipset", "save"]).stdout,
    )
    return made_s, gone_s


def timed(work: Callable[[], object], done: Callable[[], bool]) -> float:
    """Return the seconds from the begin of ``work`` until ``done`` is first seen true."""
    began_s = time.monotonic()
    work()
    eventually(done, _WITHIN_S)
    return time.monotonic() - began_s


if __name__ == "__main__":
    main(measure)
