"""Faults in any order and at the same time: a mesh of real agents always finds its way back.

Other tests break one thing and look closely. Here each round breaks several: whatever it does to
etcd and to some hosts, the others lose no packet between their containers, no two leases overlap,
and once the round's faults have ended, every host has the subnet that it had and the routes that
the leases say.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from tests.netns.netlab import Pinger
from tests.netns.routes.scene import shown
from tests.waiting import eventually

pytestmark = pytest.mark.netns

NODES = 4
BACK_S = 60.0
AGGREGATE = "unreachable 10.64.0.0/10"
TUNNELS = {"vxlan": "hm-vxlan", "wireguard": LINK}
SUBNETS = "/hostmesh/subnets/"


class Mesh:
    """Four members with a container each, and what they held when they joined."""

    def __init__(self, stage: Stage, backend: str) -> None:
        self.stage = stage
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
            if differs := self._there(node) ^ self._wanted(node, others):
                found.append(f"{node.name} differs in {sorted(differs)}")
            elif node.subnet() != str(self.subnets[node.name]):
                found.append(f"{node.name} says that it has {node.subnet()!r}")
        return found

    def _wanted(self, node: Node, others: dict[IPv4Network, str]) -> set[str]:
        """Routes, and of a tunnel where each peer's frames go."""
        if self.backend == "host-gw":
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

    def _there(self, node: Node) -> set[str]:
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


# -- what can happen to a host; each is over when its context ends


@contextmanager
def killed(_mesh: Mesh, node: Node) -> Iterator[None]:
    node.stop(signal.SIGKILL)
    yield
    node.spawn()


@contextmanager
def stopped(_mesh: Mesh, node: Node) -> Iterator[None]:
    node.stop()
    yield
    node.spawn()


@contextmanager
def frozen(_mesh: Mesh, node: Node) -> Iterator[None]:
    os.kill(node.agent_pid, signal.SIGSTOP)
    yield
    os.kill(node.agent_pid, signal.SIGCONT)


@contextmanager
def uplink_down(_mesh: Mesh, node: Node) -> Iterator[None]:
    node.host.ip("link set eth0 down")
    yield
    node.host.ip("link set eth0 up")


@contextmanager
def cable_out(mesh: Mesh, node: Node) -> Iterator[None]:
    port = f"p{mesh.stage.lan.hosts.index(node.host)}-eth0"
    mesh.stage.lan.switch.ip(f"link set {port} down")
    yield
    mesh.stage.lan.switch.ip(f"link set {port} up")


@contextmanager
def routes_deleted(_mesh: Mesh, node: Node) -> Iterator[None]:
    node.host.ip("route flush proto 140")
    yield


@contextmanager
def routes_led_astray(mesh: Mesh, node: Node) -> Iterator[None]:
    for name, other in mesh.subnets.items():
        if name != node.name:
            node.host.ip(f"route replace {other} via 192.0.2.99 proto 140", check=False)
    yield


@contextmanager
def tunnel_deleted(mesh: Mesh, node: Node) -> Iterator[None]:
    if mesh.tunnel:
        node.host.ip(f"link del {mesh.tunnel}", check=False)
    yield


@contextmanager
def lease_deleted(mesh: Mesh, node: Node) -> Iterator[None]:
    key = str(mesh.subnets[node.name]).replace("/", "-")
    mesh.stage.etcdctl("del", f"{SUBNETS}{key}")
    yield


@contextmanager
def left(_mesh: Mesh, node: Node) -> Iterator[None]:
    node.ctl("leave")
    yield
    node.ctl("join")


HOST_FAULTS = (
    killed,
    stopped,
    frozen,
    uplink_down,
    cable_out,
    routes_deleted,
    routes_led_astray,
    tunnel_deleted,
    lease_deleted,
    left,
)


# -- what can happen to etcd


@contextmanager
def etcd_killed(mesh: Mesh) -> Iterator[None]:
    mesh.stage.stop_etcd()
    yield
    mesh.stage.start_etcd()


@contextmanager
def compacted(mesh: Mesh) -> Iterator[None]:
    done = mesh.stage.etcdctl("get", "/", "-w", "json")
    revision = json.loads(done.stdout)["header"]["revision"]
    mesh.stage.etcdctl("compact", str(revision))
    yield


@contextmanager
def wiped(mesh: Mesh) -> Iterator[None]:
    mesh.stage.etcdctl("del", "--prefix", "/hostmesh/")
    yield


@contextmanager
def left_alone(_mesh: Mesh) -> Iterator[None]:
    yield


ETCD_FAULTS = (etcd_killed, compacted, wiped, left_alone)


@pytest.fixture
def mesh(backend: str) -> Iterator[Mesh]:
    grace = "[lease]\nempty_cluster_grace_s = 5\n"  # or rounds last minutes
    encrypted = backend == "wireguard"
    if encrypted and missing_programs():
        pytest.skip(f"not here: {missing_programs()}")
    stage = Stage(NODES, extra=f"{EXTRA if encrypted else ''}{grace}")
    try:
        for node in stage.nodes if encrypted else ():
            with_own_run(node)
        stage.start(backend)
        yield Mesh(stage, backend)
    finally:
        if encrypted:
            end_wireguard(stage)
        stage.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "backend", ["host-gw", *(pytest.param(each, marks=pytest.mark.full) for each in TUNNELS)]
)
def test_promises_1_2_3_hold_through_faults_in_any_order(mesh: Mesh) -> None:
    walk(mesh, rounds=6, seed=467)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backend", ["host-gw", *TUNNELS])
@pytest.mark.parametrize("seed", range(1, 5))
def test_promises_1_2_3_hold_through_many_faults(mesh: Mesh, seed: int) -> None:
    walk(mesh, rounds=40, seed=seed)


def walk(mesh: Mesh, rounds: int, seed: int) -> None:
    choose = random.Random(seed)  # noqa: S311 # not for secrets
    mesh.wait_right(BACK_S)
    for number in range(rounds):
        one_round(mesh, choose, f"seed {seed}, round {number}")


def one_round(mesh: Mesh, choose: random.Random, name: str) -> None:
    """Break some things, in any order; mend them in another; look."""
    nodes = choose.sample(mesh.stage.nodes, NODES)
    bystanders, victims = nodes[:2], nodes[2:]
    chosen = [(choose.choice(HOST_FAULTS), node) for node in victims]
    etcd_fault = choose.choice(ETCD_FAULTS)
    story = [f"{fault.__name__} {node.name}" for fault, node in chosen] + [etcd_fault.__name__]
    print(f"{name}: {', '.join(story)}; {bystanders[0].name} pings {bystanders[1].name}")
    ping = Pinger(bystanders[0].host, mesh.container(bystanders[1]), 0.01)
    begun = [fault(mesh, node) for fault, node in chosen] + [etcd_fault(mesh)]
    choose.shuffle(begun)
    with ExitStack() as ends:
        for fault in begun:
            ends.enter_context(fault)
            mesh.check_promise_1()
    ended_s = time.monotonic()
    mesh.wait_right(BACK_S)
    print(f"    right again after {time.monotonic() - ended_s:.1f} s")
    mesh.check_promise_1()
    seen = ping.stop()
    assert seen.lost == [], f"promise 3, {name}"
