"""filter, from INPUT: this host's containers ask its name servers, and no other machine does."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final

from agent.kernel.firewall.chains.rule import OURS, rule
from agent.mesh.firewall import DesiredFirewall
from agent.model.names import LOOPBACK

__all__ = ["NAME", "jumps", "render"]

NAME: Final = OURS + "NAMES"
_PORT: Final = 53


def jumps(wants: DesiredFirewall) -> Iterator[str]:
    """Yield rules that lead queries to the name servers into this chain."""
    for server, protocol in product(wants.name_servers, ("udp", "tcp")):
        yield rule("hostmesh: to a name server", NAME,
                    dest=server, protocol=protocol, port=_PORT)  # fmt: skip


def render(wants: DesiredFirewall) -> tuple[str, ...]:
    """Open the port to bridges of this host, whose INPUT may drop all else (ufw)."""
    if not wants.name_servers:
        return ()
    links = (LOOPBACK, *(bridge.name for bridge in wants.bridges))
    return (
        *(rule("hostmesh: a container of this host asks", "ACCEPT", inp=each) for each in links),
        rule("hostmesh: another machine asks", "DROP"),
    )
