"""A packet's way as the kernel decides it, and the packet itself on the links that it passes."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.errors import KernelError
from agent.kernel.diagnose.capture import Capture
from agent.kernel.diagnose.frames import Frame
from agent.kernel.diagnose.namespace import in_network_of
from agent.kernel.diagnose.ping import Pinger
from agent.kernel.lookup import decide, neighbour_on
from tests.netns.netlab import Host

pytestmark = pytest.mark.netns

CONTAINER, BRIDGE = IPv4Address("10.64.0.2"), IPv4Address("10.64.0.1")
PEER, FAR = IPv4Address("192.0.2.2"), IPv4Address("10.65.0.9")


@dataclass
class Scene:
    """A container on a bridge of a router, and a peer that has a far address."""

    container: Host
    router: Host
    peer: Host
    pid: int

    def index(self, link: str) -> int:
        return int(self.router.ip(f"-o link show {link}").split(":")[0])

    def mac(self, host: Host, link: str) -> str:
        return host.ip(f"-o link show {link}").split("link/ether ")[1].split()[0]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    container, router, peer = Host("container"), Host("router"), Host("peer")
    router.ip("link add br9 address 02:00:00:00:00:09 type bridge")  # else its ports give it theirs
    router.ip(f"link add port type veth peer name eth0 netns {container.thread_id}")
    router.ip("link set port master br9 up")
    router.ip(f"addr add {BRIDGE}/24 dev br9")
    router.ip("link set br9 up")
    router.ip(f"link add wan0 type veth peer name eth0 netns {peer.thread_id}")
    router.ip("addr add 192.0.2.1/24 dev wan0")
    router.ip("link set wan0 up")
    container.ip(f"addr add {CONTAINER}/24 dev eth0")
    container.ip("link set eth0 up")
    container.ip(f"route add default via {BRIDGE}")
    peer.ip(f"addr add {PEER}/24 dev eth0")
    peer.ip(f"addr add {FAR}/32 dev lo")
    peer.ip("link set eth0 up")
    peer.ip("route add 10.64.0.0/24 via 192.0.2.1")
    router.ip(f"route add 10.65.0.0/24 via {PEER} proto 140")
    router.ip("route add unreachable 10.66.0.0/24")
    router.call(forward, "1")
    sleeper = container.popen(["sleep", "600"])
    try:
        yield Scene(container, router, peer, sleeper.pid)
    finally:
        sleeper.kill()
        sleeper.wait(5)
        for host in (container, router, peer):
            host.close()


def forward(value: str) -> None:
    subprocess.run(["sysctl", "-qw", f"net.ipv4.ip_forward={value}"], check=True)


def test_the_kernels_own_decision_and_the_entry_behind_it(scene: Scene) -> None:
    bridge = scene.index("br9")
    found = scene.router.call(decide, FAR, source=CONTAINER, in_link=bridge)
    assert (found.link, found.gateway, found.local) == ("wan0", PEER, False)
    assert found.entry is not None
    assert found.entry.destination == IPv4Network("10.65.0.0/24")
    assert found.entry.protocol == 140
    assert scene.router.call(decide, BRIDGE, source=CONTAINER, in_link=bridge).local
    own = scene.router.call(decide, CONTAINER)
    assert (own.link, own.gateway) == ("br9", None)


def test_where_the_kernel_has_no_way_it_says_why(scene: Scene) -> None:
    bridge = scene.index("br9")
    far = IPv4Address("10.66.0.1")
    refused = scene.router.call(decide, far, source=CONTAINER, in_link=bridge)
    assert refused.refusal == os.strerror(113)  # EHOSTUNREACH
    assert scene.router.call(decide, IPv4Address("203.0.113.1")).refusal == os.strerror(101)
    scene.router.call(forward, "0")
    try:
        assert scene.router.call(decide, FAR, source=CONTAINER, in_link=bridge).refusal
    finally:
        scene.router.call(forward, "1")


def walk(
    scene: Scene, to: IPv4Address, *, passed_on: bool = False
) -> tuple[tuple[float, ...], tuple[Frame, ...]]:
    """A ping from within the container's namespace, seen on the router's two links."""

    def look() -> tuple[tuple[float, ...], tuple[Frame, ...]]:
        with Capture(["br9", "wan0"], CONTAINER, to, passed_on=passed_on) as capture:
            reach = in_network_of(scene.pid, lambda: Pinger(to, source=CONTAINER))
            try:
                echo = reach.echo(1)
            finally:
                reach.close()
            return echo.rtt_s, capture.collect(most=32, timeout_s=0.5, identifier=reach.identifier)

    return scene.router.call(look)


def test_what_a_bridge_passes_on_by_itself_is_seen_when_asked_for(scene: Scene) -> None:
    router, other, at = scene.router, Host("other"), IPv4Address("10.64.0.3")
    try:
        router.ip(f"link add port2 type veth peer name eth0 netns {other.thread_id}")
        router.ip("link set port2 master br9 up")
        other.ip(f"addr add {at}/24 dev eth0")
        other.ip("link set eth0 up")
        ends = scene.mac(scene.container, "eth0"), scene.mac(other, "eth0")
        answered, frames = walk(scene, at, passed_on=True)
        assert answered
        assert [(e.link, e.ttl, e.what, e.source_mac, e.destination_mac) for e in frames] == [
            ("br9", 64, "echo request", *ends),
            ("br9", 64, "echo reply", *reversed(ends)),
        ]
        assert "promiscuity 0" in router.ip("-d link show br9"), "the link is as it was"
        assert walk(scene, at)[1] == (), "a bridge shows others' packets only when asked to"
    finally:
        other.close()


def test_a_packet_is_followed_with_ttls_and_macs(scene: Scene) -> None:
    answered, frames = walk(scene, FAR)
    assert answered
    bridge_mac, up_mac = scene.mac(scene.router, "br9"), scene.mac(scene.router, "wan0")
    container_mac, peer_mac = scene.mac(scene.container, "eth0"), scene.mac(scene.peer, "eth0")
    there, back = (CONTAINER, FAR, "echo request"), (FAR, CONTAINER, "echo reply")
    assert [
        (each.link, each.ttl, (each.source, each.destination, each.what),
         each.source_mac, each.destination_mac)
        for each in frames
    ] == [
        ("br9", 64, there, container_mac, bridge_mac),
        ("wan0", 63, there, up_mac, peer_mac),
        ("wan0", 64, back, peer_mac, up_mac),
        ("br9", 63, back, bridge_mac, container_mac),
    ]  # fmt: skip
    found = scene.router.call(neighbour_on, PEER, scene.index("wan0"))
    assert found is not None
    assert (found.state, found.mac) == ("valid", peer_mac)
    assert scene.router.call(neighbour_on, PEER, scene.index("br9")) is None


def test_where_a_packet_ends_is_seen_with_the_error_that_comes_back(scene: Scene) -> None:
    answered, frames = walk(scene, IPv4Address("10.66.0.1"))
    assert not answered
    assert [(each.link, each.what) for each in frames] == [
        ("br9", "echo request"),
        ("br9", "unreachable"),
    ]


def test_waiting_ends_with_enough_packets_and_counts_no_others(scene: Scene) -> None:
    with_others = threading.Event()

    def wait() -> tuple[Frame, ...]:
        with Capture(["wan0"], PEER, CONTAINER) as capture:
            with_others.set()
            return capture.collect(most=2, timeout_s=30)

    found: list[tuple[Frame, ...]] = []
    thread = scene.router.thread(lambda: found.append(wait()))
    assert with_others.wait(10)
    scene.peer.call(lambda: Pinger(IPv4Address("192.0.2.1")).echo(1))
    scene.peer.call(lambda: Pinger(CONTAINER).echo(1))
    thread.join(20)
    assert [(e.source, e.destination, e.ttl) for e in found[0]] == [
        (PEER, CONTAINER, 64), (CONTAINER, PEER, 63),
    ]  # fmt: skip


def test_a_link_or_a_process_that_is_not_there_is_an_error_for_operators(scene: Scene) -> None:
    with pytest.raises(KernelError, match="cannot capture on nosuch, wan0"):
        scene.router.call(Capture, ["wan0", "nosuch"], CONTAINER, FAR)
    with pytest.raises(KernelError, match="has ended"):
        in_network_of(2**22 + 1, lambda: None)
