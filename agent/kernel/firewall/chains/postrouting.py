"""nat POSTROUTING: no masquerade inside the mesh."""

from __future__ import annotations

from itertools import product
from typing import Final

from agent.kernel.firewall.chains.rule import OURS, rule
from agent.mesh.firewall import DesiredFirewall

__all__ = ["NAME", "render"]

NAME: Final = OURS + "POSTROUTING"


def render(wants: DesiredFirewall) -> tuple[str, ...]:
    """Ahead of Docker's MASQUERADE: containers of other hosts see true source addresses.

    By range, not by set: NAT is decided once per flow, and the first packet to a new peer may be
    ahead of its member. The set holds node addresses, too, which see this host's own address.
    A closed network is masqueraded but to other slices of its mesh network. A flow to one that
    was ahead of its member is freed when that is there.
    """
    leases = wants.leases
    return (
        *(
            rule("hostmesh: within this host Docker decides", "RETURN", source=source, dest=dest)
            for source, dest in product(leases, leases)
        ),
        *(
            rule("hostmesh: true source addresses within one network of several hosts", "ACCEPT",
                  source=network.subnet, out=up, match_set=(network.slices, "dst"))
            for network, up in product(wants.networks, wants.interfaces)
            if network.closed and network.slices
        ),
        *(
            rule("hostmesh: closed network, left to Docker", "RETURN", source=network.subnet)
            for network in wants.networks
            if network.closed
        ),
        *(
            rule("hostmesh: true source addresses within the mesh", "ACCEPT",
                  source=lease, dest=cidr, out=up)
            for up, lease, cidr in product(wants.interfaces, leases, wants.cidrs)
        ),
    )  # fmt: skip
