"""filter FORWARD or DOCKER-USER: mesh traffic through this host; strangers are shut out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Final

from agent.kernel.firewall.chains import inbound
from agent.kernel.firewall.chains.rule import OURS, REPLIES, rule
from agent.mesh.firewall import DesiredFirewall, set_name
from agent.model.family import Network

__all__ = ["NAME", "closing", "render", "shut_out"]

NAME: Final = OURS + "FORWARD"


def render(wants: DesiredFirewall) -> tuple[str, ...]:
    """Return the chain's rules."""
    leases = wants.leases
    return (
        *_within_host(leases, wants.interfaces),
        *(each for up in wants.interfaces for each in _forward_by(wants, up)),
        *(
            rule("hostmesh: from a Docker network of this host, left to Docker", "RETURN",
                  dest=lease, inp=bridge.name)
            for bridge in wants.bridges
            if bridge.subnet is not None
            for lease in leases
        ),
        *shut_out(leases),
    )  # fmt: skip


def _forward_by(wants: DesiredFirewall, up: str) -> Iterator[str]:
    """Mesh traffic by one interface, in and out.

    The set alone is not enough on the way out of a network: it holds node addresses, too, and
    whether a container reaches a host itself is Docker's to decide.
    """
    name = set_name("in", wants.family, up)
    for network, cidr in product(wants.networks, wants.cidrs):
        if network.internal:
            yield rule("hostmesh: internal network", "DROP", dest=cidr, inp=network.bridge, out=up)
    for lease in wants.leases:
        yield rule("hostmesh: from other hosts and their containers", inbound.NAME,
                    dest=lease, inp=up, match_set=(name, "src"))  # fmt: skip
    # By a bridge only: another NIC may bring a packet with a container's source into its flow.
    closed = {network.bridge for network in wants.networks if network.closed}
    bridges = [bridge.name for bridge in wants.bridges if bridge.name not in closed]
    for lease, bridge in product(wants.leases, bridges):
        yield rule("hostmesh: replies to other hosts and their containers", "ACCEPT",
                    source=lease, inp=bridge, out=up,
                    match_set=(name, "dst"), states=REPLIES)  # fmt: skip
    for network in wants.networks:
        if network.closed and network.slices:
            yield rule("hostmesh: within one network of several hosts", "ACCEPT",
                        source=network.subnet, inp=network.bridge, out=up,
                        match_set=(network.slices, "dst"))  # fmt: skip
    for network, cidr in product(wants.networks, wants.cidrs):
        if not network.closed:
            yield rule("hostmesh: to containers of other hosts", "ACCEPT",
                        source=network.subnet, dest=cidr, inp=network.bridge, out=up,
                        match_set=(name, "dst"))  # fmt: skip


def closing(leases: tuple[Network, ...], interfaces: Iterable[str]) -> tuple[str, ...]:
    """Return rules that close this host's subnets and open nothing.

    For the time before Docker has said which networks there are: its containers may run already.

    Args:
        leases: Every subnet of this host.
        interfaces: Names of every interface by which a packet from outside may come.
    """
    return (*_within_host(leases, interfaces), *shut_out(leases))


def _within_host(leases: tuple[Network, ...], interfaces: Iterable[str]) -> Iterator[str]:
    """Yield the first rules of the forwarding chain: addresses of this host as source."""
    pairs = tuple(product(leases, leases))
    for interface, (source, dest) in product(interfaces, pairs):
        yield rule("hostmesh: forged, own addresses do not come from outside", "DROP",
                    source=source, dest=dest, inp=interface)  # fmt: skip
    for source, dest in pairs:
        yield rule("hostmesh: between networks of this host Docker decides", "RETURN",
                    source=source, dest=dest)  # fmt: skip


def shut_out(leases: tuple[Network, ...]) -> tuple[str, ...]:
    """Return the last rules of the forwarding chain: nothing else enters ``leases``."""
    return tuple(
        rule("hostmesh: strangers reach published ports of the host only", "DROP",
              dest=lease, not_states=f"{REPLIES},DNAT")
        for lease in leases
    )  # fmt: skip
