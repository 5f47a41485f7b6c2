"""Programs of Debian that load a way, and what their output says.

iperf3 sends streams, qperf and sockperf wait for replies, wrk connects anew for each request to
nginx. None has all of it: qperf has no percentiles, sockperf takes 3 s for 1 s of measuring, and
neither counts connections. netperf would be one program for most, but it is not in Debian's main.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from hostmesh_lab import shell
from hostmesh_lab.wait import wait_until

from tests.bench.data_path.ways import Way
from tests.bench.harness import busy_s

PACKAGES = ("iperf3", "qperf", "sockperf", "wrk", "nginx-light")
CONGESTION_CONTROL = "cubic"
"""Debian's, of every TCP stream. A new network namespace has the machine's, which may differ."""
_SECONDS = 1
_SMALL, _LARGE = 64, 1372
"""Bytes of a datagram: the large one fits into a packet of every way."""
_DEADLINE_S = 30.0
_WEB, _SOCKPERF = 8080, 11111
_NGINX = f"""\
user root; daemon off; master_process off; pid /run/bench-nginx.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    server {{ listen {_WEB} backlog=4096; location / {{ return 204; }} }}
}}
"""
_SERVERS: Mapping[str, tuple[Sequence[str], int]] = {
    "iperf3": (("iperf3", "-s"), 5201),
    "qperf": (("qperf",), 19765),
    "sockperf": (("sockperf", "server", "--tcp", "-p", str(_SOCKPERF)), _SOCKPERF),
    "nginx": (
        ("sh", "-c", "cat >/run/bench-nginx.conf && exec nginx -c /run/bench-nginx.conf"),
        _WEB,
    ),
}
"""Their command lines and ports."""


@dataclass(frozen=True)
class Measure:
    """A figure of a load: its unit, and whether more of it is better."""

    name: str
    unit: str
    more_is_better: bool


@dataclass(frozen=True)
class Load:
    """A program at the client, and how to read its output.

    Attributes:
        measures: The figures of it; the first is the one that has goals and peers.
        quick: Whether the quick run has it.
        command: Returns its command line for the server's address.
        read: Returns the figures; it gets the output and the processor time that the whole
            machine spent meanwhile, in seconds.
    """

    measures: tuple[Measure, ...]
    quick: bool
    command: Callable[[str], Sequence[str]]
    read: Callable[[str, float], Sequence[float]]

    def run(self, way: Way) -> Mapping[str, float]:
        """Load the way once."""
        before_s = busy_s()
        done = shell.run(way.client(self.command(way.address)), timeout_s=_DEADLINE_S)
        found = self.read(done.stdout, busy_s() - before_s)
        return dict(zip((each.name for each in self.measures), found, strict=True))


def serve(way: Way, stack: ExitStack, programs: Sequence[str] = tuple(_SERVERS)) -> None:
    """Start servers and wait until each takes connections; they end with the stack."""
    for argv, port in (_SERVERS[name] for name in programs):
        process = subprocess.Popen(
            way.server(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        stack.callback(shell.kill_session, process)
        assert process.stdin is not None
        process.stdin.write(_NGINX.encode())
        process.stdin.close()
        probe = way.client(["bash", "-c", f"exec 3<>/dev/tcp/{way.address}/{port}"])
        wait_until(partial(_succeeds, probe), 60, f"a server at {way.address}:{port}")


def _succeeds(argv: Sequence[str]) -> bool:
    return shell.run(argv, timeout_s=_DEADLINE_S, check=False).returncode == 0


def _iperf3(*options: str) -> Callable[[str], Sequence[str]]:
    return lambda address: ["iperf3", "-J", "-t", str(_SECONDS), *options, "-c", address]


def _tcp(*options: str) -> Callable[[str], Sequence[str]]:
    return _iperf3("-C", CONGESTION_CONTROL, *options)


def _qperf(test: str) -> Callable[[str], Sequence[str]]:
    return lambda address: [
        *("qperf", "-uu", "-v", "-t", str(_SECONDS), "-m", str(_SMALL), address, test)
    ]


def _streams(output: str, spent_s: float) -> Sequence[float]:
    """Return Gbit/s and seconds of processor time for each gigabyte that arrived."""
    received = json.loads(output)["end"]["sum_received"]
    return received["bits_per_second"] / 1e9, spent_s / (received["bytes"] / 1e9)


def _datagrams(output: str, _: float) -> Sequence[float]:
    received = json.loads(output)["end"]["sum_received"]
    arrived = received["packets"] - received["lost_packets"]
    return (arrived * _LARGE * 8 / received["seconds"] / 1e9,)


def _small_packets(output: str, _: float) -> Sequence[float]:
    """Return the packets that arrived each second."""
    return (_number(r"recv_bw += +([0-9.]+) bytes/sec", output) / _SMALL,)


def _transactions(output: str, _: float) -> Sequence[float]:
    """Return requests with their replies each second: qperf counts either as a message."""
    return (_number(r"msg_rate += +([0-9.]+) /sec", output) / 2,)


def _round_trips(output: str, _: float) -> Sequence[float]:
    return tuple(_number(rf"percentile {part}\.000 = +([0-9.]+)", output) for part in (50, 99))


def _connections(output: str, _: float) -> Sequence[float]:
    return (_number(r"Requests/sec: +([0-9.]+)", output),)


def _number(pattern: str, output: str) -> float:
    found = re.search(pattern, output)
    assert found, output
    return float(found[1])


LOADS = (
    Load(
        (
            Measure("TCP, 1 stream", "Gbit/s", more_is_better=True),
            Measure("TCP, 1 stream, processor time", "s per GB", more_is_better=False),
        ),
        quick=True,
        command=_tcp(),
        read=_streams,
    ),
    Load(
        (
            Measure("TCP, 8 streams", "Gbit/s", more_is_better=True),
            Measure("TCP, 8 streams, processor time", "s per GB", more_is_better=False),
        ),
        quick=False,
        command=_tcp("-P", "8"),
        read=_streams,
    ),
    Load(
        (Measure("UDP", "Gbit/s", more_is_better=True),),
        quick=False,
        command=_iperf3("-u", "-b", "0", "-l", str(_LARGE)),
        read=_datagrams,
    ),
    Load(
        (Measure("small packets", "1/s", more_is_better=True),),
        quick=True,
        command=_qperf("udp_bw"),
        read=_small_packets,
    ),
    Load(
        (Measure("request/response", "1/s", more_is_better=True),),
        quick=True,
        command=_qperf("tcp_lat"),
        read=_transactions,
    ),
    Load(
        (
            Measure("round trip, median", "µs", more_is_better=False),
            Measure("round trip, 99th percentile", "µs", more_is_better=False),
        ),
        quick=False,
        command=lambda address: [
            *("sockperf", "ping-pong", "--tcp", "--full-rtt", "-i", address),
            *("-p", str(_SOCKPERF), "-m", str(_SMALL), "-t", str(_SECONDS)),
        ],
        read=_round_trips,
    ),
    Load(
        (Measure("connections", "1/s", more_is_better=True),),
        quick=False,
        command=lambda address: [
            *("wrk", "-t1", "-c8", f"-d{_SECONDS}", "-H", "Connection: close"),
            f"http://{address}:{_WEB}/",
        ],
        read=_connections,
    ),
)
