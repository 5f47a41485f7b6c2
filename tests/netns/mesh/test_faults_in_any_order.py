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
from datetime import UTC, datetime

import pytest

from tests.expected_objects import TUNNELS
from tests.netns.backends.whole_mesh import SUBNETS, Mesh, running_mesh
from tests.netns.mesh.stage import Node, reaches
from tests.netns.netlab import Pinger
from tests.waiting import eventually

pytestmark = pytest.mark.netns

NODES = 4
BACK_S = 60.0
_LINES = 60
"""Of each agent's log, after a loss."""


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
    with running_mesh(backend, NODES) as mesh:
        yield mesh


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "backend", ["host-gw", *(pytest.param(each, marks=pytest.mark.full) for each in TUNNELS)]
)
def test_promises_1_2_3_hold_through_faults_in_any_order(mesh: Mesh) -> None:
    walk(mesh, rounds=6, seed=467)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backend", ["host-gw", *TUNNELS])
@pytest.mark.parametrize("seed", range(1, 3))
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
    # A WireGuard device that the last round deleted may still shake hands.
    eventually(lambda: reaches(bystanders[0], bystanders[1], mesh.container(bystanders[1])), BACK_S)
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
    if seen.lost:
        print_logs(mesh, [each for _, each in seen.lost])
    assert seen.lost == [], f"promise 3, {name}"


def print_logs(mesh: Mesh, lost_s: list[float]) -> None:
    """Print what the agents last said, and when the first and the last ping was lost."""
    for each in (lost_s[0], lost_s[-1]):
        at = datetime.fromtimestamp(time.time() - time.monotonic() + each, UTC)
        print(f"lost at {at:%H:%M:%S.%f}")
    for node in mesh.stage.nodes:
        lines = node.log.read_text(errors="replace").splitlines()
        print(f"--- {node.name}", *lines[-_LINES:], sep="\n")
