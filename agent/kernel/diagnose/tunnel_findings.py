"""Why a tunnel passes nothing, in which direction, and on which host to look. Pure.

No clock is compared: packets that were seen, and counters before and after, are all there is.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final, NamedTuple

from agent.kernel.diagnose.frames import Frame
from agent.kernel.diagnose.tunnel import Tunnel
from agent.kernel.diagnose.tunnel_probe import Seen, TunnelEnd
from agent.settings.text import shown

__all__ = ["Reason", "published_difference", "reason_of"]

_PORT_UNREACHABLE: Final = 3
_RESTART: Final = "systemctl restart hostmesh-agent"
_MACS: Final = {"handshake initiation": 116, "handshake response": 60}
"""Where the message's first authentication code is (https://www.wireguard.com/protocol/)."""
_MAC_BYTES: Final = 16


class Reason(NamedTuple):
    """Object, fact and value; and an imperative."""

    text: str
    hint: str


def published_difference(own: TunnelEnd, peer: TunnelEnd) -> Reason | None:
    """Return how two hosts' leases differ where they must be equal; None where they do not."""
    here, there = own.published.get("VNI"), peer.published.get("VNI")
    if here is None or there is None or here == there:
        return None
    return Reason(
        f"{peer.name} publishes VNI {shown(there)}, this host {shown(here)}",
        f"agentctl config show has the mesh's; on the host that differs: {_RESTART}",
    )


def reason_of(tunnel: Tunnel, own: TunnelEnd, peer: TunnelEnd, seen: Seen) -> Reason:
    """Return why nothing came back through a tunnel."""
    differs = _wireguard if tunnel.encrypted else _vxlan
    return (
        published_difference(own, peer)
        or _device_differs(tunnel, own)
        or differs(tunnel, peer, seen)
        or _refused(tunnel, peer, seen)
        or _direction(tunnel, peer, seen)
    )


def _device_differs(tunnel: Tunnel, own: TunnelEnd) -> Reason | None:
    """Compare this host's device with what its lease says."""
    options, link = tunnel.link.options, tunnel.link.name
    pairs = (
        ("VNI", options.vni if options else None),
        ("Port", tunnel.port if tunnel.encrypted and tunnel.port else None),
        ("PublicKey", tunnel.own_key or None),
    )
    for name, value in pairs:
        said = own.published.get(name, value)
        if value is not None and said != value:
            show = f"wg show {link}" if tunnel.encrypted else f"ip -d link show {link}"
            return Reason(
                f"{link} of this host has {name} {value}, its lease says {shown(said)}",
                f"look here: {show}; {_RESTART}",
            )
    return None


def _vxlan(tunnel: Tunnel, peer: TunnelEnd, seen: Seen) -> Reason | None:
    """Return in what the peer's packets differ from this host's."""
    link, options = tunnel.link.name, tunnel.link.options
    look = f"look at {peer.name}: ip -d link show {link}; agentctl config show; {_RESTART}"
    for frame in seen.arrived:
        vni = frame.carried.vni if frame.carried else None
        if frame.port != tunnel.port:
            text = f"{peer.name} sends to UDP port {frame.port}, {link} of this host uses"
            return Reason(f"{text} {tunnel.port}", look)
        if options is not None and vni != options.vni:
            text = f"{peer.name} sends VNI {vni}, {link} of this host has {options.vni}"
            return Reason(text, look)
    return None


