"""vxlan: packets between hosts travel in UDP (RFC 7348). Hosts need no common link.

Each host has one device with the network address of its lease. A peer is a route to its subnet by
way of the subnet's network address, which the peer's device has; a neighbour entry that gives this
address the peer's MAC; and a forwarding entry that sends frames for this MAC to the peer's node
address. Nothing is learned and nothing is flooded. With ``DirectRouting`` a peer on the same link
gets the route of host-gw instead.

Options and published data are those of flannel's pkg/backend/vxlan (VXLANConfig, vxlanLeaseAttrs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from agent.mesh.backends.base import (
    HostObjects,
    PeerObjects,
    ThisHost,
    TunnelPort,
    outer_mtu,
    peer_same_address,
    published_by,
)
from agent.model import BackendData, Condition, HostId, Lease
from agent.model.family import IPV4, Family, family_of
from agent.model.objects import FdbEntry, LinkSpec, Neighbour, VxlanOptions
from agent.model.untrusted import Fields

__all__ = ["LINK", "Vxlan", "vtep_mac"]

LINK: Final = "hm-vxlan"
_MAX_VNI: Final = 2**24 - 1
_DEFAULT_PORT: Final = 8472
"""Linux's own, which flannel uses; IANA's is 4789 (drivers/net/vxlan/vxlan_core.c, udp_port)."""
_HEADERS: Final = 8 + 8 + 14
"""UDP, VXLAN and the inner Ethernet header; the outer IP header comes on top."""


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of the mesh's config."""

    vni: int
    port: int
    direct: bool

    @classmethod
    def of(cls, options: Fields) -> Self:
        """Read them.

        Raises:
            ValueError: One has the wrong type or range, or this version cannot do it.
        """
        if options.flag("GBP", default=False):
            raise ValueError("GBP is true, and this version sends no group policy")
        return cls(
            vni=options.integer("VNI", 1, _MAX_VNI, default=1),
            port=options.integer("Port", 0, 65535, default=0) or _DEFAULT_PORT,
            direct=options.flag("DirectRouting", default=False),
        )


class Vxlan:
    """One vxlan device. The kernel is given the peers behind it and learns none."""

    name = "vxlan"

    def overhead(self, family: Family) -> int:
        """Return the bytes of the outer headers."""
        return _HEADERS + (20 if family is IPV4 else 40)

    def host_objects(self, host: ThisHost) -> HostObjects:
        """Return the device, with the network address of each subnet of this host."""
        options, mac, uplink = _Options.of(host.options), vtep_mac(host.host_id), host.uplink
        overhead = self.overhead(family_of(uplink.node_address))
        device = LinkSpec(
            name=LINK,
            kind="vxlan",
            mac=mac,
            mtu=outer_mtu(uplink, host.options) - overhead,
            options=VxlanOptions(
                vni=options.vni,
                port=options.port,
                local=uplink.node_address,
                underlay=uplink.name,
            ),
        )
        return HostObjects(
            objects=(device, *host.addresses_of(LINK)),
            ingress=(LINK, uplink.name),
            ports=(TunnelPort(options.port, LINK),),
            published=BackendData.of({"VNI": options.vni, "VtepMAC": mac}),
        )

    def peer_objects(self, peer: Lease, host: ThisHost) -> PeerObjects | Condition:
        """Return the route, with a neighbour and a forwarding entry where it is no direct one.

        A peer on the link may deliver by both links: while it changes from one to the other,
        its packets come by either.
        """
        options, published = _Options.of(host.options), published_by(peer)
        mac = published.mac("VtepMAC")
        if peer.host_id is not None and mac != vtep_mac(peer.host_id):
            raise ValueError("its VtepMAC is not that of its host id")
        vni = published.integer("VNI", 1, _MAX_VNI)
        if vni != options.vni:
            raise ValueError(f"its VNI is {vni}, the mesh's {options.vni}")
        if peer.node_address == host.uplink.node_address:
            return peer_same_address(peer)
        on_link = host.shares_link_with(peer.node_address)
        ingress = (LINK, host.uplink.name) if on_link else (LINK,)
        if options.direct and host.is_direct(peer):
            return PeerObjects((host.direct_route(peer),), ingress)
        inner = peer.subnet.network_address
        overhead = self.overhead(family_of(peer.node_address))
        mtu = host.smaller_mtu(peer, overhead)
        return PeerObjects(
            (
                host.route(peer.subnet, inner, LINK, source=host.source, onlink=True, mtu=mtu),
                Neighbour(link=LINK, address=inner, mac=mac),
                FdbEntry(link=LINK, mac=mac, destination=peer.node_address),
            ),
            ingress,
        )


def vtep_mac(host_id: HostId) -> str:
    """Return the locally administered MAC of a host's device: five bytes of its identity."""
    return "02:" + ":".join(host_id[at : at + 2] for at in range(0, 10, 2))
