"""The kernel's objects as this host reads them: routes, links and addresses."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from agent.model.family import IPV4, Address, Interface, Network, family_of

__all__ = [
    "HostFacts",
    "Link",
    "Need",
    "Needed",
    "Place",
    "Route",
    "RouteKey",
    "RouteKind",
    "Uplink",
]

Place = tuple[int, Network, int]
"""Table, destination and TOS: of the routes there the kernel uses the one of the lowest metric.
A route of another TOS takes its own packets only."""


class RouteKind(enum.StrEnum):
    """Route types Hostmesh writes (rtnetlink(7) rtm_type)."""

    UNICAST = "unicast"
    UNREACHABLE = "unreachable"


class RouteKey(NamedTuple):
    """The kernel's key of routes (agent.kernel.netlink.routes). IPv6 has no TOS."""

    table: int
    destination: Network
    tos: int
    metric: int

    @property
    def place(self) -> Place:
        """The key without the metric."""
        return self.table, self.destination, self.tos


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route as the kernel keeps it; protocol says who wrote it.

    Attributes:
        gateway, link, prefsrc: None when absent. The link's name.
        metric: Without one it is what the kernel stores for a route without one (IPv6: 1024).
        onlink: The gateway is on the link though no address of the link says so.
        mtu: Largest packet that the route takes whole; 0 for the link's.
    """

    destination: Network
    kind: str = RouteKind.UNICAST
    gateway: Address | None = None
    link: str | None = None
    prefsrc: Address | None = None
    protocol: int = 0
    table: int = 254
    metric: int = 0
    tos: int = 0
    scope: int = 0
    onlink: bool = False
    mtu: int = 0

    def __post_init__(self) -> None:
        if not self.metric and self.destination.version != IPV4.version:
            object.__setattr__(self, "metric", family_of(self.destination).default_metric)

    @property
    def key(self) -> RouteKey:
        """The kernel keeps one route under each."""
        return RouteKey(self.table, self.destination, self.tos, self.metric)

    @property
    def place(self) -> Place:
        """The key without the metric."""
        return self.table, self.destination, self.tos

    def __str__(self) -> str:
        words = [] if self.kind == RouteKind.UNICAST else [str(self.kind)]
        words.append(str(self.destination))
        if self.gateway is not None:
            words.append(f"via {self.gateway}")
        if self.link is not None:
            words.append(f"dev {self.link}")
        words.append(f"proto {self.protocol}")
        if self.metric:
            words.append(f"metric {self.metric}")
        if self.onlink:
            words.append("onlink")
        if self.mtu:
            words.append(f"mtu {self.mtu}")
        return " ".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface.

    Attributes:
        kind: IFLA_INFO_KIND ("bridge", "veth", ...), "" for hardware.
        own: The agent made it.
    """

    index: int
    name: str
    kind: str
    up: bool
    mtu: int
    mac: str
    addresses: tuple[Interface, ...] = ()
    own: bool = False


class Need(enum.StrEnum):
    """The use of an address that a host needs beside the mesh."""

    ETCD = "etcd endpoint"
    GATEWAY = "default gateway"
    RESOLVER = "resolver"


@dataclass(frozen=True, slots=True)
class Needed:
    """An address without which the host is cut off, and its use."""

    address: Address
    need: Need

    def __str__(self) -> str:
        return f"the {self.need} {self.address}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The kernel's facts about this host: links with addresses, and every foreign route.

    Attributes:
        needed: Addresses that no route of the agent's may lead elsewhere; none of the host's own.
    """

    links: tuple[Link, ...]
    foreign_routes: tuple[Route, ...]
    needed: tuple[Needed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """The interface that carries the node address, with the node address and its on-link range.

    Attributes:
        link: Name of the underlay segment (``host.link``), "" without one.
        public_endpoint: Where peers reach this host's WireGuard (``host.public_endpoint``): an
            address with a port; "none" behind NAT; "" for the node address.
        wireguard_key: This host's public key, "" without one.
    """

    index: int
    name: str
    mtu: int
    node_address: Address
    on_link: Network
    link: str = ""
    public_endpoint: str = ""
    wireguard_key: str = ""
