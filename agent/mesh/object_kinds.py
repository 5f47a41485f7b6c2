"""The kinds of kernel objects: owner marks, what contests them, commands for messages. Pure."""

from __future__ import annotations

from typing import Final

from agent.mesh.world import MAIN_TABLE, protocol_name
from agent.model import FdbEntry, LinkAddress, LinkSpec, Neighbour, Route, RouteKey, family_of
from agent.model.objects import LINK_OWNER
from agent.model.wireguard import AllowedIp, WireGuardDevice, WireGuardPeer
from agent.reconcile.object_kind import ANY_LINK, Kind

__all__ = [
    "ADDRESS",
    "ALLOWED_IP",
    "FDB",
    "LINK",
    "NEIGHBOUR",
    "WIREGUARD",
    "WIREGUARD_PEER",
    "route_kind",
]


def route_kind(protocol: int) -> Kind[Route]:
    """Return the kind of routes, whose owner mark is an rtm_protocol.

    A route of another program to the same destination is in the way at any metric: at a lower
    one it would be shadowed, at a higher one it would shadow. One of another TOS is not: it
    takes its own packets only.
    """
    return Kind(
        name="route",
        is_own=lambda route: route.protocol == protocol,
        contests=_contested,
        links=_links,
        subject=lambda route: str(route.destination),
        writer=lambda route: protocol_name(route.protocol),
        removal=_removal,
        watch="ip monitor route",
        order=lambda route: -route.destination.prefixlen,
    )


def _contested(route: Route) -> RouteKey:
    metric = family_of(route.destination).default_metric
    return RouteKey(route.table, route.destination, route.tos, metric)


def _links(route: Route) -> tuple[str, ...]:
    link = () if route.link is None else (route.link,)
    return link if route.prefsrc is None else (*link, ANY_LINK)


def _removal(route: Route) -> str:
    """Return the command that removes this route and none beside it."""
    words = [f"ip route del {route.destination} proto {route.protocol}"]
    if route.metric:
        words.append(f"metric {route.metric}")
    if route.table != MAIN_TABLE:
        words.append(f"table {route.table}")
    return " ".join(words)


def _always(_value: object) -> bool:
    """Return True: of the agent's links only, entries are listed, and all are the agent's."""
    return True


_OfLink = LinkAddress | Neighbour | FdbEntry | WireGuardDevice | WireGuardPeer | AllowedIp


def _link(value: _OfLink) -> tuple[str, ...]:
    return (value.link,)


def _links_of_link(link: LinkSpec) -> tuple[str, ...]:
    underlay = link.options.underlay if link.options else None
    return (link.name,) if underlay is None else (link.name, underlay)


LINK: Final[Kind[LinkSpec]] = Kind(
    name="link",
    is_own=lambda link: link.owner == LINK_OWNER,
    links=_links_of_link,
    makes=lambda link: link.name,
    subject=lambda link: link.name,
    removal=lambda link: f"ip link del {link.name}",
    watch="ip monitor link",
)

ADDRESS: Final[Kind[LinkAddress]] = Kind(
    name="address",
    is_own=_always,
    links=_link,
    makes=lambda each: each.link,
    removal=lambda each: f"ip address del {each}",
    watch="ip monitor address",
)

NEIGHBOUR: Final[Kind[Neighbour]] = Kind(
    name="neighbour",
    is_own=_always,
    links=_link,
    subject=lambda each: f"{each.address} on {each.link}",
    removal=lambda each: f"ip neighbour del {each.address} dev {each.link}",
    watch="ip monitor neigh",
)

FDB: Final[Kind[FdbEntry]] = Kind(
    name="fdb-entry",
    is_own=_always,
    links=_link,
    subject=lambda each: f"{each.mac} on {each.link}",
    removal=lambda each: f"bridge fdb del {each}",
    watch="bridge monitor fdb",
)

WIREGUARD: Final[Kind[WireGuardDevice]] = Kind(
    name="wireguard",
    is_own=_always,
    links=_link,
    subject=lambda each: each.link,
    removal=lambda each: f"ip link del {each.link}",
    watch="wg show",
)

WIREGUARD_PEER: Final[Kind[WireGuardPeer]] = Kind(
    name="wireguard-peer",
    is_own=_always,
    links=_link,
    subject=lambda each: f"{each.public_key} on {each.link}",
    removal=lambda each: f"wg set {each.link} peer {each.public_key} remove",
    watch="wg show",
)

ALLOWED_IP: Final[Kind[AllowedIp]] = Kind(
    name="allowed-ip",
    is_own=_always,
    links=_link,
    subject=lambda each: f"{each.network} on {each.link}",
    removal=lambda each: f"wg set {each.link} peer {each.public_key} allowed-ips OTHERS",
    watch="wg show",
)
