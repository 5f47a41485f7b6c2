"""Figures of the name server at 10,000 names, beside dnsmasq and beside the upstream itself.

    .venv/bin/python -m tests.bench.names [--names N] [--rounds N]

Needs dnsmasq and dnsperf (`tests/prepare.sh bench`). Both servers run on processor 0, the asking
program on processor 1.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import dns.message
import dns.query

from agent.model import HostId
from agent.model.names import Name, NamedAddress, NameKind
from tests.bench.harness import Bench, interleave, resident_mb
from tests.bench.program import Options, main
from tests.bench.statistic import Goal
from tests.netns.names.stage import DOMAIN, FIRST, Stage
from tests.waiting import eventually

PER_HOST = 200
DNSMASQ, UPSTREAM, CHAINED = "10.64.1.1", "10.64.1.3", "10.64.1.4"
PACED, PACE = 1500, 1000
"""Queries of one round, and how many a second, where the time of each counts."""


def address_of(number: int) -> str:
    """Return the address of a container: hosts have 10.64.0.0/24, 10.64.1.0/24 and so on above."""
    host, index = divmod(number, PER_HOST)
    return f"10.{66 + (host >> 8)}.{host & 255}.{index + 2}"


def name_of(number: int) -> str:
    """Return the name of a container."""
    return f"c{number}.web.{DOMAIN}"


class Servers:
    """Our server and dnsmasq with the same names, and an upstream for both."""

    def __init__(self, folder: Path, count: int) -> None:
        self.count = count
        self.folder = folder
        self.stage = Stage(folder)
        self._made: list[subprocess.Popen[bytes]] = []
        for address in (UPSTREAM, CHAINED):
            self.stage.host.ip(f"addr add {address}/24 dev hm-0123456789")
        self.hosts = folder / "hosts"
        self.hosts.mkdir()
        for host in range((count + PER_HOST - 1) // PER_HOST):
            self.write_host(host)
        self.stage.write_local()
        self.stage.set_upstreams(UPSTREAM)
        records = folder / "records.conf"
        records.write_text("".join(f"host-record=w{n}.example,203.0.113.7\n" for n in range(1000)))
        self._dnsmasq(UPSTREAM, f"--conf-file={records}", "--no-resolv", "--local=/example/")
        self.dnsmasq = self._dnsmasq(
            DNSMASQ, f"--hostsdir={self.hosts}", "--no-resolv", f"--local=/{DOMAIN}/"
        )
        self._dnsmasq(CHAINED, "--no-resolv", f"--server={UPSTREAM}", "--cache-size=0")
        self.stage.serve()
        self.ours = self.stage.processes[FIRST]
        os.sched_setaffinity(self.ours.pid, {0})
        for server in (FIRST, DNSMASQ):
            eventually(lambda server=server: self.answer(server, name_of(count - 1)), 120)  # type: ignore[misc]

    def _dnsmasq(self, address: str, *options: str) -> subprocess.Popen[bytes]:
        argv = ["dnsmasq", "-k", "-u", "root", "--pid-file=", f"--listen-address={address}"]
        argv += ["--bind-interfaces", "--no-hosts", "--local-ttl=5", "--dns-forward-max=1000"]
        if not any(each.startswith("--conf-file") for each in options):
            argv.append("--conf-file=/dev/null")
        made = self.stage.host.popen([*argv, *options])
        os.sched_setaffinity(made.pid, {0})
        self._made.append(made)
        return made

    def write_host(self, host: int, extra: str = "") -> None:
        """Write what one host publishes, for both; ``extra`` is the address of one more name."""
        numbers = range(host * PER_HOST, min(self.count, (host + 1) * PER_HOST))
        pairs = [(address_of(each), name_of(each)) for each in numbers]
        if extra:
            pairs.append((extra, f"fresh.web.{DOMAIN}"))
        self._write_ours(host, pairs)
        self._write_dnsmasq(host, pairs)

    def _write_ours(self, host: int, pairs: list[tuple[str, str]]) -> None:
        made = [
            NamedAddress(
                address=IPv4Address(address),
                names=(Name(name.removesuffix(f".{DOMAIN}"), NameKind.NETWORK),),
                network="web",
                mesh_network="web",
                pointer=name.removesuffix(f".{DOMAIN}"),
            )
            for address, name in pairs
        ]
        self.stage.write_host(*made, host_id=HostId(f"{host + 16:032x}"))

    def _write_dnsmasq(self, host: int, pairs: list[tuple[str, str]]) -> None:
        new = self.folder / "hosts.new"
        new.write_text("".join(f"{address} {name}\n" for address, name in pairs))
        new.replace(self.hosts / f"host{host}")

    def answer(self, server: str, name: str) -> str:
        """Return the address that a server gives for a name, "" for none."""
        try:
            reply = self.stage.web.call(
                dns.query.udp, dns.message.make_query(name, "A"), server, timeout=1
            )
        except dns.exception.Timeout:
            return ""
        return str(reply.answer[0][0]) if reply.answer else ""

    def close(self) -> None:
        for each in self._made:
            each.kill()
            each.wait()
        self.stage.close()


def per_second(servers: Servers, server: str, queries: Path) -> Callable[[], float]:
    """Return a run that asks as fast as it is answered, and gives queries a second."""

    def run() -> float:
        argv = ["taskset", "-c", "1", "dnsperf", "-s", server, "-d", str(queries)]
        done = servers.stage.web.call(
            subprocess.run,
            [*argv, "-l", "2", "-c", "4", "-q", "60"],
            capture_output=True,
            text=True,
            check=True,
        )
        lost = re.search(r"Queries lost:\s+(\d+)", done.stdout)
        found = re.search(r"Queries per second:\s+([\d.]+)", done.stdout)
        assert found, done.stdout
        assert lost, done.stdout
        assert int(lost[1]) == 0, done.stdout
        return float(found[1])

    return run


def cpu_us(process: subprocess.Popen[bytes], run: Callable[[], float]) -> float:
    """Return the processor time of one query in microseconds, over a run of two seconds."""
    before = _cpu_s(process.pid)
    rate = run()
    return (_cpu_s(process.pid) - before) / (rate * 2) * 1e6


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


PACED_ASKER = """
import random, socket, struct, sys, time
server, pattern = sys.argv[1:3]
count, pace, most = map(int, sys.argv[3:])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect((server, 53)); sock.settimeout(2)
took, began = [], time.perf_counter()
for number in range(count):
    while time.perf_counter() < began + number / pace:
        pass
    name = pattern.replace("#", str(random.randrange(most))).encode()
    labels = b"".join(bytes([len(x)]) + x for x in name.split(b"."))
    asked = time.perf_counter()
    sock.send(struct.pack("!6H", number, 256, 1, 0, 0, 0) + labels + b"\\0\\0\\1\\0\\1")
    assert sock.recv(4096)[7], name
    took.append(time.perf_counter() - asked)