def _wireguard(tunnel: Tunnel, peer: TunnelEnd, seen: Seen) -> Reason | None:
    """Return in what the peer's packets differ from its lease: port, or keys."""
    link, name = tunnel.link.name, peer.name
    if tunnel.far is None:
        return Reason(
            f"{link} knows no endpoint of {name}: that host is behind NAT and has to send first",
            f"look at {name}: agentctl doctor",
        )
    said, fixed = (
        peer.published.get("Port"),
        not (peer.published.get("NAT") or peer.published.get("Endpoint")),
    )
    ports = {each.source_port for each in seen.arrived} - {said}
    if fixed and said is not None and ports:
        return Reason(
            f"{name} sends from UDP port {min(ports)}, its lease says {shown(said)}",
            f"look at {name}: wg show {link} listen-port; {_RESTART}",
        )
    if not seen.arrived or seen.accepted:
        return None
    if any(_is_for(frame, tunnel.own_key) is False for frame in seen.arrived):
        return Reason(
            f"packets of {name} arrive here, made for another key than this host's"
            f" {tunnel.own_key}",
            f"look at {name}: wg show {link} peers; {_RESTART}",
        )
    return Reason(
        f"packets of {name} arrive here and {link} accepts none: {name} uses another key than its"
        f" lease says, {tunnel.public_key}",
        f"look at {name}: wg show {link} public-key; {_RESTART}. If the key is right, rules of this"
        f" host drop UDP port {tunnel.port}: iptables -nvL INPUT",
    )


def _is_for(frame: Frame, public_key: str) -> bool | None:
    """Whether a handshake was made for this key; None where a message does not say."""
    at = _MACS.get(frame.carried.message if frame.carried else "")
    found = frame.payload[at : at + _MAC_BYTES] if at is not None else b""
    if at is None or len(found) < _MAC_BYTES or not public_key:
        return None
    key = hashlib.blake2s(b"mac1----" + base64.b64decode(public_key)).digest()
    made = hashlib.blake2s(frame.payload[:at], key=key, digest_size=_MAC_BYTES).digest()
    return made == found


def _refused(tunnel: Tunnel, peer: TunnelEnd, seen: Seen) -> Reason | None:
    port = tunnel.far_port
    for frame in seen.refusals:
        if frame.source != tunnel.far:
            return Reason(
                f"{frame.source} refuses packets to UDP port {port} of {peer.name}",
                f"let UDP port {port} pass at {frame.source}",
            )
        if frame.code == _PORT_UNREACHABLE:
            return Reason(
                f"packets reach {peer.name}, which refuses UDP port {port}: {tunnel.link.name} is"
                " missing there or uses another port, or a rule rejects it",
                f"look at {peer.name}: {_show(tunnel)}; iptables -nvL INPUT",
            )
    return None


def _direction(tunnel: Tunnel, peer: TunnelEnd, seen: Seen) -> Reason:
    name, link, port = peer.name, tunnel.link.name, tunnel.far_port or tunnel.port
    there = f"UDP port {port} inbound on {name}, and outbound on the way to it"
    here = f"UDP port {tunnel.port} inbound on this host, and outbound on {name}"
    if seen.answered:
        return Reason(f"{name} answers now; earlier requests were lost", "agentctl doctor again")
    if not seen.left:
        return Reason(
            f"no packet of {link} leaves by {seen.underlay}",
            f"look here: {_show(tunnel)}; ip route get {tunnel.far or peer.node_address}",
        )
    if seen.past and seen.arrived:
        return Reason(
            f"packets of {name} arrive at {seen.underlay} of this host and do not come out of"
            f" {link}: rules of this host drop them",
            f"look here: iptables -nvL INPUT, for UDP port {tunnel.port}",
        )
    if seen.arrived:
        return Reason(
            f"packets of {name} arrive here, this host's do not reach {name}", f"look at {there}"
        )
    if seen.past:
        return Reason(
            f"this host's packets reach {name}, its packets do not arrive here", f"look at {here}"
        )
    both = f"look at {there}; then at {here}; agentctl doctor on {name} sees the other direction"
    return Reason(
        f"packets leave by {seen.underlay} to {tunnel.far or peer.node_address}, and none of"
        f" {name} arrives",
        both,
    )


def _show(tunnel: Tunnel) -> str:
    command = "wg show" if tunnel.encrypted else "ip -d link show"
    return f"{command} {tunnel.link.name}"
