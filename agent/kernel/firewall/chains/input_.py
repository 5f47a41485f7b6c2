"""filter INPUT: packets of tunnels to this host, and containers' queries to its name servers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final

from agent.kernel.firewall.chains import names
from agent.kernel.firewall.chains.rule import OURS, rule
from agent.mesh.backends.base import TunnelPort
from agent.mesh.firewall import DesiredFirewall, set_name

__all__ = ["NAME", "render"]

NAME: Final = OURS + "INPUT"


def render(wants: DesiredFirewall) -> tuple[str, ...]:
    """Return the chain's rules, none without a tunnel and names."""
    return (
        *chain.from_iterable(_of(each, wants) for each in wants.tunnels),
        *names.jumps(wants),
    )


def _of(tunnel: TunnelPort, wants: DesiredFirewall) -> Iterator[str]:
    """Open the port to all but containers, or to peers' node addresses only.

    The set of the tunnel's sources holds these, and peers' subnets, from which no tunnel's packet
    comes.
    """
    for cidr in wants.cidrs:
        yield rule("hostmesh: tunnel, from no container", "DROP",
                    source=cidr, protocol="udp", port=tunnel.port)  # fmt: skip
    if tunnel.authenticated:
        yield rule("hostmesh: tunnel, which checks each packet", "ACCEPT",
                    protocol="udp", port=tunnel.port)  # fmt: skip
        return
    yield rule("hostmesh: tunnel, from other hosts", "ACCEPT",
                protocol="udp", port=tunnel.port,
                match_set=(set_name("in", wants.family, tunnel.link), "src"))  # fmt: skip
    yield rule("hostmesh: tunnel, from elsewhere", "DROP", protocol="udp", port=tunnel.port)
