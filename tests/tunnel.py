"""A backend for tests that needs every kind of object: a link, a neighbour, an FDB entry."""

from __future__ import annotations

from agent.mesh.backends import HostObjects, PeerObjects, ThisHost, published_by
from agent.model import BackendData, Condition, Lease
from agent.model.family import IPV4, Family
from agent.model.objects import FdbEntry, LinkAddress, LinkSpec, Neighbour, VxlanOptions

__all__ = ["LINK", "PLACE", "Tunnel", "data_of", "mac_of"]

PLACE = "tests.tunnel:Tunnel"
"""For :data:`agent.model.BACKENDS`."""

LINK = "hm-tunnel"


def mac_of(host_id: str, first: str = "02") -> str:
    """Return a locally administered MAC for a host."""
    return first + ":" + ":".join(host_id[at : at + 2] for at in range(0, 10, 2))


def data_of(mac: str) -> BackendData | None:
    """Return the data that a host with this MAC publishes."""
    return BackendData.of({"VNI": 7, "VtepMAC": mac})


class Tunnel:
    """Each peer behind one device: a route, a neighbour for it, and where its MAC is."""

    name = "tunnel"
    first = "02"
    """Of this host's MAC: tests change it, as a device that is made anew may do."""

    def overhead(self, family: Family) -> int:
        """Return the bytes of the outer headers."""
        return 50 if family is IPV4 else 70

    def host_objects(self, host: ThisHost) -> HostObjects | Condition:
        """Return the device with the subnet's first address, and an entry no peer may take."""
        if host.host_id is None:
            return Condition(name="tunnel-without-identity", cause="no identity", hint="wait")
        options = VxlanOptions(vni=7, port=4790, local=host.uplink.node_address)
        mac = mac_of(host.host_id, self.first)
        device = LinkSpec(name=LINK, kind="vxlan", mac=mac, options=options)
        loop = FdbEntry(link=LINK, mac=mac, destination=host.uplink.node_address)
        addresses = (IPV4.interface((each.network_address, 32)) for each in host.subnets)
        return HostObjects(
            objects=(device, loop, *(LinkAddress(link=LINK, interface=each) for each in addresses)),
            ingress=(LINK,),
            published=data_of(mac),
        )

    def peer_objects(self, peer: Lease, host: ThisHost) -> PeerObjects:
        """Return the three objects."""
        mac = published_by(peer).mac("VtepMAC")
        inner = peer.subnet.network_address
        return PeerObjects(
            (
                host.route(peer.subnet, gateway=inner, link=LINK),
                Neighbour(link=LINK, address=inner, mac=mac),
                FdbEntry(link=LINK, mac=mac, destination=peer.node_address),
            ),
            ingress=(LINK,),
        )
