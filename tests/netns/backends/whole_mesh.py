"""A mesh on one backend, and everything that is wrong with it: leases, routes, tunnels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from itertools import pairwise

import pytest
from hostmesh_lab.errors import WaitTimeout

from tests.netns.backends.wireguard import (
    EXTRA,
    LINK,
    end_wireguard,
    missing_programs,
    peers_of,
    with_own_run,
)
from tests.netns.mesh.stage import Node, Stage
from tests.netns.routes.scene import shown
from tests.waiting import eventually

AGGREGATE = "unreachable 10.64.0.0/10"
TUNNELS = {"vxlan": "hm-vxlan", "wireguard": LINK}
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
            if differs := self.kernel(node) ^ self._wanted(node, others):
                found.append(f"{node.name} differs in {sorted(differs)}")
            elif node.subnet() != str(self.subnets[node.name]):
                found.append(f"{node.name} says that it has {node.subnet()!r}")
        return found

    def _wanted(self, node: Node, others: dict[IPv4Network, str]) -> set[str]:
        """Routes, and of a tunnel where each peer's frames go."""
        if self.direct:
            return {AGGREGATE, *(f"{s} via {a} dev eth0" for s, a in others.items())}
        source = self.subnets[node.name].network_address
        if self.backend == "wireguard":
            return {
                AGGREGATE,
                *(f"{s} dev {LINK} src {source}" for s in others),
                *(f"peer {address}:51820 {s}" for s, address in others.items()),
            }
        return {
            AGGREGATE,
            *(f"{s} via {s[0]} dev {self.tunnel} src {source} onlink" for s in others),
            *(f"fdb {address}" for address in others.values()),
            *(f"neighbour {s[0]}" for s in others),
        }

    def kernel(self, node: Node) -> set[str]:
        """Return the node's routes, and of a tunnel where each peer's packets go."""
        found = shown(node.host)
        if self.backend == "vxlan":
            table = node.inside(["bridge", "fdb", "show", "dev", self.tunnel]).stdout.split()
            after = pairwise(table)
            found |= {f"fdb {value}" for word, value in after if word == "dst"}
            permanent = ["ip", "neigh", "show", "dev", self.tunnel, "nud", "permanent"]
            lines = node.inside(permanent).stdout.splitlines()
            found |= {f"neighbour {line.split()[0]}" for line in lines}
        if self.backend == "wireguard":
            found |= {f"peer {each} {ranges}" for each, ranges in peers_of(node).values()}
        return found

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
