"""Watch the underlay while a peer is asked through a tunnel that passes nothing.

Three questions are sent, since no single one says in which direction packets are lost:
- through the tunnel, from its own address: the answer needs both directions;
- through a VXLAN tunnel from the node address: the peer answers past the tunnel, which shows that
  packets reach it;
- past the tunnel from the tunnel's address: the peer answers through the tunnel, which shows that
  its packets arrive here, or how they differ from this host's.

The answers are seen on the underlay, ahead of this host's rules and of its check of sources. On the
way a router may drop the second and the third: their absence alone proves nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from agent.errors import KernelError
from agent.kernel.diagnose.capture import receive_frame
from agent.kernel.diagnose.frames import Frame, parse_packet, read_vxlan, read_wireguard
from agent.kernel.diagnose.packet_filter import (
    DESTINATION,
    PROTOCOL,
    SOURCE,
    Instruction,
    accept,
    go_on,
    open_tap,
)
from agent.kernel.diagnose.source_filter import ETHERTYPE_IP, hardware_address, socket_on
from agent.kernel.diagnose.tunnel import Tunnel, peer_state
from agent.kernel.liveness.icmp import echo_packet, echo_request
from agent.kernel.lookup import decide
from agent.model import Lease
from agent.model.family import Address, Network, family_of, read_address, read_network

__all__ = ["Seen", "TunnelEnd", "probe"]

_ROUND_S: Final = 0.5
_VXLAN_ROUNDS: Final = 4
_WIREGUARD_ROUNDS: Final = 13
"""A host begins a handshake at most every five seconds (REKEY_TIMEOUT)."""
_ROUNDS_AFTER: Final = 2
"""Rounds after the first packet of the peer: what follows may say more."""
_MOST_FRAMES: Final = 200
_ARP_ATTEMPTS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelEnd:
    """A host as its lease describes it.

    Attributes:
        published: Data of its backend, unchecked.
    """

    name: str
    subnet: Network
    node_address: Address
    published: Mapping[str, Any]

    @classmethod
    def of(cls, lease: Lease) -> Self:
        """Return the end of a lease's owner."""
        return cls(
            name=lease.host_name or str(lease.node_address),
            subnet=lease.subnet,
            node_address=lease.node_address,
            published=lease.backend_data.fields if lease.backend_data else {},
        )

    @classmethod
    def of_document(cls, lease: Mapping[str, Any]) -> Self:
        """Return the end of the owner of a lease of GET /v1/leases."""
        return cls(
            name=str(lease.get("host_name") or lease["node_address"]),
            subnet=read_network(str(lease["subnet"])),
            node_address=read_address(str(lease["node_address"])),
            published=lease.get("backend_data") or {},
        )


@dataclass(slots=True)
class Seen:
    """The packets of a probe.

    Attributes:
        underlay: The link that outer packets leave by.
        left: The tunnel's packets to the peer left this host.
        arrived: Packets of tunnels that came from the peer, of whatever port, identifier or key.
        refusals: ICMP errors about the tunnel's packets.
        past: The peer answered past the tunnel: the tunnel's packets reach it.
        answered: An answer came through the tunnel.
        accepted: Bytes that the device accepted from the peer; None where it does not count them.
    """

    underlay: str
    left: bool = False
    arrived: list[Frame] = field(default_factory=list)
    refusals: list[Frame] = field(default_factory=list)
    past: bool = False
    answered: bool = False
    accepted: int | None = None


def probe(tunnel: Tunnel, own: TunnelEnd, peer: TunnelEnd) -> Seen:
    """Ask the peer, and return what was seen; takes two seconds for VXLAN, and up to seven.

    Raises:
        NotRoot: This user may not capture.
        KernelError: There is no way to the peer, or no socket.
    """
    far = tunnel.far or peer.node_address
    if family_of(far) is not family_of(own.node_address):
        raise KernelError(f"{far} is of another family than {own.node_address}: it is not watched")
    way = decide(far)
    if way.refusal or way.link is None:
        raise KernelError(f"there is no way to {far}: {way.refusal or 'the kernel names no link'}")
    seen, before = Seen(way.link), peer_state(tunnel)
    identifier = int.from_bytes(os.urandom(2))
    listener = _Listener(seen, identifier, tunnel, own, peer, far)
    asker = _Asker(identifier, tunnel, own, peer, way.link, way.gateway or peer.node_address)
    try:
        rounds = _WIREGUARD_ROUNDS if tunnel.encrypted else _VXLAN_ROUNDS
        for number in range(rounds):
            asker.ask(number)
            listener.listen(_ROUND_S)
            if seen.answered:
                break
            if seen.arrived or seen.refusals:
                rounds = min(rounds, number + 1 + _ROUNDS_AFTER)
            if number + 1 >= rounds:
                break
    finally:
        listener.close()
        asker.close()
    after = peer_state(tunnel)
    if before is not None and after is not None:
        seen.accepted = after.received - before.received
    return seen


