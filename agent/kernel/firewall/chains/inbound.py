"""filter, from HOSTMESH-FORWARD: mesh traffic to this host's containers."""

from __future__ import annotations

from typing import Final

from agent.kernel.firewall.chains import networks
from agent.kernel.firewall.chains.rule import OURS, REPLIES, rule
from agent.mesh.firewall import DesiredFirewall, WantedNetwork, set_name
from agent.model import Access
from agent.model.family import Family

__all__ = ["NAME", "render"]

NAME: Final = OURS + "INBOUND"


def render(wants: DesiredFirewall) -> tuple[str, ...]:
    """Mesh traffic to this host's containers. What falls through meets FORWARD's last rule."""
    closed = [network.subnet for network in wants.networks if network.closed]
    accepting = [network for network in wants.networks if not network.closed]
    return (
        *networks.jump(wants),
        # Neither masqueraded nor DNATed: a flow that began while the network was open.
        *(rule("hostmesh: closed network, running flows too", "DROP", dest=subnet,
                not_states="SNAT,DNAT") for subnet in closed),
        *(rule("hostmesh: closed network", "RETURN", dest=subnet) for subnet in closed),
        rule("hostmesh: replies", "ACCEPT", states=REPLIES),
        *(
            body
            for network in accepting
            for body in _opened(network, wants.family)
        ),
    )  # fmt: skip


def _opened(network: WantedNetwork, family: Family) -> tuple[str, ...]:
    """Rules for one network that is not closed.

    A published network looks its ports up in a set, and falls through to the DROP after it.
    Docker's own chain does not say at which address of the host a port is published.
    """
    subnet, bridge = network.subnet, network.bridge
    if network.access is Access.OPEN:
        return (rule("hostmesh: open network", "ACCEPT", dest=subnet, out=bridge),)
    return (
        rule("hostmesh: ICMP", "ACCEPT", dest=subnet, out=bridge, protocol=family.icmp),
        rule("hostmesh: published ports", "ACCEPT",
              dest=subnet, out=bridge, match_set=(set_name("published", family), "dst,dst")),
    )  # fmt: skip
