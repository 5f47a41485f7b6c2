"""toy: VXLAN as flannel does it, in its simplest form. Hosts need no common link.

Each host has one device with a MAC address made from its identity, which it publishes. A peer is
a route to its subnet by way of the subnet's first address, which its device has; a neighbour
entry that gives this address the peer's MAC; and a forwarding entry that sends frames for this
MAC to the peer's node address. Nothing is learned and nothing is flooded.
"""

from __future__ import annotations

from typing import Final

from agent.mesh.backends.base import HostObjects, PeerObjects, ThisHost, published_by
from agent.model import BackendData, Lease
from agent.model.family import IPV4, Family, family_of
from agent.model.objects import FdbEntry, LinkAddress, LinkSpec, Neighbour, VxlanOptions

__all__ = ["Toy"]

_LINK: Final = "hm-toy"
_PORT: Final = 8472
_HEADERS: Final = 30
"""Ethernet, VXLAN and UDP (RFC 7348); the outer IP header comes on top."""


class Toy:
    """One vxlan device; the kernel is given the peers behind it and learns none."""

    name = "toy"

    def overhead(self, family: Family) -> int:
        """Return the bytes of the outer headers."""
        return _HEADERS + (20 if family is IPV4 else 40)

    def host_objects(self, host: ThisHost) -> HostObjects:
        """Return the device, with the first address of each subnet of this host."""
        mac, vni, uplink = _mac(host.host_id), _vni(host), host.uplink
        device = LinkSpec(
            name=_LINK,
            kind="vxlan",
            mac=mac,
            mtu=uplink.mtu - self.overhead(family_of(uplink.node_address)),
            options=VxlanOptions(
                vni=vni, port=_PORT, local=uplink.node_address, underlay=uplink.name
            ),
        )
        firsts = (family_of(each).interface(each.network_address) for each in host.subnets)
        return HostObjects(
            objects=(device, *(LinkAddress(link=_LINK, interface=each) for each in firsts)),
            ingress=(_LINK,),
            published=BackendData.of({"VNI": vni, "VtepMAC": mac}),
        )

    def peer_objects(self, peer: Lease, host: ThisHost) -> PeerObjects:
        """Return the route, the neighbour entry and the forwarding entry."""
        published = published_by(peer)
        mac = published.mac("VtepMAC")
        if published.integer("VNI", 1, 2**24 - 1) != _vni(host):
            raise ValueError(f"its VNI is not {_vni(host)}")
        first = peer.subnet.network_address
        source = host.subnets[0].network_address if host.subnets else None
        return PeerObjects(
            (
                host.route(peer.subnet, first, _LINK, source=source, onlink=True),
                Neighbour(link=_LINK, address=first, mac=mac),
                FdbEntry(link=_LINK, mac=mac, destination=peer.node_address),
            ),
            ingress=(_LINK,),
        )


def _vni(host: ThisHost) -> int:
    return host.options.integer("VNI", 1, 2**24 - 1, default=1)


def _mac(host_id: str) -> str:
    """Return a locally administered MAC address, of five bytes of the identity."""
    return "02:" + ":".join(host_id[at : at + 2] for at in range(0, 10, 2))
