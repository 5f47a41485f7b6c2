"""host-gw: each peer is the gateway to its own subnet. Hosts must share a link.

Nothing is encapsulated, so nothing is lost to headers and every tool on the path sees the
containers' own addresses. The price is that a gateway must be on-link (RFC 1812, 5.2.4.2).
"""

from __future__ import annotations

from agent.mesh.backends.base import HostObjects, PeerObjects, ThisHost, peer_same_address
from agent.model import Condition, Lease
from agent.model.family import Family

__all__ = ["HostGateway"]


class HostGateway:
    """``peer.subnet via peer.node_address dev uplink``. It publishes nothing."""

    name = "host-gw"

    def overhead(self, family: Family) -> int:  # noqa: ARG002 # the same for both
        """Return 0: nothing is encapsulated."""
        return 0

    def host_objects(self, host: ThisHost) -> HostObjects:
        """Return no object: packets come in by the uplink."""
        return HostObjects(ingress=(host.uplink.name,))

    def peer_objects(self, peer: Lease, host: ThisHost) -> PeerObjects | Condition:
        """Return the route, or the condition ``peer-off-link`` or ``peer-same-address``."""
        uplink = host.uplink
        if not host.shares_link_with(peer.node_address):
            return Condition(
                name="peer-off-link",
                subject=str(peer.subnet),
                cause=(
                    f"{peer.node_address} (subnet {peer.subnet}) is not on the link of "
                    f"{uplink.name} ({uplink.on_link}); host-gw cannot reach it"
                ),
                hint=(
                    "host-gw needs all hosts on one link: choose another uplink in agent.toml, "
                    "or use the backend vxlan: agentctl config set --backend vxlan"
                ),
            )
        if peer.node_address == uplink.node_address:
            return peer_same_address(peer)
        route = host.route(peer.subnet, peer.node_address, uplink.name, mtu=host.smaller_mtu(peer))
        return PeerObjects((route,), ingress=(uplink.name,))
