"""Two LANs with a router between them that knows node addresses and no containers."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.netns.mesh.stage import Node, Stage
from tests.netns.netlab import Host, Lan

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
