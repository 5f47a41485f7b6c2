"""host-gw: each peer is the gateway to its own subnet. Hosts must share a link.

Nothing is encapsulated, so nothing is lost to headers and every tool on the path sees the
containers' own addresses. The price is that a gateway must be on-link (RFC 1812, 5.2.4.2).
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.mesh.world import World
from agent.model import Backend, Condition, Lease, Route, Uplink
from agent.model.family import Network

__all__ = ["HostGateway"]


class HostGateway:
    """``peer.subnet via peer.node_address dev uplink``."""

    name = str(Backend.HOST_GW)
    overhead_bytes = 0

    def peer_route(
        self, peer: Lease, on_link: Sequence[Network], uplink: Uplink, world: World
    ) -> Route | Condition:
        """The route, or the condition ``peer-off-link``."""
        if not any(peer.node_address in each for each in on_link):
            return Condition(
                name="peer-off-link",
                subject=str(peer.subnet),
                cause=(
                    f"{peer.node_address} (subnet {peer.subnet}) is not on the link of "
                    f"{uplink.name} ({uplink.on_link}); host-gw cannot reach it"
                ),
                hint=(
                    "host-gw needs all hosts on one link: choose another uplink in agent.toml, "
                    "or use the backend vxlan or auto when this version has it"
                ),
            )
        if peer.node_address == uplink.node_address:
            return Condition(
                name="peer-same-address",
                subject=str(peer.subnet),
                cause=f"the owner of {peer.subnet} has this host's node address "
                f"{uplink.node_address}",
                hint="two hosts have one address, or an old record of this host is still there: "
                "see agentctl leases",
            )
        return Route(
            destination=peer.subnet,
            gateway=peer.node_address,
            link=uplink.name,
            protocol=world.route_protocol,
            table=world.route_table,
            metric=world.route_metric,
        )
