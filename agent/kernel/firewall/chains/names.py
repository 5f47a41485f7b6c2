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
_NEW_BRIDGES: Final = ("docker0", "br-+", "hm-+")
"""Docker makes a network while the agent does not run, and containers ask at once. The servers look
at the whole name and the source."""


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
    outside = (each for each in wants.interfaces if each.startswith(("br-", "hm-")))
    return (
        *(rule("hostmesh: a container of this host asks", "ACCEPT", inp=each) for each in links),
        *(rule("hostmesh: another machine asks", "DROP", inp=each) for each in outside),
        *(
            rule("hostmesh: a container of a new network asks", "ACCEPT", inp=each)
            for each in _NEW_BRIDGES
            if each not in links
        ),
        rule("hostmesh: another machine asks", "DROP"),
    )
