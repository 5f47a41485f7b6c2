"""filter, from HOSTMESH-INBOUND: to Docker networks with the label of a mesh network.

What another slice of the same mesh network sends passes; all else is for the network's access to
decide. Each packet is judged anew: a slice that counts no longer, or a network that is none any
more, must not go on with the flows that it began.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agent.kernel.firewall.chains.rule import OURS, rule
from agent.mesh.firewall import DesiredFirewall, WantedNetwork, set_name
from agent.model import Access

__all__ = ["NAME", "jump", "render"]

NAME: Final = OURS + "NETWORKS"


def jump(wants: DesiredFirewall) -> Iterator[str]:
    """Yield the jump into the chain, if there is one."""
    if render(wants):
        yield rule("hostmesh: to networks of several hosts", NAME)


def render(wants: DesiredFirewall) -> tuple[str, ...]:
    """Return the chain's rules, none without a labelled network."""
    labelled = [each for each in wants.networks if each.labelled]
    shown = [each for each in labelled if not each.closed and each.access is not Access.OPEN]
    return (
        *(
            rule("hostmesh: within one network of several hosts", "ACCEPT",
                  dest=each.subnet, out=each.bridge, match_set=(each.slices, "src"))
            for each in labelled
            if each.slices
        ),
        *(
            (rule("hostmesh: replies", "RETURN", direction="REPLY"),)
            if shown
            else ()
        ),
        *(body for each in shown for body in _shown(each, wants)),
    )  # fmt: skip


def _shown(network: WantedNetwork, wants: DesiredFirewall) -> Iterator[str]:
    """Let published ports pass, and drop flows that began while more did.

    Not what Docker forwards from a port of the host: strangers reach that, too.
    """
    subnet, published = network.subnet, set_name("published", wants.family)
    yield rule("hostmesh: ICMP", "RETURN", dest=subnet, protocol=wants.family.icmp)
    yield rule("hostmesh: published ports", "RETURN", dest=subnet, match_set=(published, "dst,dst"))
    yield rule("hostmesh: not published, running flows too", "DROP",
                dest=subnet, not_states="DNAT")  # fmt: skip