took.sort()
print(took[len(took) * 99 // 100] * 1000, took[len(took) // 2] * 1000)
"""


def paced_ms(
    servers: Servers, server: str, pattern: str, most: int, *, median: bool = False
) -> Callable[[], float]:
    """Return a run that asks at a steady pace, and gives the p99, or the median, of the times."""

    def run() -> float:
        p99, middle = _paced(servers, server, pattern, most)
        return middle if median else p99

    return run


def _paced(servers: Servers, server: str, pattern: str, most: int) -> tuple[float, float]:
    done = servers.stage.web.call(
        subprocess.run,
        [
            *("taskset", "-c", "1", sys.executable, "-c", PACED_ASKER),
            *(server, pattern, str(PACED), str(PACE), str(most)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    p99, median = map(float, done.stdout.split())
    return p99, median


def until_answered(servers: Servers, server: str) -> Callable[[], float]:
    """Return a run that changes a host's file, and gives the time until the answer is new."""
    fresh = itertools.count(2)
    query = dns.message.make_query(f"fresh.web.{DOMAIN}", "A")

    def wait(wanted: str) -> float:
        while True:
            reply = dns.query.udp(query, server, timeout=5)
            if reply.answer and str(reply.answer[0][0]) == wanted:
                return time.perf_counter()

    def run() -> float:
        wanted = f"10.99.{next(fresh) % 250}.{secrets.randbelow(250) + 1}"
        began = time.perf_counter()
        servers.write_host(0, wanted)
        return servers.stage.web.call(wait, wanted) - began

    return run


def figures(bench: Bench, servers: Servers, rounds: int) -> None:
    known, others = servers.folder / "known", servers.folder / "others"
    numbers = [struct.unpack("I", os.urandom(4))[0] % servers.count for _ in range(20000)]
    known.write_text("".join(f"{name_of(each)} A\n" for each in numbers))
    others.write_text("".join(f"w{n}.example A\n" for n in range(1000)))
    both = (FIRST, DNSMASQ)
    ours, theirs = (per_second(servers, each, known) for each in both)
    bench.compare("queries a second", ours, "dnsmasq", theirs, rounds=rounds, unit="/s")
    cpu = interleave(
        [
            lambda: cpu_us(servers.ours, ours),
            lambda: cpu_us(servers.dnsmasq, theirs),
        ],
        rounds,
    )
    bench.ratio("processor time of a query", cpu[0], "dnsmasq", cpu[1], unit="us")
    pattern = f"c#.web.{DOMAIN}"
    p99 = interleave([paced_ms(servers, each, pattern, servers.count) for each in both], rounds)
    bench.ratio(f"p99 at {PACE} a second", p99[0], "dnsmasq", p99[1], unit="ms")
    three = (FIRST, UPSTREAM, CHAINED)
    for median in (False, True):
        runs = [paced_ms(servers, each, "w#.example", 1000, median=median) for each in three]
        found = interleave(runs, rounds)
        title = f"forwarding, {'median' if median else 'p99'}"
        bench.difference(f"{title} over asking", found[0], "the upstream", found[1], unit="ms")
        bench.difference(f"{title} over that of", found[0], "dnsmasq", found[2], unit="ms")
    rate = [per_second(servers, each, others) for each in (FIRST, CHAINED)]
    bench.compare(
        "forwarded queries a second", rate[0], "dnsmasq", rate[1], rounds=rounds, unit="/s"
    )

    changes = interleave([until_answered(servers, each) for each in both], rounds * 2)
    bench.ratio("a changed file until the new answer", changes[0], "dnsmasq", changes[1])
    bench.value("a changed file until the new answer", changes[0], goal=Goal(0.1))
    bench.fact("resident memory (MiB)", round(resident_mb(servers.ours.pid), 1))
    bench.fact("resident memory of dnsmasq (MiB)", round(resident_mb(servers.dnsmasq.pid), 1))


def measure(bench: Bench, options: Options) -> None:
    """Make every figure."""
    with tempfile.TemporaryDirectory() as folder:
        servers = Servers(Path(folder), options.names)
        try:
            bench.fact("names", options.names)
            bench.settle()
            figures(bench, servers, options.rounds)
        finally:
            servers.close()


if __name__ == "__main__":
    main(measure, lambda parser: parser.add_argument("--names", type=int, default=10_000))
