"""Throughput, latency and processor time of each backend, beside the bare hosts, from one run.

    .venv/bin/python -m tests.bench.data_path.backends [--rounds N] [--backends host-gw,vxlan]

Each backend has a lab of two hosts on one LAN, and all labs are there at once. Each round measures
the hosts themselves and then, by each backend in turn, a container on one host with a container on
the other. Takes about five minutes.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.underlay import wireguard
from hostmesh_lab.wait import wait_until

from agent.model import BACKENDS
from tests.bench.harness import Bench, busy_s
from tests.bench.statistic import summarize

BARE = "bare hosts"
QUIET_WITHIN_S = 60.0
_SECONDS = 1
_PINGS = 200
_TIME = re.compile(r"time=([0-9.]+) ms")


@dataclass
class Measured:
    """Values of one way, one for each round.

    Attributes:
        cpu_s_gb: Processor time of the whole machine for one gigabyte: both ends and, where there
            is one, the program that encrypts.
    """

    gbit_s: list[float] = field(default_factory=list)
    rtt_ms: list[float] = field(default_factory=list)
    cpu_s_gb: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Way:
    """A way from one host to another.

    Attributes:
        inside: How to run a program of the client in the network that it sends from.
    """

    client: Host
    address: str
    inside: Sequence[str]

    def measure(self, found: Measured) -> None:
        """Send for some time, then ping."""
        before_s = busy_s()
        send = [*self.inside, "iperf3", "-J", "-t", str(_SECONDS), "-c", self.address]
        end = json.loads(self.client.run(send, timeout_s=30).stdout)["end"]["sum_received"]
        ping = [*self.inside, "ping", "-n", "-i", "0.002", "-c", str(_PINGS), self.address]
        spent_s = busy_s() - before_s
        said = self.client.run(ping, timeout_s=30).stdout
        found.gbit_s.append(end["bits_per_second"] / 1e9)
        found.cpu_s_gb.append(spent_s / (end["bytes"] / 1e9))
        found.rtt_ms.append(statistics.median(map(float, _TIME.findall(said))))

    def wait(self) -> None:
        """Wait until packets and the server of iperf3 are there."""
        send = [*self.inside, "iperf3", "-n", "1M", "-c", self.address]
        wait_until(
            lambda: self.client.run(send, check=False).returncode == 0,
            60,
            f"iperf3 at {self.address}",
        )


def way(client: Host, server: Host, container: str) -> Way:
    """Start what is needed on both ends; no container: the hosts themselves."""
    address = server.address
    if container:
        client.start_container(container)
        address = str(server.start_container(container))
    server.popen([*enter(server, container), "iperf3", "-s"])
    found = Way(client, address, enter(client, container))
    found.wait()
    return found


def enter(host: Host, container: str) -> list[str]:
    """How to run one of the host's programs in a container's network."""
    if not container:
        return []
    pid = host.docker("inspect", "-f", "{{.State.Pid}}", container).stdout.strip()
    return ["nsenter", "-t", pid, "-n"]


def lab_of(backend: str) -> Lab:
    """Start two hosts."""
    packages = ["iperf3", *(wireguard.PACKAGES if backend == "wireguard" else ())]
    name = f"bench-{backend}"
    lab = Lab.up(LabOptions(name=name, hosts=2, packages=packages, backend={"Type": backend}))
    lab.wait_ready(120)
    return lab


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--backends", default=",".join(BACKENDS))
    arguments = parser.parse_args()
    backends = arguments.backends.split(",")
    found = {name: Measured() for name in (BARE, *backends)}
    with ExitStack() as labs:
        ways: dict[str, Way] = {}
        for name in backends:
            lab = labs.enter_context(lab_of(name))
            pair = lab.hosts["host1"], lab.hosts["host2"]
            if not ways:
                ways[BARE] = way(*pair, "")
            ways[name] = way(*pair, "web")
        bench = Bench("backends", quiet_within_s=QUIET_WITHIN_S)
        for each in ways.values():
            each.measure(Measured())  # a first one does not count
        for number in range(arguments.rounds):
            order = list(ways) if number % 2 else list(reversed(ways))
            for name in order:
                ways[name].measure(found[name])
    for name, measured in found.items():
        bench.value(f"{name}: throughput", measured.gbit_s, unit="Gbit/s")
        bench.value(f"{name}: round trip", measured.rtt_ms, unit="ms")
        bench.value(f"{name}: processor time", measured.cpu_s_gb, unit="s per GB")
    status = bench.finish()
    print_table(found)
    sys.exit(status)


def print_table(found: dict[str, Measured]) -> None:
    """Print the rows of docs/figures.md, "Backends"."""
    print("| way | throughput | round trip | processor time |\n| --- | --- | --- | --- |")
    for name, each in found.items():
        sent, asked, spent = map(summarize, (each.gbit_s, each.rtt_ms, each.cpu_s_gb))
        print(
            f"| {name} | {sent.median:.1f} Gbit/s ({sent.low:.1f} to {sent.high:.1f})"
            f" | {asked.median:.3f} ms | {spent.median:.2f} s per GB |"
        )


if __name__ == "__main__":
    main()
