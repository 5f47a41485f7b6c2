"""Two LANs with a router between them that knows node addresses and no containers."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.netns.mesh.stage import Node, Stage, inner, reaches
from tests.netns.netlab import Host, Lan, Pinger
from tests.waiting import eventually

_ETH_P_ALL = 3


class TwoLans(Stage):
    """A stage with more nodes on a second LAN, 198.51.100.0/24.

    Attributes:
        nodes: The last so many are beyond the router.
    """

    def __init__(self, nodes: int, *, beyond: int, extra: str = "") -> None:
        super().__init__(nodes + beyond, extra)
        self.beyond = Lan()
        self.router = Host("router")
        self.lan.plug(self.router, "eth0")
        self.beyond.plug(self.router, "eth1")
        self.router.ip("addr add 192.0.2.254/24 dev eth0")
        self.router.ip("addr add 198.51.100.254/24 dev eth1")
        self.router.call(Path("/proc/sys/net/ipv4/ip_forward").write_text, "1")
        for host in self.lan.hosts[: nodes + 1]:
            host.ip("route add 198.51.100.0/24 via 192.0.2.254")
        for number, node in enumerate(self.nodes[nodes:], 1):
            self._move(node, f"198.51.100.{number}")

    def _move(self, node: Node, address: str) -> None:
        node.host.ip("link del eth0")
        self.beyond.hosts.append(node.host)
        self.beyond.plug(node.host, "eth0")
        node.address = address
        node.host.ip(f"addr add {address}/24 dev eth0")
        node.host.ip("route add default via 198.51.100.254")

    def close(self) -> None:
        super().close()
        self.router.close()
        self.beyond.close()

    def heartbeats(self) -> set[str]:
        """Return the state of each host's heartbeat, as the first node sees it."""
        return {each["heartbeat"] for each in self.nodes[0].document("leases")["leases"]}

    @contextmanager
    def dropping(self, *packets: str) -> Iterator[Callable[[], int]]:
        """Have the router drop packets for a while; yields what counts those it dropped."""
        rule = ["FORWARD", *packets, "-j", "DROP"]

        def iptables(*words: str) -> str:
            command = ["iptables", "-w", *words]
            done = self.router.call(
                subprocess.run, command, check=True, capture_output=True, text=True
            )
            return str(done.stdout)

        iptables("-I", *rule)
        try:
            yield lambda: int(iptables("-nvxL", "FORWARD").splitlines()[2].split()[0])
        finally:
            iptables("-D", *rule)


def check_promise_3_asked_through_the_tunnel(stage: TwoLans) -> None:
    """Check that the last host, killed, counts as dead only once its tunnel is silent, too.

    The router drops echo requests to node addresses all the time.
    """
    one, far = stage.nodes[0], stage.nodes[-1]
    address, subnet = inner(far), far.subnet()
    with stage.dropping("-p", "icmp") as dropped:
        far.stop(signal.SIGKILL)
        eventually(lambda: "none" in stage.heartbeats(), 60)
        pinger, asked = Pinger(one.host, address, 0.01), dropped()
        # Where nothing but a tunnel leads to it, no question is dropped.
        eventually(lambda: dropped() >= asked + 4 or pinger.sent > 1000, 60)
        assert not pinger.stop().lost, "its tunnel answers"
        with stage.dropping("!", "-p", "icmp"):
            eventually(lambda: f"unreachable {subnet}" in routes_of(one), 60)
        eventually(lambda: reaches(one, far, address), 60)
    far.start()
    eventually(lambda: reaches(one, far), 30)


def routes_of(node: Node) -> str:
    return node.inside(["ip", "route"]).stdout


@contextmanager
def captured(host: Host, link: str) -> Iterator[list[bytes]]:
    """Collect the IPv4 packets that pass a link while the block runs."""

    def listen() -> socket.socket:
        return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))

    found: list[bytes] = []
    with host.call(listen) as tap:
        tap.bind((link, _ETH_P_ALL))
        yield found
        tap.settimeout(0.2)
        until_s = time.monotonic() + 5
        while time.monotonic() < until_s:
            try:
                packet = tap.recv(65535)
            except TimeoutError:
                break
            if packet[0] >> 4 == 4:
                found.append(packet)


def is_vxlan(packet: bytes, port: int = 8472) -> bool:
    """Whether it is UDP to this port."""
    header = (packet[0] & 15) * 4
    return packet[9] == socket.IPPROTO_UDP and struct.unpack_from("!H", packet, header + 2) == (
        port,
    )
