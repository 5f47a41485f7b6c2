"""How soon the last peer follows when hosts join, leave or change their address.

    .venv/bin/python -m tests.bench.control_path.membership [--hosts N]

A real etcd and 52 real agents, each in a namespace of one machine, without Docker. Hosts leave and
join by their control sockets, so that the start of Python is in no figure but in that of the new
host. The last peer is the one that gets its route last; the kernel's notifications of every host
are read. 50 agents share the machine's cores: they join at once as fast as these can run them.
"""

from __future__ import annotations

import argparse
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product

from agent.ctl.client import AgentClient
from tests.bench.harness import Bench
from tests.bench.program import Options, main
from tests.netns.mesh.stage import Node, Stage
from tests.waiting import eventually

_MANY = 50
_WITHIN_S = 300
_NEW = "192.0.2.201"
_Pair = tuple[str, str]
"""A host by its name, and a gateway that it has a route by."""


class Routes:
    """The gateways that every host routes by, and when each came or went."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._changed = threading.Condition()
        self._there: dict[_Pair, bool] = {}
        self._last_s = 0.0
        self._programs = [each.host.popen(_MONITOR) for each in nodes]
        for node, program in zip(nodes, self._programs, strict=True):
            threading.Thread(target=self._read, args=(node.name, program), daemon=True).start()

    def _read(self, name: str, program: subprocess.Popen[bytes]) -> None:
        assert program.stdout is not None
        for line in program.stdout:
            words = line.decode().split()
            if "via" not in words or "140" not in words:
                continue
            gateway = words[words.index("via") + 1]
            with self._changed:
                self._there[name, gateway] = words[0] != "Deleted"
                self._last_s = time.monotonic()
                self._changed.notify_all()

    def wait(self, pairs: Iterable[_Pair], *, there: bool) -> float:
        """Wait until all pairs are there, or none; return when the last one changed."""
        wanted = set(pairs)
        with self._changed:
            done = self._changed.wait_for(
                lambda: all(self._there.get(each, False) is there for each in wanted), _WITHIN_S
            )
            if not done:
                late = sorted(each for each in wanted if self._there.get(each, False) is not there)
                raise TimeoutError(f"not within {_WITHIN_S} s: {late[:5]}")
            return self._last_s

    def forget(self, *gateways: str) -> None:
        """Wait for these anew: a route that is replaced is not announced as deleted."""
        with self._changed:
            gone = [each for each in self._there if each[1] in gateways]
            for each in gone:
                del self._there[each]

    def close(self) -> None:
        """End the programs."""
        for each in self._programs:
            each.kill()
            each.wait()


_MONITOR = ["stdbuf", "-oL", "ip", "monitor", "route"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the program's own arguments."""
    parser.add_argument("--hosts", type=int, default=_MANY, help="that join at once")


def measure(bench: Bench, options: Options) -> None:
    """Let one host, then many, leave and join a mesh that has two more."""
    stage = Stage(options.hosts + 2)
    routes = Routes(stage.nodes)
    try:
        stage.create_mesh()
        for node in stage.nodes:
            node.spawn()
        routes.wait(pairs(stage.nodes, stage.nodes), there=True)
        bench.settle()
        mesh = Mesh(stage, routes)
        among = f"among {len(stage.nodes)} hosts"
        one, many = stage.nodes[:1], stage.nodes[: options.hosts]
        rounds = range(options.rounds)
        left, back = zip(*(mesh.cycle(one) for _ in rounds), strict=True)
        bench.value(f"leave of one {among}: to the last peer's deleted route", left)
        bench.value(f"join of one {among}: to the last peer's route", back)
        what = f"start of a new host's agent {among}: to the last peer's route"
        bench.value(what, [mesh.restart(one[0]) for _ in rounds])
        what = f"new address of one {among}: to the last peer's route"
        bench.value(what, [mesh.readdress(one[0]) for _ in rounds])
        _, back = zip(*(mesh.cycle(many) for _ in rounds), strict=True)
        bench.value(f"join of {len(many)} at once {among}: to the last route of all", back)
    finally:
        routes.close()
        stage.close()


def pairs(hosts: Iterable[Node], peers: Iterable[Node]) -> list[_Pair]:
    """Return the routes of hosts to peers."""
    return [(one.name, two.address) for one, two in product(hosts, peers) if one is not two]


class Mesh:
    """Hosts that come, go and move."""

    def __init__(self, stage: Stage, routes: Routes) -> None:
        self._stage = stage
        self._routes = routes

    def _others(self, nodes: Sequence[Node]) -> list[Node]:
        return [each for each in self._stage.nodes if each not in nodes]

    def _timed(self, work: Callable[[], object], wanted: list[_Pair], *, there: bool) -> float:
        began_s = time.monotonic()
        work()
        return self._routes.wait(wanted, there=there) - began_s

    def cycle(self, nodes: Sequence[Node]) -> tuple[float, float]:
        """Let nodes leave in groups, and join at once; return the seconds of either.

        If more than half of all leave at once, their peers take it for a wiped etcd.
        """
        others, staying, left_s = self._others(nodes), list(nodes), 0.0
        while staying:
            going = staying[: 1 + len(staying) // 4]
            staying = staying[len(going) :]
            seen = pairs(others, going)
            left_s += self._timed(partial(post, going, "/v1/leave"), seen, there=False)
        self._routes.wait(pairs(nodes, self._stage.nodes), there=False)
        everything = pairs(self._stage.nodes, self._stage.nodes)
        back_s = self._timed(lambda: post(nodes, "/v1/join"), everything, there=True)
        return left_s, back_s

    def restart(self, node: Node) -> float:
        """Let a host leave, end its agent, and start it as one of a new host."""
        post([node], "/v1/leave")
        self._routes.wait(pairs(self._others([node]), [node]), there=False)
        self._routes.wait(pairs([node], self._stage.nodes), there=False)
        node.stop()
        node.inside(["rm", "-rf", str(node.folder / "state")])
        seen = pairs(self._others([node]), [node])
        took_s = self._timed(node.spawn, seen, there=True)
        self._routes.wait(pairs([node], self._stage.nodes), there=True)
        eventually(node.socket.exists, _WITHIN_S)
        return took_s

    def readdress(self, node: Node) -> float:
        """Give a host another address and take the old one, as a DHCP client does; then back."""
        others = self._others([node])

        def change(old: str, new: str) -> None:
            node.host.ip(f"addr del {old}/24 dev eth0")
            node.host.ip(f"addr add {new}/24 dev eth0")

        seen = [(each.name, _NEW) for each in others]
        took_s = self._timed(lambda: change(node.address, _NEW), seen, there=True)
        self._routes.forget(_NEW, node.address)
        change(_NEW, node.address)
        self._routes.wait(pairs(others, [node]), there=True)
        self._routes.forget(_NEW)
        return took_s


def post(nodes: Sequence[Node], path: str) -> None:
    """Ask the agents of all these hosts at once, each on its own connection."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(lambda node: AgentClient(node.socket, _WITHIN_S).post(path, {}), nodes))


if __name__ == "__main__":
    main(measure, arguments)
