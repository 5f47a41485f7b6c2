"""Every change of a host's routes, seen in the kernel's own words and in order."""

from __future__ import annotations

import itertools
import queue
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Network

from tests.netns.mesh.stage import Node

_CHANGE = re.compile(r"(Deleted )?(?:(unreachable|blackhole) )?([0-9.]+(?:/\d+)?) (.*)")
_marks = itertools.count(1)


class RouteWatch:
    """`ip monitor route` on one host.

    Args:
        node: The host.
        routes: Subnets of honest hosts with the gateway that leads there.
    """

    def __init__(self, node: Node, routes: Mapping[str, str]) -> None:
        self.node = node
        self._routes = {IPv4Network(each): gateway for each, gateway in routes.items()}
        self._process = node.host.popen(["stdbuf", "-oL", "ip", "monitor", "route"])
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._changes()  # it listens

    def _read(self) -> None:
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            self._lines.put(raw.decode().strip())

    def _changes(self) -> list[str]:
        """Return the changes up to now: a route of the test's own is the last one."""
        found: list[str] = []
        mark = ""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                line = self._lines.get(timeout=0.5 if mark else 0)
            except queue.Empty:  # at first the watch does not listen yet
                mark = f"203.0.113.{next(_marks) % 250 + 1}"
                self.node.host.ip(f"route replace {mark} dev lo")
                self.node.host.ip(f"route del {mark} dev lo")
                continue
            if mark and line.startswith(f"Deleted {mark} "):
                return found
            if "203.0.113." not in line:
                found.append(line)
        raise AssertionError(f"{self.node.name}: ip monitor says nothing of {mark}")

    def harmed(self) -> list[str]:
        """Return the changes that cost an honest host its route, or lead it elsewhere."""
        return [line for line in self._changes() if self._harms(line)]

    def _harms(self, line: str) -> bool:
        found = _CHANGE.match(line)
        if found is None:
            return False
        deleted, kind, destination, rest = found.groups()
        network = IPv4Network(destination)
        if network in self._routes:
            return bool(deleted or kind) or f"via {self._routes[network]} " not in f"{rest} "
        return not deleted and any(network.overlaps(each) for each in self._routes)

    def close(self) -> None:
        """Stop listening."""
        self._process.kill()
        self._process.wait(10)
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def watching(nodes: list[Node]) -> Iterator[list[RouteWatch]]:
    """Watch the routes of each node to the subnets of the others."""
    held = {node.subnet(): node for node in nodes}
    with ExitStack() as stack:
        watches = []
        for node in nodes:
            routes = {subnet: each.address for subnet, each in held.items() if each is not node}
            watch = RouteWatch(node, routes)
            stack.callback(watch.close)
            watches.append(watch)
        yield watches
