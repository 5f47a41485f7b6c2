"""A mesh on one backend, and everything that is wrong with it: leases, routes, tunnels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from itertools import pairwise

import pytest
from hostmesh_lab.errors import WaitTimeout

from tests.expected_objects import TUNNELS, held_objects, wanted_objects
from tests.netns.backends.wireguard import EXTRA, end_wireguard, missing_programs, with_own_run
from tests.netns.mesh.stage import Node, Stage
from tests.waiting import eventually

SUBNETS = "/hostmesh/subnets/"


class Mesh:
    """Members with a container each, and what they held when they joined."""

    def __init__(self, stage: Stage, backend: str, *, direct: bool = False) -> None:
        self.stage = stage
        self.direct = direct or backend == "host-gw"
        self.backend = backend
        self.tunnel = TUNNELS.get(backend, "")
        self.subnets = {node.name: IPv4Network(node.subnet()) for node in stage.nodes}
        for node in stage.nodes:
            node.host.ip("link add docker0 type bridge")
            node.host.ip(f"addr add {self.container(node)}/24 dev docker0")
            node.host.ip("link set docker0 up")

    def container(self, node: Node) -> str:
        """An address in the node's subnet that answers."""
        return str(self.subnets[node.name][1])

    def leased(self) -> dict[IPv4Network, str]:
        """Return the leases in etcd: node addresses by subnet; none while etcd is away."""
        done = self.stage.etcdctl("get", "--prefix", SUBNETS, "-w", "fields")
        lines = [line.split(" : ", 1) for line in done.stdout.splitlines() if " : " in line]
        fields = [(name.strip('"'), json.loads(text)) for name, text in lines]
        keys = [str(text) for name, text in fields if name == "Key"]
        values = [json.loads(str(text)) for name, text in fields if name == "Value"]
        return {
            IPv4Network(key.removeprefix(SUBNETS).replace("-", "/")): str(value["PublicIP"])
            for key, value in zip(keys, values, strict=True)
        }

    def check_promise_1(self) -> None:
        """No two leases overlap."""
        for one, other in pairwise(sorted(self.leased())):
            assert not one.overlaps(other), f"promise 1: {one} and {other}"

    def wrong(self) -> list[str]:
        """Return each subnet (promise 2), lease and route that differs from before."""
        wanted = {self.subnets[node.name]: node.address for node in self.stage.nodes}
        held = self.leased()
        found = [] if held == wanted else [f"etcd holds {held} instead of {wanted}"]
        for node in self.stage.nodes:
            others = {s: a for s, a in wanted.items() if a != node.address}
            own = self.subnets[node.name]
            needed = wanted_objects(self.backend, own, others, direct=self.direct)
            if differs := self.kernel(node) ^ needed:
                found.append(f"{node.name} differs in {sorted(differs)}")
            elif node.subnet() != str(self.subnets[node.name]):
                found.append(f"{node.name} says that it has {node.subnet()!r}")
        return found

    def kernel(self, node: Node) -> set[str]:
        """Return the node's routes, and of a tunnel where each peer's packets go."""
        return held_objects(lambda command: node.inside(command).stdout, self.backend)

    def wait_right(self, timeout_s: float) -> None:
        """Until nothing is wrong; fails with what still is."""
        seen: list[str] = []

        def right() -> bool:
            seen[:] = self.wrong()
            return not seen

        try:
            eventually(right, timeout_s)
        except WaitTimeout as error:
            raise AssertionError("\n".join(seen)) from error


@contextmanager
def running_mesh(backend: str, nodes: int, **options: object) -> Iterator[Mesh]:
    """Start a mesh on one link, and end all of it afterwards."""
    grace = "[lease]\nempty_cluster_grace_s = 5\n"  # or a wiped etcd lasts minutes
    encrypted = backend == "wireguard"
    if encrypted and missing_programs():
        pytest.skip(f"not here: {missing_programs()}")
    stage = Stage(nodes, extra=f"{EXTRA if encrypted else ''}{grace}")
    try:
        for node in stage.nodes if encrypted else ():
            with_own_run(node)
        stage.start(backend, **options)
        yield Mesh(stage, backend, direct=bool(options.get("DirectRouting")))
    finally:
        if encrypted:
            end_wireguard(stage)
        stage.close()
