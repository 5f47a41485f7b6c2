"""Times at which a record that is put into etcd reaches a host's kernel and `etcdctl watch`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from types import TracebackType
from typing import Self

from tests.etcd.support import etcdlab
from tests.netns.mesh.stage import ETCD, Node

_PUT = f"""
import base64, http.client, json, sys, time
connection = http.client.HTTPConnection("{ETCD}", 2379)
coded = lambda text: base64.b64encode(text.encode()).decode()
for line in sys.stdin:
    puts = [dict(key=coded(key), value=coded(value)) for key, value in json.loads(line)]
    path, body = "put", puts[0]
    if len(puts) > 1:
        path, body = "txn", dict(success=[dict(request_put=each) for each in puts])
    connection.request("POST", "/v3/kv/" + path, json.dumps(body))
    connection.getresponse().read()
    print(time.monotonic(), flush=True)
"""


Pair = tuple[str, str]
"""A key and its value."""
_UNANSWERED = 1000
"""Puts that are given to the program ahead of its answers."""


def lease_record(number: int) -> tuple[str, str, str]:
    """Return the destination, key and value of a flannel lease in the upper half of the CIDR."""
    subnet = IPv4Network((int(IPv4Address("10.96.0.0")) + number * 128, 25))
    value = {"PublicIP": f"192.0.2.{10 + number % 80}", "BackendType": "host-gw"}
    key = f"/hostmesh/subnets/{subnet.network_address}-{subnet.prefixlen}"
    return str(subnet), key, json.dumps(value)


class Lines:
    """The words of a program's output, each with the monotonic time at which it was read."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._seen: dict[str, float] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        """The program's."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            now_s = time.monotonic()
            with self._changed:
                for each in line.split():
                    self._seen.setdefault(each, now_s)
                self._changed.notify_all()

    def at(self, text: str, timeout_s: float) -> float:
        """Wait until ``text`` was read and return when. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: text in self._seen, timeout_s):
                raise TimeoutError(f"no {text} within {timeout_s:g} s")
            return self._seen[text]


@contextmanager
def lines_of(node: Node, command: list[str]) -> Iterator[Lines]:
    """Run a program on a host, and read what it prints, until the block ends."""
    process = _start(node, command)
    try:
        yield Lines(process)
    finally:
        process.kill()
        process.wait(10)


def _start(node: Node, command: list[str]) -> subprocess.Popen[str]:
    def popen() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "ETCDCTL_API": "3"},
        )

    return node.host.call(popen)


class Arrivals:
    """Puts records from a host of a stage, and sees them arrive on that host.

    As a context manager it ends the three programs that it runs there: `ip monitor`,
    `etcdctl watch` and one that puts over a single connection.
    """

    def __init__(self, node: Node) -> None:
        etcdctl = [str(etcdlab.binaries() / "etcdctl"), "--endpoints", f"http://{ETCD}:2379"]
        self._programs = [
            _start(node, ["ip", "monitor", "route"]),
            _start(node, [*etcdctl, "watch", "--prefix", "/hostmesh/subnets/"]),
            _start(node, [sys.executable, "-c", _PUT]),
        ]
        self.routes, self.watch = (Lines(each) for each in self._programs[:2])

    def put(self, *pairs: Pair) -> float:
        """Put keys and values one after the other; return the monotonic time of the last answer."""
        return self.put_groups(*([each] for each in pairs))

    def put_groups(self, *groups: Sequence[Pair]) -> float:
        """Do the same with groups of pairs, each in one transaction."""
        writer, at_s = self._programs[2], 0.0
        assert writer.stdin is not None
        assert writer.stdout is not None
        for number, group in enumerate(groups):
            if number >= _UNANSWERED:  # or both pipes fill up
                at_s = float(writer.stdout.readline())
            writer.stdin.write(json.dumps(group) + "\n")
        for _ in groups[:_UNANSWERED]:
            at_s = float(writer.stdout.readline())
        return at_s

    def one(self, number: int, timeout_s: float = 10.0) -> tuple[float, float]:
        """Put one lease; return the seconds to its route and to the watch's line."""
        destination, key, value = lease_record(number)
        began_s = time.monotonic()
        self.put((key, value))
        route_s = self.routes.at(destination, timeout_s) - began_s
        return route_s, self.watch.at(key, timeout_s) - began_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in self._programs:
            each.kill()
            each.wait(10)
