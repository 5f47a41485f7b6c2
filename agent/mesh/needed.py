"""Addresses that a host must reach beside the mesh: etcd, its resolvers, its default gateway. Pure.

A mesh laid over one of them cuts the host off: its ``unreachable`` route takes the place of the
default route there, and without etcd no later config puts that right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agent.model import Condition, HostFacts, Needed, Severity, View, first_few
from agent.model.family import Address, Network, is_default

__all__ = ["gateways", "needed_condition", "needed_in", "needed_of_members"]

_MOST_REPORTS = 3


def needed_in(cidrs: Iterable[Network], needed: Iterable[Needed]) -> tuple[Needed, ...]:
    """Return those of ``needed`` that lie in one of ``cidrs``."""
    ranges = tuple(cidrs)
    return tuple(each for each in needed if any(each.address in cidr for cidr in ranges))


def gateways(host: HostFacts) -> tuple[Address, ...]:
    """Return the gateways of the host's default routes."""
    found = (route.gateway for route in host.foreign_routes if is_default(route.destination))
    return tuple(dict.fromkeys(each for each in found if each is not None))


def needed_of_members(view: View, cidrs: Iterable[Network]) -> Iterator[str]:
    """Yield addresses in ``cidrs`` that hosts report as needed, for messages; the first few."""
    ranges = tuple(cidrs)
    found = (
        f"{each}, which host {beat.host_name or beat.host_id} needs"
        for beat in view.heartbeats.values()
        for each in needed_in(ranges, beat.needed)
    )
    for _, words in zip(range(_MOST_REPORTS), found, strict=False):
        yield words


def needed_condition(cidr: Network, found: tuple[Needed, ...], *, joined: bool) -> Condition:
    """Report that ``cidr`` holds addresses that this host needs."""
    return Condition(
        name="cidr-holds-needed-address",
        severity=Severity.WARNING if joined else Severity.ERROR,
        cause=f"the mesh's CIDR {cidr} holds {first_few(found)}, which this host needs"
        + ("; it writes no route that would lead there" if joined else "; it does not join"),
        hint="choose a CIDR without these addresses: agentctl config set --cidr CIDR --move;"
        " agentctl config init proposes one",
    )