class _Asker:
    """Sends the three questions."""

    def __init__(
        self,
        identifier: int,
        tunnel: Tunnel,
        own: TunnelEnd,
        peer: TunnelEnd,
        underlay: str,
        hop: Address,
    ) -> None:
        self._identifier = identifier
        self._tunnel, self._own, self._peer, self._underlay = tunnel, own, peer, underlay
        try:
            mac = hardware_address(underlay, own.node_address, hop, _ARP_ATTEMPTS, _ROUND_S)
            self._hop = None if mac is None else (underlay, ETHERTYPE_IP, 0, 0, mac)
            self._past = socket_on(underlay, ETHERTYPE_IP)
        except OSError as error:
            raise KernelError(f"cannot send by {underlay}: {error.strerror}") from error

    def close(self) -> None:
        self._past.close()

    def ask(self, number: int) -> None:
        """Send one round. A question that the kernel refuses gets no answer."""
        inside = self._own.subnet.network_address
        self._through(inside, number)
        if not self._tunnel.encrypted:  # WireGuard takes no source but those of the peer
            self._through(self._own.node_address, number)
        node = self._peer.node_address
        if self._hop is not None and self._tunnel.far in {None, node}:
            packet = echo_packet(inside, node, self._identifier, number)
            with contextlib.suppress(OSError):
                self._past.sendto(packet, self._hop)

    def _through(self, source: Address, number: int) -> None:
        target = str(self._peer.subnet.network_address)
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sender,
        ):
            sender.bind((str(source), 0))
            sender.sendto(echo_request(self._identifier, number), (target, 0))


class _Listener:
    """Notes what comes and goes on the underlay, and what comes out of the tunnel."""

    def __init__(
        self,
        seen: Seen,
        identifier: int,
        tunnel: Tunnel,
        own: TunnelEnd,
        peer: TunnelEnd,
        far: Address,
    ) -> None:
        self._seen, self._identifier = seen, identifier
        self._tunnel, self._own, self._peer, self._far = tunnel, own, peer, far
        self._links = (seen.underlay, tunnel.link.name)
        self._tap = open_tap(self._links, self._packets)

    def close(self) -> None:
        self._tap.close()

    def _packets(self, start: int) -> list[Instruction]:
        far, own = [int(self._far)], [self._own.node_address, self._own.subnet.network_address]
        return [
            *go_on(start, PROTOCOL, [socket.IPPROTO_UDP, socket.IPPROTO_ICMP]),
            *accept(start, SOURCE, far),
            *accept(start, DESTINATION, far),
            *go_on(start, PROTOCOL, [socket.IPPROTO_ICMP]),
            *accept(start, DESTINATION, list(map(int, own))),
        ]

    def listen(self, for_s: float) -> None:
        """Note packets for a while; at the latest until an answer comes out of the tunnel."""
        until_s = time.monotonic() + for_s
        while not self._seen.answered and (left_s := until_s - time.monotonic()) > 0:
            self._tap.settimeout(left_s)
            frame = receive_frame(self._tap)
            if frame is not None and frame.link in self._links:
                self._note(frame)

    def _note(self, frame: Frame) -> None:
        seen, peer = self._seen, self._peer.subnet.network_address
        is_answer = frame.what == "echo reply" and frame.identifier == self._identifier
        if frame.link == self._tunnel.link.name:
            seen.answered |= is_answer and not frame.out and frame.source == peer
        elif frame.out:
            port = self._tunnel.far_port
            seen.left |= frame.destination == self._far and frame.port == port > 0
        elif is_answer and frame.source == peer:
            seen.past = True
        elif frame.is_error and self._is_about_tunnel(frame):
            seen.refusals.append(frame)
        elif frame.source == self._far and len(seen.arrived) < _MOST_FRAMES:
            self._note_arrival(frame)

    def _is_about_tunnel(self, frame: Frame) -> bool:
        about = parse_packet(frame.payload, frame.link, frame.at_s)
        return about is not None and (about.protocol, about.destination, about.port) == (
            "udp",
            self._far,
            self._tunnel.far_port,
        )

    def _note_arrival(self, frame: Frame) -> None:
        encrypted = self._tunnel.encrypted
        carried = read_wireguard(frame) if encrypted else read_vxlan(frame)
        if carried is None:
            return
        if encrypted or (carried.inner and carried.inner.destination in self._own.subnet):
            self._seen.arrived.append(replace(frame, carried=carried))
