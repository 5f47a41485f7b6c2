"""A backend for tests that needs every kind of object: a link, a neighbour, an FDB entry."""

from __future__ import annotations

from agent.mesh.backends import HostObjects, PeerObjects, ThisHost
from agent.model import Condition, Lease, Route
from agent.model.family import IPV4, Family
from agent.model.objects import FdbEntry, LinkAddress, LinkSpec, Neighbour, VxlanOptions

__all__ = ["LINK", "Tunnel", "mac_of"]

LINK = "hm-tunnel"


def mac_of(host_id: str) -> str:
    """Return a locally administered MAC for a host."""
    return "02:" + ":".join(host_id[at : at + 2] for at in range(0, 10, 2))


class Tunnel:
    """Each peer behind one device: a route, a neighbour for it, and where its MAC is."""

    name = "tunnel"

    def overhead(self, family: Family) -> int:
        """Return the bytes of the outer headers."""
        return 50 if family is IPV4 else 70

    def host_objects(self, host: ThisHost) -> HostObjects | Condition:
        """Return the device with the subnet's first address, and an entry no peer may take."""
        if host.host_id is None:
            return Condition(name="tunnel-without-identity", cause="no identity", hint="wait")
        options = VxlanOptions(vni=7, port=4790, local=host.uplink.node_address)
        device = LinkSpec(name=LINK, kind="vxlan", mac=mac_of(host.host_id), options=options)
        addresses = (
            LinkAddress(link=LINK, interface=IPV4.interface((each.network_address, 32)))
            for each in host.subnets
        )
        loop = FdbEntry(link=LINK, mac=device.mac, destination=host.uplink.node_address)
        return HostObjects(objects=(device, *addresses, loop), ingress=(LINK,))

    def peer_objects(self, peer: Lease, host: ThisHost) -> PeerObjects | Condition:
        """Return the three objects, or a condition for a peer without identity."""
        if peer.host_id is None:
            return Condition(name="peer-without-data", cause="no MAC", hint="upgrade that host")
        mac = mac_of(peer.host_id)
        inner = peer.subnet.network_address
        return PeerObjects(
            (
                Route(destination=peer.subnet, gateway=inner, link=LINK, protocol=host.protocol),
                Neighbour(link=LINK, address=inner, mac=mac),
                FdbEntry(link=LINK, mac=mac, destination=peer.node_address),
            ),
            ingress=(LINK,),
        )
