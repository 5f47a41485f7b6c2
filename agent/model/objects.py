"""Kernel objects: keyed values of which desired and actual state consist.

Each kind has ``key``, by which the kernel tells its objects apart, and prints itself as
iproute2 would. Links are referred to by name and resolved when an object is written, because
an index may belong to another link tomorrow. :class:`agent.model.host.Route` is one kind more.

Sources: rtnetlink(7), linux/if_link.h, linux/neighbour.h, drivers/net/vxlan/vxlan_core.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from agent.model.family import Address, Interface

__all__ = [
    "LINK_OWNER",
    "LINK_PREFIX",
    "NO_MAC",
    "RP_FILTER_LOOSE",
    "FdbEntry",
    "FdbKey",
    "LinkAddress",
    "LinkSpec",
    "Neighbour",
    "NeighbourKey",
    "SetMember",
    "VxlanOptions",
]

NO_MAC: Final = "00:00:00:00:00:00"
LINK_PREFIX: Final = "hm"
"""How the names of the agent's links begin."""
LINK_OWNER: Final = "hostmesh"
"""The owner mark of the agent's links (IFLA_IFALIAS). A link that lacks it is another program's,
whatever its name. Objects of a link belong to the link's owner."""
RP_FILTER_LOOSE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class VxlanOptions:
    """The options of a vxlan device (IFLA_VXLAN_*).

    Attributes:
        vni: VXLAN network identifier, 1 to 2**24 - 1.
        port: UDP destination port.
        local: Source address of outer packets.
        underlay: Name of the link that outer packets leave by.
        learning: Whether the device learns MAC addresses from packets.
    """

    vni: int
    port: int
    local: Address | None = None
    underlay: str | None = None
    learning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSpec:
    """A network device of the agent's own. Its key is its name.

    Attributes:
        kind: IFLA_INFO_KIND: "vxlan", "bridge", "dummy", …
        mac: "" for one that the kernel chooses.
        mtu: Bytes; 0 for the kernel's default.
        options: By kind; None for a kind without any.
        rp_filter: How sources are checked (ip-sysctl.rst): 2, loose. A strict check drops what
            comes by this link while the way back is another one.
        owner: LINK_OWNER for the agent's own.
    """

    name: str
    kind: str
    mac: str = ""
    mtu: int = 0
    up: bool = True
    options: VxlanOptions | None = None
    rp_filter: int = RP_FILTER_LOOSE
    owner: str = LINK_OWNER

    @property
    def key(self) -> str:
        """The kernel keeps one link under each name."""
        return self.name

    def __str__(self) -> str:
        words = [self.name, "type", self.kind]
        if self.mac:
            words += ["address", self.mac]
        if self.mtu:
            words += ["mtu", str(self.mtu)]
        return " ".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkAddress:
    """An address of one of the agent's own links."""

    link: str
    interface: Interface

    @property
    def key(self) -> tuple[str, Interface]:
        """Link, address and prefix length."""
        return self.link, self.interface

    def __str__(self) -> str:
        return f"{self.interface} dev {self.link}"


class NeighbourKey(NamedTuple):
    """The kernel keeps one entry for each address of a link."""

    link: str
    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A permanent entry of a link's neighbour table (ARP, NDP)."""

    link: str
    address: Address
    mac: str

    @property
    def key(self) -> NeighbourKey:
        """Link and address."""
        return NeighbourKey(self.link, self.address)

    def __str__(self) -> str:
        return f"{self.address} lladdr {self.mac} dev {self.link}"


class FdbKey(NamedTuple):
    """One remote for each MAC; for the all-zero MAC one entry for each remote."""

    link: str
    mac: str
    destination: Address | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FdbEntry:
    """A permanent entry of a vxlan device's forwarding table.

    The all-zero MAC is for flooding: it may have many destinations.
    """

    link: str
    mac: str
    destination: Address

    @property
    def key(self) -> FdbKey:
        """Link and MAC, and the destination where one MAC has several."""
        return FdbKey(self.link, self.mac, self.destination if self.mac == NO_MAC else None)

    def __str__(self) -> str:
        return f"{self.mac} dst {self.destination} dev {self.link}"


@dataclass(frozen=True, slots=True)
class SetMember:
    """One member of an ipset of the agent's own, as the kernel packs it.

    Attributes:
        member: The address in network order, then what the set's type has more.
    """

    set: str
    member: bytes

    @property
    def key(self) -> SetMember:
        """A member has nothing but its key."""
        return self

    def __str__(self) -> str:
        return f"{self.set} {self.member.hex()}"
