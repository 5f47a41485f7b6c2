"""wireguard: packets between hosts travel encrypted in UDP. Hosts need no common link.

Each host has one device with the network address of its lease, and publishes its public key. A
peer is one peer of the device, with its subnet as allowed-ips, and a route to its subnet by the
device. A host behind NAT publishes that it has no endpoint, and sends first. With
``DirectRouting`` a peer on the same link is sent to as by host-gw, not encrypted.

Options and published data are those of flannel's pkg/backend/wireguard (wireguardLeaseAttrs);
``Endpoint`` and ``NAT`` are Hostmesh's own, which flannel ignores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

from agent.mesh.backends.base import (
    HostObjects,
    PeerObjects,
    ThisHost,
    TunnelPort,
    outer_mtu,
    published_by,
)
from agent.model import BackendData, Condition, Lease, Severity
from agent.model.family import Family, family_of
from agent.model.objects import LinkSpec
from agent.model.untrusted import Fields
from agent.model.wireguard import (
    MAX_PORT,
    WIREGUARD_LINK,
    AllowedIp,
    Endpoint,
    WireGuardDevice,
    WireGuardPeer,
    is_public_key,
    read_endpoint,
)

__all__ = ["BEHIND_NAT", "WireGuard"]

BEHIND_NAT: Final = "none"
"""``host.public_endpoint`` of a host that no peer can send to first."""
_DEFAULT_PORT: Final = 51820
_NAT_KEEPALIVE_S: Final = 25
"""Shorter than the UDP timeout of usual NATs (RFC 4787, REQ-5: 2 minutes, often 30 s)."""
_HEADERS: Final = 8 + 32
"""UDP and WireGuard's data message; 20 or 40 of the outer IP header come on top."""
_OUTER_IP: Final = 40
"""That of IPv6 always, as wg-quick(8) does it: a roaming peer may come by either family."""


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of the mesh's config."""

    port: int
    keepalive_s: int
    direct: bool

    @classmethod
    def of(cls, options: Fields) -> Self:
        """Read them.

        Raises:
            ValueError: One has the wrong type or range, or this version cannot do it.
        """
        if options.text("PSK", default=""):
            raise ValueError("PSK is set, and this version has no preshared keys")
        return cls(
            port=options.integer("ListenPort", 0, MAX_PORT, default=0) or _DEFAULT_PORT,
            keepalive_s=options.integer("PersistentKeepaliveInterval", 0, MAX_PORT, default=0),
            direct=options.flag("DirectRouting", default=False),
        )


class WireGuard:
    """One device; each host is one peer of it, known by its public key."""

    name = "wireguard"

    def overhead(self, family: Family) -> int:  # noqa: ARG002 # the larger of both
        """Return the bytes of the outer headers."""
        return _HEADERS + _OUTER_IP

    def host_objects(self, host: ThisHost) -> HostObjects | Condition:
        """Return the device with its key and the network address of each subnet."""
        options = _Options.of(host.options)
        if not host.uplink.wireguard_key:
            return Condition(
                name="wireguard-unavailable",
                cause="this host has no WireGuard key: the program wg is missing or failed",
                hint="apt install wireguard-tools, and wireguard-go where the kernel has no"
                " wireguard; then systemctl reload hostmesh-agent",
                severity=Severity.ERROR,
            )
        overhead = self.overhead(family_of(host.uplink.node_address))
        mtu = outer_mtu(host.uplink, host.options) - overhead
        return HostObjects(
            objects=(
                LinkSpec(name=WIREGUARD_LINK, kind="wireguard", mtu=mtu),
                *host.addresses_of(WIREGUARD_LINK),
                WireGuardDevice(
                    link=WIREGUARD_LINK, public_key=host.uplink.wireguard_key, port=options.port
                ),
            ),
            ingress=(WIREGUARD_LINK, host.uplink.name) if options.direct else (WIREGUARD_LINK,),
            ports=(TunnelPort(options.port, WIREGUARD_LINK, authenticated=True),),
            published=BackendData.of(_published(host, options)),
        )

    def peer_objects(self, peer: Lease, host: ThisHost) -> PeerObjects | Condition:
        """Return the peer of the device, its range and the route."""
        options, published = _Options.of(host.options), published_by(peer)
        public_key = published.text("PublicKey", longest=64)
        if not is_public_key(public_key):
            raise ValueError("its PublicKey is not one of WireGuard's")
        if public_key == host.uplink.wireguard_key:
            raise ValueError("its PublicKey is this host's own")
        endpoint = _endpoint(peer, published, host)
        tunnel = (
            WireGuardPeer(
                link=WIREGUARD_LINK,
                public_key=public_key,
                endpoint=endpoint,
                keepalive_s=_keepalive_s(host, options) if endpoint else 0,
            ),
            AllowedIp(link=WIREGUARD_LINK, network=peer.subnet, public_key=public_key),
        )
        if options.direct and host.is_direct(peer):
            links = (WIREGUARD_LINK, host.uplink.name)
            return PeerObjects((*tunnel, host.direct_route(peer)), links)
        mtu = host.smaller_mtu(peer, self.overhead(family_of(peer.node_address)))
        route = host.route(peer.subnet, None, WIREGUARD_LINK, source=host.source, mtu=mtu)
        return PeerObjects((*tunnel, route), (WIREGUARD_LINK,))


def _published(host: ThisHost, options: _Options) -> dict[str, Any]:
    found: dict[str, Any] = {"PublicKey": host.uplink.wireguard_key, "Port": options.port}
    if host.uplink.public_endpoint == BEHIND_NAT:
        found["NAT"] = True
    elif host.uplink.public_endpoint:
        found["Endpoint"] = str(read_endpoint(host.uplink.public_endpoint))
    return found


def _endpoint(peer: Lease, published: Fields, host: ThisHost) -> Endpoint | None:
    """Return where a peer is sent to, None where it must send first.

    Raises:
        ValueError: The record names an endpoint that no host outside the mesh can have.
    """
    if published.flag("NAT", default=False):
        return None
    text = published.text("Endpoint", default="", longest=64)
    try:
        named = read_endpoint(text) if text else None
    except ValueError:
        raise ValueError("its Endpoint is not an address with a port") from None
    port = published.integer("Port", 1, MAX_PORT, default=_DEFAULT_PORT)
    found = named or Endpoint(peer.node_address, port)
    if any(found.address in cidr for cidr in host.config.cidrs):
        raise ValueError("its Endpoint is inside the mesh's CIDR")
    return None if found.address == host.uplink.node_address else found


def _keepalive_s(host: ThisHost, options: _Options) -> int:
    return options.keepalive_s or (
        _NAT_KEEPALIVE_S if host.uplink.public_endpoint == BEHIND_NAT else 0
    )
