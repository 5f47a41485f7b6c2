"""Underlays as values: links, the network cards on them, the routers between them.

Nothing here touches the kernel: net.py builds what these values say.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from hostmesh_lab.errors import LabError

BACKENDS = ("host-gw", "vxlan", "wireguard")
GATEWAY = 1
DNS = 5
STRANGER = 200
MAX_HOSTS = 180
OUTSIDE = "203.0.113.7"
OUTSIDE6 = "2001:db8:ffff::7"
_LINK_NAME = re.compile(r"[a-z][a-z0-9-]{0,5}")
_ROUTER_NAME = re.compile(r"[a-z][a-z0-9-]{0,7}")
"""Together with a dot they are an interface's name, of which the kernel takes 15 characters."""


@dataclass(frozen=True)
class Link:
    """A switch and its address ranges. Without a range it only carries frames.

    `mtu` is that of every card on the link. `drop_udp` are destination ports whose packets the
    switch drops.
    """

    name: str
    v4: str = ""
    v6: str = ""
    mtu: int = 1500
    drop_udp: tuple[int, ...] = ()

    def networks(self) -> list[IPv4Network | IPv6Network]:
        """Return its ranges, IPv4 first."""
        v4: list[IPv4Network | IPv6Network] = [IPv4Network(self.v4)] if self.v4 else []
        return [*v4, IPv6Network(self.v6)] if self.v6 else v4

    def addresses(self, number: int) -> list[str]:
        """Return the addresses of the card with this number, IPv4 first."""
        return [str(network[number]) for network in self.networks()]

    def mac(self, number: int) -> str:
        """Return a card's MAC. It is derived, so that a card keeps it over reboots."""
        if self.v4:
            return "02:68:" + _hex(IPv4Network(self.v4)[number].packed)
        name = hashlib.sha256(self.name.encode()).digest()[:2]
        return "02:6a:" + _hex(name + number.to_bytes(2, "big"))


def _hex(raw: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in raw)


@dataclass(frozen=True)
class Nic:
    """A card on a link; its addresses are number `number` of each of the link's ranges."""

    link: str
    number: int


@dataclass(frozen=True)
class Forward:
    """A port of a router's first address that is forwarded to a machine behind it."""

    protocol: str
    port: int
    to: str


