"""Send ARP and ICMP echo requests on one uplink, and read the answers.

Sources: RFC 826 (ARP), RFC 792 (ICMP echo), packet(7), raw(7), netdevice(7).
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from ipaddress import IPv4Address
from typing import Final

import structlog

from agent.errors import KernelError
from agent.kernel.liveness.arp import BROADCAST, ETHERNET, ETHERTYPE_ARP, arp_request, arp_sender
from agent.kernel.liveness.icmp import echo_reply, echo_request
from agent.model import Uplink
from agent.model.family import Address

__all__ = ["ProbeChannel"]

_log = structlog.get_logger(__name__)

_IP_BYTES: Final = 20
_PACKET_BYTES: Final = 2048
_RECEIVE_BURST: Final = 1000

_IP_PKTINFO: Final = 8
_PKTINFO: Final = struct.Struct("=i4s4s")
"""struct in_pktinfo: interface, source, header's destination."""
_SIOCGIFFLAGS: Final = 0x8913
_IFREQ: Final = struct.Struct("16sH22x")
_IFF_RUNNING: Final = 0x40
"""There is a carrier. Without one the kernel drops what is sent, and calls it sent."""


class ProbeChannel:
    """Sockets on one uplink, in the network namespace of the caller. For one thread.

    Raises:
        KernelError: No right to, or the interface is not there.
    """

    def __init__(self, uplink: Uplink) -> None:
        self.uplink = uplink
        self._identifier = int.from_bytes(os.urandom(2))
        self._mac = b""
        # On the link the node address is the source, and behind it what the route says: into a
        # tunnel that is an address of this host's subnet, since peers drop any other.
        info = _PKTINFO.pack(0, uplink.node_address.packed, bytes(4))
        self._source = ((socket.IPPROTO_IP, _IP_PKTINFO, info),)
        self._arp: socket.socket | None = None
        try:
            self._icmp = socket.socket(
                socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP
            )
        except OSError as error:
            raise KernelError(
                f"cannot open a socket for probes: {error}", hint="the agent needs CAP_NET_RAW"
            ) from error
        try:
            self._open_arp()
        except OSError as error:
            self.close()
            raise KernelError(f"cannot probe through {uplink.name}: {error}") from error

    def _open_arp(self) -> None:
        """Leave it where the uplink is no Ethernet."""
        arp = socket.socket(
            socket.AF_PACKET,
            socket.SOCK_DGRAM | socket.SOCK_CLOEXEC,
            socket.htons(ETHERTYPE_ARP),
        )
        self._arp = arp
        arp.bind((self.uplink.name, ETHERTYPE_ARP))
        hardware, self._mac = arp.getsockname()[3:5]
        if hardware != ETHERNET:
            arp.close()
            self._arp = None

    def close(self) -> None:
        """Close the sockets."""
        self._icmp.close()
        if self._arp is not None:
            self._arp.close()

    @property
    def filenos(self) -> tuple[int, ...]:
        """The descriptors to wait on, for poll(2)."""
        return tuple(each.fileno() for each in (self._icmp, self._arp) if each is not None)

    def ask(self, address: Address) -> bool:
        """Ask both ways. True when at least one question left."""
        if not self._has_carrier():
            return False
        left = False
        try:
            echo = echo_request(self._identifier)
            source = self._source if address in self.uplink.on_link else ()
            self._icmp.sendmsg((echo,), source, socket.MSG_DONTWAIT, (str(address), 0))
            left = True
        except OSError as error:
            # EHOSTUNREACH is the kernel's own failed ARP; ARP below is what then counts.
            _log.debug("prober-echo-not-sent", address=str(address), problem=str(error))
        if self._arp is None or address not in self.uplink.on_link:
            return left
        request = arp_request(self._mac, self.uplink.node_address, address)
        to = (self.uplink.name, ETHERTYPE_ARP, 0, 0, BROADCAST)
        try:
            self._arp.sendto(request, socket.MSG_DONTWAIT, to)
        except OSError as error:
            _log.debug("prober-arp-not-sent", address=str(address), problem=str(error))
            return False  # the link itself is the problem
        return True

    def _has_carrier(self) -> bool:
        asked = _IFREQ.pack(self.uplink.name.encode(), 0)
        try:
            answer = fcntl.ioctl(self._icmp, _SIOCGIFFLAGS, asked)
        except OSError as error:  # it is gone
            _log.debug("prober-no-link", link=self.uplink.name, problem=str(error))
            return False
        return bool(_IFREQ.unpack(answer)[1] & _IFF_RUNNING)

    def answers(self, ready: Collection[int]) -> Iterator[Address]:
        """Yield hosts that answered, from the descriptors that are ready to be read."""
        if self._icmp.fileno() in ready:
            yield from _read(self._icmp, self._echo_from)
        if self._arp is not None and self._arp.fileno() in ready:
            yield from _read(self._arp, _arp_from)

    def _echo_from(self, packet: bytes) -> Address | None:
        """Return the host that answered an echo request, None for another packet."""
        if len(packet) < _IP_BYTES:
            return None
        answer = echo_reply(packet, (packet[0] & 0xF) * 4)
        if answer is None or answer[0] != self._identifier:
            return None
        return IPv4Address(packet[12:16])


def _read(source: socket.socket, sender: Callable[[bytes], Address | None]) -> Iterator[Address]:
    for _ in range(_RECEIVE_BURST):
        try:
            packet = source.recv(_PACKET_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:  # ENETDOWN: the uplink went; nothing was answered
            _log.debug("prober-receive-failed", problem=str(error))
            return
        address = sender(packet)
        if address is not None:
            yield address


def _arp_from(packet: bytes) -> Address | None:
    found = arp_sender(packet)
    return found[0] if found else None
