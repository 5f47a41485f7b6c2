"""How long a new container's name takes to be answered on another host, against Docker's own.

    .venv/bin/python -m tests.bench.spanning.names [--suite SUITE] [--rounds N]

Two lab hosts with names, on one mesh network. A round is one `docker run`. Two containers ask every
few milliseconds from before: one on its own host Docker's resolver for the name alone, one on the
other host `hostmesh-dns` for the whole name. The first answer of each counts. Docker answers before
the container's program runs, and a mesh has names of containers that run. So the time of the start
(`State.StartedAt`) is taken, too, and is what the goal is compared with.
"""

from __future__ import annotations

import time
from datetime import datetime
from statistics import quantiles
from subprocess import Popen

from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import NAME_SERVERS

from tests.bench.harness import Bench
from tests.bench.program import Options, main
from tests.bench.spanning.engine import answered_s
from tests.bench.statistic import Goal, differences
from tests.engine.names.test_names import DOMAIN, turn_on

GOAL_S = 0.2
_NETWORK = "web"
"""The network that `turn_on` creates."""
_DOCKER = "127.0.0.11"
_PROBE = """
import socket, struct, sys, time
server, name = sys.argv[1:]
labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
print("ready", flush=True)
number = 0
while True:
    number += 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.05)
        try:
            probe.connect((server, 53))
            header = struct.pack("!6H", number & 0xFFFF, 0x0100, 1, 0, 0, 0)
            probe.send(header + labels + b"\\0\\0\\1\\0\\1")
            reply = probe.recv(4096)
        except OSError:
            continue
    if reply[3] & 15 == 0 and reply[6:8] != b"\\0\\0":
        break
    time.sleep(0.002)
print(time.monotonic(), flush=True)
"""


class Prober:
    """A container that asks a server for a name until there is an answer."""

    def __init__(self, host: Host, server: str) -> None:
        self._host, self._server = host, server
        host.start_container("prober", network=_NETWORK)
        self._pid = str(host.inspect("prober")["State"]["Pid"])

    def start(self, name: str) -> Popen[bytes]:
        inside = ["nsenter", "-t", self._pid, "-n"]
        probe = self._host.popen([*inside, "python3", "-I", "-c", _PROBE, self._server, name])
        assert probe.stdout is not None
        assert probe.stdout.readline() == b"ready\n"
        return probe


def one_round(host: Host, here: Prober, there: Prober, number: int) -> tuple[float, float, float]:
    """Seconds from `docker run` to Docker's answer, the start, and the other host's answer."""
    name = f"new{number}"
    probes = here.start(name), there.start(f"{name}.{_NETWORK}.{DOMAIN}")
    began_s, began_at_s = time.monotonic(), time.time()
    host.docker("run", "--detach", "--rm", "--name", name, "--network", _NETWORK, "lab")
    started = datetime.fromisoformat(host.inspect(name)["State"]["StartedAt"][:26] + "+00:00")
    own_s, mesh_s = (answered_s(each) - began_s for each in probes)
    host.docker("rm", "--force", name)
    return own_s, started.timestamp() - began_at_s, mesh_s


def measure(bench: Bench, options: Options) -> None:
    """Measure with two lab hosts."""
    with Lab.up(LabOptions(name="namesbench", hosts=2, suite=options.suite)) as lab:
        lab.wait_ready(90)
        turn_on(lab)
        one, two = lab.hosts["host1"], lab.hosts["host2"]
        bench.fact(
            "Docker", one.docker("version", "--format", "{{.Server.Version}}").stdout.strip()
        )
        here, there = Prober(one, _DOCKER), Prober(two, NAME_SERVERS[0])
        one_round(one, here, there, 0)  # does not count
        bench.settle()
        rounds = [one_round(one, here, there, number) for number in range(1, options.rounds + 1)]
    own, started, mesh = ([each[which] for each in rounds] for which in range(3))
    for name, values in (
        ("answered by Docker on its own host", own),
        ("started, by Docker", started),
        ("answered on another host", mesh),
        ("answered there after the start", differences(mesh, started)),
    ):
        cuts = quantiles(values, n=100, method="inclusive")
        bench.fact(f"docker run: {name}", f"p50 {cuts[49]:.3f} s, p99 {cuts[98]:.3f} s")
    bench.difference("answered on another host", mesh, "Docker's start", started, goal=Goal(GOAL_S))
    bench.difference("answered on another host", mesh, "Docker's answer", own)


if __name__ == "__main__":
    main(measure, lambda parser: parser.add_argument("--suite", default="trixie"))
