"""Drift, kill -9, a new node address and an etcd that is away: the same on every backend."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.backends.whole_mesh import Mesh, running_mesh
from tests.netns.mesh.stage import Node
from tests.netns.netlab import Pinger, Pings
from tests.waiting import eventually

pytestmark = [pytest.mark.netns, pytest.mark.full, pytest.mark.timeout(300)]

BACK_S = 60.0
WAYS = {
    "host-gw": ("host-gw", {}),
    "vxlan": ("vxlan", {}),
    "vxlan-direct": ("vxlan", {"DirectRouting": True}),
    "wireguard": ("wireguard", {}),
}
DRIFT = {
    "host-gw": ("ip route flush proto 140", "ip route replace blackhole {peer} proto 140"),
    "vxlan": (
        "ip route flush proto 140",
        "ip neigh flush dev hm-vxlan nud permanent",
        "bridge fdb flush dev hm-vxlan",
        "ip addr flush dev hm-vxlan",
        "ip link set hm-vxlan down",
        "ip link set hm-vxlan mtu 1000",
        "ip link del hm-vxlan",
    ),
    "wireguard": (
        "ip route flush proto 140",
        "wg set hm-wg listen-port 12345",
        "ip addr flush dev hm-wg",
        "ip link set hm-wg down",
        "ip link set hm-wg mtu 1000",
        "ip link del hm-wg",
    ),
}


@pytest.fixture(scope="module", params=WAYS)
def mesh(request: pytest.FixtureRequest) -> Iterator[Mesh]:
    backend, options = WAYS[request.param]
    with running_mesh(backend, 3, **options) as mesh:
        mesh.wait_right(BACK_S)
        yield mesh


def pinged(mesh: Mesh, source: Node, target: Node) -> Pinger:
    """Ask a node's container, from a while before this returns."""
    pinger = Pinger(source.host, mesh.container(target), 0.01)
    eventually(lambda: pinger.sent > 20, 10)
    return pinger


def ended(pinger: Pinger, name: str) -> Pings:
    """Ask some more, then stop, and print what was lost."""
    sent = pinger.sent
    eventually(lambda: pinger.sent > sent + 50, 10)
    seen = pinger.stop()
    print(f"{name}: {len(seen.lost)} of {seen.sent} lost, {seen.refused} refused")
    return seen


def test_promise_6_every_kind_of_drift_is_repaired_and_costs_no_other_pair(mesh: Mesh) -> None:
    one, two, three = mesh.stage.nodes
    between_others = pinged(mesh, two, three)
    for command in DRIFT[mesh.backend]:
        disturb(mesh, one, command)
        eventually(lambda: answers(mesh, one, two) and answers(mesh, three, one), BACK_S)
        mesh.wait_right(BACK_S)
    assert ended(between_others, f"{mesh.backend}, drift").lost == []


def test_promises_3_and_6_kill_9_loses_nothing_and_drift_of_meanwhile_is_repaired(
    mesh: Mesh,
) -> None:
    one, two, three = mesh.stage.nodes
    pingers = [pinged(mesh, one, two), pinged(mesh, two, one)]
    one.stop(signal.SIGKILL)
    one.start()
    mesh.wait_right(BACK_S)
    for pinger in pingers:
        assert ended(pinger, f"{mesh.backend}, kill -9").lost == []
    between_others = pinged(mesh, two, three)
    one.stop(signal.SIGKILL)
    for command in DRIFT[mesh.backend]:
        disturb(mesh, one, command)
    one.start()
    eventually(lambda: answers(mesh, one, two) and answers(mesh, three, one), BACK_S)
    mesh.wait_right(BACK_S)
    assert ended(between_others, f"{mesh.backend}, kill -9 and drift").lost == []


def test_promise_2_a_new_node_address_keeps_the_subnet_and_peers_follow(mesh: Mesh) -> None:
    one, two, three = mesh.stage.nodes
    promote = Path("/proc/sys/net/ipv4/conf/eth0/promote_secondaries")
    three.host.call(promote.write_text, "1")
    old, three.address = three.address, "192.0.2.63"
    to_it, between_others = pinged(mesh, one, three), pinged(mesh, one, two)
    three.host.ip(f"addr add {three.address}/24 dev eth0")
    three.host.ip(f"addr del {old}/24 dev eth0")
    mesh.wait_right(BACK_S)  # with the subnets of before
    eventually(lambda: answers(mesh, one, three) and answers(mesh, three, two), BACK_S)
    seen = ended(to_it, f"{mesh.backend}, a new address")
    assert seen.answered > 0
    assert ended(between_others, f"{mesh.backend}, another's new address").lost == []


def test_promise_3_without_etcd_nothing_is_lost_and_drift_is_repaired(mesh: Mesh) -> None:
    one, two, three = mesh.stage.nodes
    before = mesh.kernel(one)
    pingers = [pinged(mesh, two, three), pinged(mesh, three, two)]
    mesh.stage.stop_etcd()
    for command in DRIFT[mesh.backend]:
        disturb(mesh, one, command)
        eventually(lambda: mesh.kernel(one) == before, BACK_S)
        eventually(lambda: answers(mesh, one, two) and answers(mesh, two, one), BACK_S)
    two.stop(signal.SIGKILL)
    two.start()  # from its own copy
    eventually(lambda: two.document("status")["etcd"]["cached"], BACK_S)
    assert mesh.kernel(one) == before
    for pinger in pingers:
        assert ended(pinger, f"{mesh.backend}, without etcd").lost == []
    mesh.stage.start_etcd()
    mesh.wait_right(BACK_S)


def disturb(mesh: Mesh, node: Node, command: str) -> None:
    """Change one kind of object on a node, as another program would."""
    peer = next(each for name, each in mesh.subnets.items() if name != node.name)
    done = node.inside(command.format(peer=peer).split())
    assert done.returncode == 0, (command, done.stderr)


def answers(mesh: Mesh, source: Node, target: Node) -> bool:
    command = ["ping", "-c1", "-W1", mesh.container(target)]
    done = source.host.call(subprocess.run, command, check=False, capture_output=True)
    return bool(done.returncode == 0)
