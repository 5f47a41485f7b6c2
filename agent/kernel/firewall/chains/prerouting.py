"""raw PREROUTING: which mesh traffic may come in by an interface, ahead of everything else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final

from agent.kernel.firewall.chains import senders, tunnels
from agent.kernel.firewall.chains.rule import OURS, rule
from agent.mesh.firewall import DesiredFirewall, WantedNetwork, set_name

__all__ = ["NAME", "render"]

NAME: Final = OURS + "PREROUTING"
_FORGED: Final = "hostmesh: forged, or a host that may not deliver by this interface"


def render(wants: DesiredFirewall) -> tuple[str, ...]:
    """Ahead of the DROP that Docker 28 keeps here for every container.

    Raw comes before connection tracking un-NATs, so replies die in it too. A source in the mesh
    that may not come by an interface is dropped here whatever the flow's state: a packet injected
    into a running flow has no other sign.
    """
    closed = [network for network in wants.networks if network.closed]
    held = (
        rule("hostmesh: not from the subnet of the bridge", senders.NAME,
              source=bridge.subnet, not_source=True, inp=bridge.name)
        for bridge in senders.held_bridges(wants)
    )  # fmt: skip
    return (
        *_to_etcd(wants),
        *tunnels.jumps(wants),
        *held,
        *(each for up in wants.interfaces for each in _coming_in(wants, up, closed)),
    )


def _to_etcd(wants: DesiredFirewall) -> Iterator[str]:
    """Keep containers from an etcd in the clear, those of other hosts from this host's own."""
    bridges = [bridge.name for bridge in senders.held_bridges(wants)]
    for (address, port), bridge in product(wants.closed_endpoints, bridges):
        dest = wants.family.host(address)
        yield rule("hostmesh: a container, to etcd in the clear", "DROP",
                    dest=dest, inp=bridge, protocol="tcp", port=port)  # fmt: skip
    for port in wants.closed_ports:
        for bridge in bridges:
            yield rule("hostmesh: a container, to etcd of this host", "DROP",
                        inp=bridge, protocol="tcp", port=port, local=True)  # fmt: skip
        for up, cidr in product(wants.interfaces, wants.cidrs):
            yield rule("hostmesh: from the mesh, to etcd of this host", "DROP",
                        source=cidr, inp=up, protocol="tcp", port=port, local=True)  # fmt: skip


def _coming_in(wants: DesiredFirewall, up: str, closed: list[WantedNetwork]) -> Iterator[str]:
    sources = (set_name("in", wants.family, up), "src")
    # Other hosts would take it for a packet of this host's containers, and a tunnel sign it.
    if all(bridge.name != up for bridge in wants.bridges):
        for lease, cidr in product(wants.leases, wants.cidrs):
            yield rule("hostmesh: forged, own addresses do not come from outside", "DROP",
                        source=lease, dest=cidr, inp=up)  # fmt: skip
    for lease in wants.leases:
        yield rule("hostmesh: own addresses do not come from outside", "RETURN",
                    source=lease, inp=up)  # fmt: skip
    for network in closed:
        for cidr in wants.cidrs:
            yield rule(_FORGED, "DROP",
                        source=cidr, dest=network.subnet, inp=up, not_set=sources)  # fmt: skip
        if network.slices:
            yield rule("hostmesh: within one network of several hosts", "ACCEPT",
                        dest=network.subnet, inp=up, match_set=(network.slices, "src"))  # fmt: skip
        yield rule("hostmesh: closed network, left to Docker", "RETURN",
                    dest=network.subnet, inp=up)  # fmt: skip
    # Accept first: most packets are of peers, and a second look at the set costs each of them.
    for lease in wants.leases:
        yield rule("hostmesh: other hosts and their containers", "ACCEPT",
                    dest=lease, inp=up, match_set=sources)  # fmt: skip
    for lease, cidr in product(wants.leases, wants.cidrs):
        yield rule(_FORGED, "DROP", source=cidr, dest=lease, inp=up)
