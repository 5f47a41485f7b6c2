"""Throughput, latency and processor time of each backend, beside the bare hosts, from one run.

    .venv/bin/python -m tests.bench.backends [--rounds N] [--backends host-gw,vxlan]

Two lab hosts on one LAN. Each round measures the hosts themselves and then a container on one
with a container on the other, by each backend in turn; `agentctl config set --backend` changes it.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from dataclasses import dataclass, field

from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.underlay import wireguard
from hostmesh_lab.wait import wait_until

from agent.model import BACKENDS
from tests.bench.harness import Bench

BARE = "bare hosts"
_SECONDS = 2
_PINGS = 200
_TIME = re.compile(r"time=([0-9.]+) ms")


@dataclass
class Measured:
    """Values of one way, one for each round."""

    gbit_s: list[float] = field(default_factory=list)
    rtt_ms: list[float] = field(default_factory=list)
    cpu_percent: list[float] = field(default_factory=list)


def enter(host: Host, container: str) -> list[str]:
    """How to run one of the host's programs in a container's network."""
    if not container:
        return []
    pid = host.docker("inspect", "-f", "{{.State.Pid}}", container).stdout.strip()
    return ["nsenter", "-t", pid, "-n"]


def measure(client: Host, server: Host, address: str, container: str, found: Measured) -> None:
    """Send for some seconds, then ping."""
    serving = server.popen([*enter(server, container), "iperf3", "-s", "-1"])
    inside = enter(client, container)
    wait_until(
        lambda: client.run([*inside, "ping", "-c1", "-W1", address], check=False).returncode == 0,
        30,
        f"{address} to answer",
    )
    command = [*inside, "iperf3", "-J", "-t", str(_SECONDS), "-c", address]
    wait_until(lambda: _sent(client, command, found), 10, "iperf3")
    serving.wait(10)
    ping = ["ping", "-n", "-i", "0.005", "-c", str(_PINGS), address]
    said = client.run([*inside, *ping], timeout_s=30).stdout
    found.rtt_ms.append(statistics.median(map(float, _TIME.findall(said))))


def _sent(client: Host, command: list[str], found: Measured) -> bool:
    done = client.run(command, timeout_s=30, check=False)
    if done.returncode != 0:
        return False
    end = json.loads(done.stdout)["end"]
    cpu = end["cpu_utilization_percent"]
    found.gbit_s.append(end["sum_received"]["bits_per_second"] / 1e9)
    found.cpu_percent.append(cpu["host_total"] + cpu["remote_total"])
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backends", default=",".join(BACKENDS))
    arguments = parser.parse_args()
    backends = arguments.backends.split(",")
    found = {name: Measured() for name in (BARE, *backends)}
    options = LabOptions(name="backends", hosts=2, packages=["iperf3", *wireguard.PACKAGES])
    with Lab.up(options) as lab:
        lab.wait_ready(60)
        one, two = lab.hosts["host1"], lab.hosts["host2"]
        one.start_container("web")
        web = str(two.start_container("web"))
        for _ in range(arguments.rounds):
            measure(one, two, two.address, "", found[BARE])
            for name in backends:
                one.agentctl("config", "set", "--backend", name, timeout_s=120)
                measure(one, two, web, "web", found[name])
    bench = Bench("backends")
    for name, each in found.items():
        bench.value(f"{name}: throughput", each.gbit_s, unit="Gbit/s")
        bench.value(f"{name}: round trip", each.rtt_ms, unit="ms")
        bench.value(f"{name}: processor, both ends", each.cpu_percent, unit="%")
    sys.exit(bench.finish())


if __name__ == "__main__":
    main()
