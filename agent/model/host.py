"""What the kernel holds: routes, links and addresses of this host."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

__all__ = ["HostFacts", "Link", "Route", "RouteKind", "Uplink"]


class RouteKind(enum.StrEnum):
    """Route types Hostmesh writes (rtnetlink(7) rtm_type)."""

    UNICAST = "unicast"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One IPv4 route as the kernel keeps it.

    The kernel's key is (table, destination, tos, metric); protocol says who wrote it.
    Attributes ``gateway``, ``oif`` (interface index) and ``prefsrc`` are None when absent.
    """

    destination: IPv4Network
    kind: str = RouteKind.UNICAST
    gateway: IPv4Address | None = None
    oif: int | None = None
    prefsrc: IPv4Address | None = None
    protocol: int = 0
    table: int = 254
    metric: int = 0
    tos: int = 0
    scope: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface. ``kind`` is IFLA_INFO_KIND ("bridge", "veth", ...), "" for hardware."""

    index: int
    name: str
    kind: str
    up: bool
    mtu: int
    mac: str
    addresses: tuple[IPv4Interface, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the kernel says about this host: links with addresses, and every route not ours."""

    links: tuple[Link, ...]
    foreign_routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """The interface that carries the node address, with the node address and its on-link range."""

    index: int
    name: str
    mtu: int
    node_address: IPv4Address
    on_link: IPv4Network
