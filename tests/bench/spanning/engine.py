"""How long a new container takes to be reachable from another host, against Docker's own time.

    .venv/bin/python -m tests.bench.spanning.engine [--suite SUITE] [--rounds N]

Two lab hosts on one network of `agentctl network create`. A round is one `docker run`. Two
containers, one on each host, connect to its address every few milliseconds from before. The first
answer on its own host is Docker's time, the first one on the other host is the mesh's. Addresses
are resolved beforehand: ARP's own pauses of a second are no part of either.
"""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv4Network
from statistics import quantiles
from subprocess import Popen

from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host

from tests.bench.harness import Bench
from tests.bench.program import Options, main
from tests.bench.statistic import Goal

GOAL_S = 0.1
_NETWORK = "shop"
_MAC = "02:00:00:00:00:{:02x}"
_FIRST = 20
_PROBE = """
import socket, sys, time
print("ready", flush=True)
while True:
    with socket.socket() as probe:
        probe.settimeout(0.01)
        try:
            probe.connect((sys.argv[1], 80))
            break
        except OSError:
            time.sleep(0.002)
print(time.monotonic(), flush=True)
"""


class Prober:
    """A container that asks for an address until it answers."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.start_container("prober", network=_NETWORK)
        self.pid = host.docker("inspect", "-f", "{{.State.Pid}}", "prober").stdout.strip()

    def inside(self, *words: str) -> list[str]:
        return ["nsenter", "-t", self.pid, "-n", *words]

    def start(self, address: IPv4Address) -> Popen[bytes]:
        argv = self.inside("python3", "-c", _PROBE, str(address))
        probe = self.host.popen(argv)
        assert probe.stdout is not None
        assert probe.stdout.readline() == b"ready\n"
        return probe


def answered_s(probe: Popen[bytes]) -> float:
    out, _ = probe.communicate(timeout=60)
    return float(out)


def one_round(here: Prober, there: Prober, number: int) -> tuple[float, float]:
    """Seconds from `docker run` to the first answer here, and on the other host."""
    host = here.host
    (network,) = host.inspect(_NETWORK)["IPAM"]["Config"]
    address = IPv4Network(network["Subnet"])[_FIRST + number]
    mac = _MAC.format(number)
    bridge = host.inspect(_NETWORK)["Options"]["com.docker.network.bridge.name"]
    neighbour = ["ip", "neighbour", "replace", str(address), "lladdr", mac, "nud", "permanent"]
    host.run([*neighbour, "dev", bridge])
    host.run(here.inside(*neighbour, "dev", "eth0"))
    probes = [each.start(address) for each in (here, there)]
    fixed = ["--ip", str(address), "--mac-address", mac, "--network", _NETWORK]
    began_s = time.monotonic()
    host.docker("run", "--detach", "--rm", "--name", "new", *fixed, "lab")
    own_s, mesh_s = (answered_s(each) - began_s for each in probes)
    host.docker("rm", "--force", "new")
    return own_s, mesh_s


def measure(bench: Bench, options: Options) -> None:
    """Measure with two lab hosts."""
    with Lab.up(LabOptions(name="netbench", hosts=2, suite=options.suite)) as lab:
        lab.wait_ready(90)
        one, two = lab.hosts["host1"], lab.hosts["host2"]
        one.agentctl("config", "set", "--level", "3")
        began_s = time.monotonic()
        one.agentctl("network", "create", _NETWORK)
        bench.fact("network create until both hosts have it", f"{time.monotonic() - began_s:.2f} s")
        version = one.docker("version", "--format", "{{.Server.Version}}").stdout.strip()
        bench.fact("Docker", version)
        here, there = Prober(one), Prober(two)
        one_round(here, there, 0)  # does not count
        bench.settle()
        rounds = [one_round(here, there, number) for number in range(1, options.rounds + 1)]
    own, mesh = ([each[which] for each in rounds] for which in (0, 1))
    for name, values in (("on its own host", own), ("from another host", mesh)):
        cuts = quantiles(values, n=100, method="inclusive")
        bench.fact(f"docker run to reachable {name}", f"p50 {cuts[49]:.3f} s, p99 {cuts[98]:.3f} s")
    bench.difference("reachable from another host", mesh, "on its own", own, goal=Goal(GOAL_S))


if __name__ == "__main__":
    main(measure, lambda parser: parser.add_argument("--suite", default="trixie"))
