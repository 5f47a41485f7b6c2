"""raw, from PREROUTING: containers send no packets of tunnels.

Docker masquerades what a container sends to a node address: a peer would take it for a packet of
this host's tunnel. Where the device checks each packet, that costs the host time. A public endpoint
of a peer behind NAT is left out: every machine can send to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, product
from typing import Final

from agent.kernel.firewall.chains import senders
from agent.kernel.firewall.chains.rule import OURS, rule
from agent.mesh.backends.base import TunnelPort
from agent.mesh.firewall import DesiredFirewall, set_name

__all__ = ["NAME", "jumps", "render"]

NAME: Final = OURS + "TUNNELS"


def jumps(wants: DesiredFirewall) -> Iterator[str]:
    """Yield rules that lead containers' packets to the port of a tunnel into this chain."""
    for tunnel, bridge in product(wants.tunnels, senders.held_bridges(wants)):
        yield rule("hostmesh: to the port of a tunnel", NAME,
                    inp=bridge.name, protocol="udp", port=tunnel.port)  # fmt: skip


def render(wants: DesiredFirewall) -> tuple[str, ...]:
    """Return the chain's rules, none without a tunnel."""
    return tuple(chain.from_iterable(_of(each, wants) for each in wants.tunnels))


def _of(tunnel: TunnelPort, wants: DesiredFirewall) -> Iterator[str]:
    """Drop what goes to this host or to peers' node addresses.

    What a container sends to a peer's address within the mesh is left to the peer's INPUT.
    """
    yield rule("hostmesh: to the tunnel of this host", "DROP",
                protocol="udp", port=tunnel.port, local=True)  # fmt: skip
    for cidr in wants.cidrs:
        yield rule("hostmesh: to a container", "RETURN", dest=cidr)
    yield rule("hostmesh: forged, as a packet of a tunnel", "DROP",
                protocol="udp", port=tunnel.port,
                match_set=(set_name("in", wants.family, tunnel.link), "dst"))  # fmt: skip
