"""The etcd of the bench: one member or three, with the counters of their work."""

from __future__ import annotations

import re
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.scale.light_agent import ETCD
from tests.etcd.support.etcdlab import Etcd

__all__ = ["Etcds", "Work"]

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_METHOD = re.compile(r'grpc_method="(\w+)"')
_PORT = 2379
# etcd's own defaults; the tests' support class has shorter ones.
_FLAGS = ("--heartbeat-interval", "100", "--election-timeout", "1000")


@dataclass(frozen=True)
class Work:
    """The work of all members up to a moment, or between two.

    Attributes:
        requests, answers: Messages from and to clients by method, streams included.
        sent, received: Bytes on connections with clients.
        fsync_s, fsyncs: Of the write-ahead log.
        proposals: Entries of raft's log that were applied.
        resident_mb, peak_mb, db_mb: The largest member's, now.
        streams, watches: Of each member and of all, now.
        connections: Of each member, now.
    """

    at_s: float
    cpu_s: float
    requests: Counter[str]
    answers: Counter[str]
    sent: float
    received: float
    fsync_s: float
    fsyncs: float
    proposals: float
    resident_mb: float
    peak_mb: float
    db_mb: float
    streams: tuple[int, ...]
    watches: int
    connections: tuple[int, ...]

    def since(self, before: Work) -> Work:
        """Return the difference of what is counted; the rest is as it is now."""
        return replace(
            self,
            at_s=self.at_s - before.at_s,
            cpu_s=self.cpu_s - before.cpu_s,
            requests=self.requests - before.requests,
            answers=self.answers - before.answers,
            sent=self.sent - before.sent,
            received=self.received - before.received,
            fsync_s=self.fsync_s - before.fsync_s,
            fsyncs=self.fsyncs - before.fsyncs,
            proposals=self.proposals - before.proposals,
        )


class Etcds:
    """One etcd or a cluster, at the address that the hosts reach.

    Args:
        count: Of members.
    """

    def __init__(self, count: int) -> None:
        ports = range(_PORT, _PORT + 2 * count, 2)
        peers = {f"m{index}": f"127.0.0.1:{port + 1}" for index, port in enumerate(ports)}
        self.members = [
            Etcd(name=name, peers=peers, port=port, arguments=_FLAGS)
            for name, port in zip(peers, ports, strict=True)
        ]
        for each in self.members:
            each.address = ETCD

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(each.endpoint for each in self.members)

    @contextmanager
    def running(self) -> Iterator[None]:
        with ExitStack() as stack:
            for each in self.members:
                stack.callback(each.__exit__)
                each.start()
            for each in self.members:
                each.wait_healthy()
            yield

    def restart(self) -> float:
        """Kill all members and start them; return when all answer again."""
        for each in self.members:
            each.kill()
        for each in self.members:
            each.start()
        for each in self.members:
            each.wait_healthy(timeout_s=120)
        return time.monotonic()

    def nothing(self, at_s: float) -> Work:
        """Return the work, at a moment, of members that had just started then."""
        now = self.work()
        return replace(now.since(now), at_s=at_s)

    def work(self) -> Work:
        """Ask all members what they have done so far."""
        found = [_samples(each) for each in self.members]

        def total(name: str) -> float:
            return sum(each.get(name, 0.0) for each in found)

        def largest(name: str) -> float:
            return max(each.get(name, 0.0) for each in found)

        return Work(
            at_s=time.monotonic(),
            cpu_s=total("process_cpu_seconds_total"),
            requests=_by_method(found, "grpc_server_msg_received_total"),
            answers=_by_method(found, "grpc_server_msg_sent_total"),
            sent=total("etcd_network_client_grpc_sent_bytes_total"),
            received=total("etcd_network_client_grpc_received_bytes_total"),
            fsync_s=total("etcd_disk_wal_fsync_duration_seconds_sum"),
            fsyncs=total("etcd_disk_wal_fsync_duration_seconds_count"),
            proposals=largest("etcd_server_proposals_applied_total"),
            resident_mb=largest("process_resident_memory_bytes") / 1e6,
            peak_mb=max(map(_peak_mb, self.members)),
            db_mb=largest("etcd_mvcc_db_total_size_in_bytes") / 1e6,
            streams=tuple(int(each["etcd_debugging_mvcc_watch_stream_total"]) for each in found),
            watches=int(total("etcd_debugging_mvcc_watcher_total")),
            connections=tuple(_connections(each.port) for each in self.members),
        )


def _samples(member: Etcd) -> dict[str, float]:
    """Return the samples of a member by name; those of gRPC by name and method."""
    with urllib.request.urlopen(f"{member.endpoint}/metrics", timeout=60) as answer:  # noqa: S310 - etcd's own URL
        text = answer.read().decode()
    found: defaultdict[str, float] = defaultdict(float)
    for name, labels, value in _SAMPLE.findall(text):
        method = _METHOD.search(labels)
        found[f"{name}|{method[1]}" if method else name] += float(value)
    return found


def _by_method(found: Iterable[Mapping[str, float]], name: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in found:
        for key, value in each.items():
            start, _, method = key.partition("|")
            if start == name:
                total[method] += int(value)
    return total


def _peak_mb(member: Etcd) -> float:
    assert member._process is not None
    status = Path(f"/proc/{member._process.pid}/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) * 1024 / 1e6


def _connections(port: int) -> int:
    """Return how many clients are connected to a port of this namespace."""
    end = f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return sum(line.split()[1].endswith(end) and line.split()[3] == "01" for line in lines)
