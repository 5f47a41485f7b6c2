"""raw, from PREROUTING: containers send mesh traffic with an address of their own bridge only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agent.kernel.firewall.chains.rule import OURS, rule
from agent.mesh.firewall import DesiredFirewall, LocalBridge, set_name

__all__ = ["NAME", "held_bridges", "render"]

NAME: Final = OURS + "SENDERS"


def held_bridges(wants: DesiredFirewall) -> Iterator[LocalBridge]:
    """Bridges whose containers are held to the bridge's own subnet.

    Not one that is the uplink as well (a Docker network on the LAN's own bridge): the traffic of
    every other host comes in by it.
    """
    return (bridge for bridge in wants.bridges if bridge.name not in wants.interfaces)


def render(wants: DesiredFirewall) -> tuple[str, ...]:
    """Mesh traffic that a container sends with an address which its bridge does not have.

    Docker grants NET_RAW, so a container writes any source it likes. Other hosts believe the
    source of what arrives by their uplink: it can be checked here only. Within one bridge
    nothing is checked, with br_netfilter neither: a container there may route for others.
    """
    return (
        rule("hostmesh: of a container with several networks", "RETURN",
              match_set=(set_name("senders", wants.family), "src,src")),
        *(rule("hostmesh: forged, from a container", "DROP", source=cidr) for cidr in wants.cidrs),
        *(
            rule("hostmesh: forged, as another host", "DROP",
                  match_set=(set_name("in", wants.family, up), "src"))
            for up in wants.interfaces
        ),
        *(
            rule("hostmesh: stays within the bridge", "RETURN",
                  dest=bridge.subnet, inp=bridge.name)
            for bridge in held_bridges(wants)
            if bridge.subnet is not None
        ),
        *(
            rule("hostmesh: forged, to the mesh from elsewhere", "DROP", dest=cidr)
            for cidr in wants.cidrs
        ),
    )  # fmt: skip