@dataclass(frozen=True)
class Router:
    """A machine that forwards between links. It knows no route to any container.

    A card with number 1 is its link's default gateway. `masquerade` gives what leaves by the first
    card that card's address, and lets nothing new in by it but `forwards`. `routes` are pairs of a
    network and a next hop. `outside` gives it the addresses of a web server outside.
    """

    name: str
    nics: tuple[Nic, ...]
    masquerade: bool = False
    forwards: tuple[Forward, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    outside: bool = False


@dataclass(frozen=True)
class Port:
    """A machine's network card with its addresses, and the cable from it to a link's switch."""

    link: str
    cable: str
    device: str
    mac: str
    mtu: int
    addresses: list[str]
    gateways: list[str]


@dataclass(frozen=True)
class Topology:
    """An underlay: links, routers, and which links each host is on.

    Host n is on the links `places[n - 1]`, and after the last place the first comes again. A host's
    first link is the one of its eth0 and of its default route. etcd, the DNS server and the
    stranger are on the first link of all.
    """

    name: str
    about: str
    links: tuple[Link, ...]
    routers: tuple[Router, ...]
    places: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for link in self.links:
            _check_name(_LINK_NAME, link.name, "link")
        for router in self.routers:
            _check_name(_ROUTER_NAME, router.name, "router")
        used = [name for place in self.places for name in place]
        used += [nic.link for router in self.routers for nic in router.nics]
        for name in used:
            self.link(name)
        for place in self.places:
            if len(set(place)) < len(place):
                raise LabError(f"a host has one card on a link, not several: {', '.join(place)}")

    @property
    def first(self) -> Link:
        """The link of etcd, of the DNS server and of the stranger."""
        return self.links[0]

    def link(self, name: str) -> Link:
        """Return the link of that name."""
        for link in self.links:
            if link.name == name:
                return link
        known = ", ".join(link.name for link in self.links)
        raise LabError(f"no link {name!r} in topology {self.name}", f"one of {known}")

    def place(self, index: int) -> tuple[str, ...]:
        """Return the links of host number `index` (from 1)."""
        return self.places[(index - 1) % len(self.places)]

    def ports(self, machine: str, nics: tuple[Nic, ...], mtu: int | None = None) -> list[Port]:
        """Return a machine's cards as they are to be built; `mtu` overrides the first link's."""
        found = []
        for number, nic in enumerate(nics):
            link = self.link(nic.link)
            chosen = mtu if mtu and number == 0 else link.mtu
            pairs = zip(link.addresses(nic.number), link.networks(), strict=True)
            found.append(
                Port(
                    link.name,
                    f"{link.name}.{machine}",
                    f"eth{number}",
                    link.mac(nic.number),
                    chosen,
                    [f"{address}/{network.prefixlen}" for address, network in pairs],
                    self.gateways(nic) if number == 0 else [],
                )
            )
        return found

    def gateways(self, nic: Nic) -> list[str]:
        """Return the default gateways of a card, one for each family, or none."""
        link = self.link(nic.link)
        routed = any(Nic(nic.link, GATEWAY) in router.nics for router in self.routers)
        return link.addresses(GATEWAY) if routed and nic.number != GATEWAY else []

    def obstacle(self, backend: str) -> str:
        """Say why a backend cannot carry packets between these hosts; "" if it can."""
        if backend not in BACKENDS:
            return f"the lab does not know backend {backend}"
        uplinks = dict.fromkeys(place[0] for place in self.places)
        if backend == "host-gw" and len(uplinks) > 1:
            names = ", ".join(uplinks)
            return f"host-gw needs every peer on-link, and the hosts are on several links ({names})"
        without = [name for name in uplinks if not self.link(name).v4]
        if without:
            return f"{backend} needs IPv4 node addresses, and link {without[0]} has none"
        hidden = {nic.link for each in self.routers if each.masquerade for nic in each.nics[1:]}
        if hidden.intersection(uplinks) and backend != "wireguard":
            return f"{backend} needs to reach every peer's node address, and some are behind NAT"
        return ""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "Topology":
        """Read what `dataclasses.asdict` and JSON made of a topology."""
        links = [Link(**{**item, "drop_udp": tuple(item["drop_udp"])}) for item in raw["links"]]
        places = tuple(tuple(place) for place in raw["places"])
        routers = tuple(map(_router_of, raw["routers"]))
        return cls(raw["name"], raw["about"], tuple(links), routers, places)


def _check_name(pattern: re.Pattern[str], name: str, what: str) -> None:
    if not pattern.fullmatch(name):
        raise LabError(f"{name!r} cannot name a {what}", f"use {pattern.pattern}")


def _router_of(raw: Mapping[str, Any]) -> Router:
    return Router(
        raw["name"],
        tuple(Nic(**item) for item in raw["nics"]),
        raw["masquerade"],
        tuple(Forward(**item) for item in raw["forwards"]),
        tuple((network, via) for network, via in raw["routes"]),
        raw["outside"],
    )


def host_number(index: int) -> int:
    """Return the number of host `index` (from 1) on each of its links."""
    if not 1 <= index <= MAX_HOSTS:
        raise LabError(f"a lab has at most {MAX_HOSTS} hosts")
    return 10 + index


def etcd_number(index: int) -> int:
    """Return the number of etcd member `index` (from 1) on the first link."""
    return GATEWAY + index


def in_url(address: str) -> str:
    """Return an address as a URL has it: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


_LAN = Link("lan", "192.168.50.0/24")
_WORLD = Router("world", (Nic("lan", GATEWAY),), outside=True)
_SITE = "192.168.1.0/24"
WIREGUARD = 51820

ONE_LAN = Topology(
    "one-lan", "every host on one LAN, 192.168.50.0/24", (_LAN,), (_WORLD,), (("lan",),)
)
TWO_LANS = Topology(
    "two-lans",
    "hosts in turn on two LANs, with a router between that has no routes to containers",
    (_LAN, Link("lan2", "192.168.51.0/24")),
    (replace(_WORLD, nics=(Nic("lan", GATEWAY), Nic("lan2", GATEWAY))),),
    (("lan",), ("lan2",)),
)
NAT = Topology(
    "nat",
    "host1 on the LAN; host2 behind a NAT; host3 behind another that forwards UDP 51820 and"
    " TCP 8080 (to 80); both sites use 192.168.1.0/24",
    (_LAN, Link("site2", _SITE), Link("site3", _SITE)),
    (
        _WORLD,
        Router("nat2", (Nic("lan", 252), Nic("site2", GATEWAY)), masquerade=True),
        Router(
            "nat3",
            (Nic("lan", 253), Nic("site3", GATEWAY)),
            masquerade=True,
            forwards=(
                Forward("udp", WIREGUARD, f"{IPv4Network(_SITE)[13]}:{WIREGUARD}"),
                Forward("tcp", 8080, f"{IPv4Network(_SITE)[13]}:80"),
            ),
        ),
    ),
    (("lan",), ("site2",), ("site3",)),
)
TWO_NICS = Topology(
    "two-nics",
    "every host on the LAN with eth0, and with eth1 on a second switch (192.168.60.0/24)",
    (_LAN, Link("back", "192.168.60.0/24")),
    (_WORLD,),
    (("lan", "back"),),
)
V6 = Topology(
    "v6",
    "every host on one LAN that has IPv6 only, fd00:50::/64",
    (Link("lan", v6="fd00:50::/64"),),
    (_WORLD,),
    (("lan",),),
)
DUAL_STACK = Topology(
    "dual-stack",
    "every host on one LAN with IPv4 and IPv6",
    (replace(_LAN, v6="fd00:50::/64"),),
    (_WORLD,),
    (("lan",),),
)
NAMED = {each.name: each for each in (ONE_LAN, TWO_LANS, NAT, TWO_NICS, V6, DUAL_STACK)}


def named(name: str) -> Topology:
    """Return the topology of that name."""
    if name not in NAMED:
        raise LabError(f"no topology {name!r}", "one of " + ", ".join(NAMED))
    return NAMED[name]
