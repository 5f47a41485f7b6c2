"""mangle FORWARD: TCP through a tunnel agrees on segments that fit into it.

Containers may have a larger MTU than the tunnel until Docker takes the new one, and something on
the way may keep "fragmentation needed" from them.
"""

from __future__ import annotations

from itertools import chain
from typing import Final

from agent.kernel.firewall.chains.rule import OURS, rule
from agent.mesh.firewall import DesiredFirewall

__all__ = ["NAME", "render"]

NAME: Final = OURS + "CLAMP"
_COMMENT: Final = "hostmesh: no larger than the tunnel"


def render(wants: DesiredFirewall) -> tuple[str, ...]:
    """Return the chain's rules, none without a tunnel. A flannel host clamps nothing itself."""
    links = dict.fromkeys(each.link for each in wants.tunnels)
    return tuple(
        chain.from_iterable(
            (
                rule(_COMMENT, "TCPMSS", "--clamp-mss-to-pmtu", inp=each, protocol="tcp", syn=True),
                rule(_COMMENT, "TCPMSS", "--clamp-mss-to-pmtu", out=each, protocol="tcp", syn=True),
            )
            for each in links
        )
    )
