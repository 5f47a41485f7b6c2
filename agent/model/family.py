"""Address families: every width, number and name that differs between IPv4 and IPv6.

All arithmetic on addresses is here. A value of either family goes through the same code
everywhere else; no other module knows how many bits an address has.

Sources: RFC 791, RFC 8200, linux/socket.h (AF_*), linux/route.h and linux/ipv6_route.h
(IP6_RT_PRIO_USER), linux/netfilter.h (NFPROTO_*), iptables(8), ip6tables(8), ipset(8).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Final

__all__ = [
    "ENABLED",
    "FAMILIES",
    "IPV4",
    "IPV6",
    "Address",
    "Family",
    "Interface",
    "Network",
    "Span",
    "address_order",
    "can_be_host",
    "can_hold_hosts",
    "excluding",
    "family_of",
    "is_default",
    "is_host",
    "last_subnet",
    "meet",
    "network_order",
    "read_address",
    "read_interface",
    "read_network",
    "reserved_ends",
    "span",
    "subnets_of",
    "supernet_of",
    "within",
]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Interface = IPv4Interface | IPv6Interface

Span = tuple[int, int]
"""First and last address of a range. Integers: networks compare a hundred times slower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One address family.

    Attributes:
        name: For messages.
        version: 4 or 6.
        bits: Width of an address.
        af: The AF_ number of netlink messages.
        default_metric: What the kernel stores for a route that is added without a metric.
        iptables: Name of the program; ``-restore`` and ``-save`` follow it.
        ipset: ipset's name of the family.
        nft: nft's name of the family, and of its header in a rule.
        icmp: iptables' name of the control protocol.
        mesh_lengths: Prefix lengths of the largest and the smallest mesh.
        subnet_lengths: Those of a host's subnet: docker0 and a container must fit in.
        pool_length: Prefix length of each network that Docker makes, unless settings say it.
        address, network, interface: The classes of its values.
    """

    name: str
    version: int
    bits: int
    af: int
    default_metric: int
    iptables: str
    ipset: str
    nft: str
    icmp: str
    mesh_lengths: tuple[int, int]
    subnet_lengths: tuple[int, int]
    pool_length: int
    address: type[IPv4Address | IPv6Address]
    network: type[IPv4Network | IPv6Network]
    interface: type[IPv4Interface | IPv6Interface]

    def host(self, address: Address) -> Network:
        """Return the range that holds this address only: a /32 or a /128."""
        return self.network((int(address), self.bits))

    def at(self, first: int, prefixlen: int) -> Network:
        """Return the network of that length around an address.

        Raises:
            ValueError: The length does not fit the family.
        """
        if not 0 <= prefixlen <= self.bits:
            raise ValueError(f"no {self.name} prefix has {prefixlen} bits")
        size = 1 << (self.bits - prefixlen)
        return self.network((first // size * size, prefixlen))

    def size(self, prefixlen: int) -> int:
        """Return how many addresses a network of that length has."""
        return 1 << (self.bits - prefixlen)


IPV4: Final = Family(
    name="IPv4",
    version=4,
    bits=32,
    af=2,
    default_metric=0,
    iptables="iptables",
    ipset="inet",
    nft="ip",
    icmp="icmp",
    mesh_lengths=(8, 28),
    subnet_lengths=(12, 30),
    pool_length=24,
    address=IPv4Address,
    network=IPv4Network,
    interface=IPv4Interface,
)

IPV6: Final = Family(
    name="IPv6",
    version=6,
    bits=128,
    af=10,
    default_metric=1024,
    iptables="ip6tables",
    ipset="inet6",
    nft="ip6",
    icmp="ipv6-icmp",
    mesh_lengths=(16, 124),
    subnet_lengths=(20, 126),
    pool_length=64,
    address=IPv6Address,
    network=IPv6Network,
    interface=IPv6Interface,
)

FAMILIES: Final = (IPV4, IPV6)

ENABLED: Final = (IPV4,)
"""The families that this version routes. Text of another one is refused where it is read."""


def family_of(value: Address | Network | Interface) -> Family:
    """Return the family of an address, a network or an interface address."""
    return IPV4 if value.version == IPV4.version else IPV6


def read_address(text: str) -> Address:
    """Read an address of an enabled family.

    Raises:
        ValueError: It is none.
    """
    return _family_in(text).address(text)


def read_network(text: str, *, strict: bool = True) -> Network:
    """Read a network of an enabled family; unless ``strict``, host bits are dropped.

    Raises:
        ValueError: It is none.
    """
    return _family_in(text).network(text, strict=strict)


def read_interface(text: str) -> Interface:
    """Read an address with its prefix length, of an enabled family.

    Raises:
        ValueError: It is none.
    """
    return _family_in(text).interface(text)


def _family_in(text: str) -> Family:
    family = IPV6 if ":" in text else IPV4
    if family not in ENABLED:
        raise ValueError(f"{family.name} is not supported")
    return family


def span(network: Network) -> Span:
    """Return the first and the last address of ``network`` as integers."""
    first = int(network.network_address)
    return first, first + (1 << (network.max_prefixlen - network.prefixlen)) - 1


def within(subnet: Network, cidr: Network) -> bool:
    """Whether all of ``subnet`` lies in ``cidr``; never across families.

    ``subnet_of`` says the same and leaves 400 bytes in the subnet, the cached last address:
    26 MB in a mesh of 65,000.
    """
    if subnet.version != cidr.version:
        return False
    differing = int(subnet.network_address) ^ int(cidr.network_address)
    shift = cidr.max_prefixlen - cidr.prefixlen
    return subnet.prefixlen >= cidr.prefixlen and differing >> shift == 0


def meet(one: Network, other: Network) -> bool:
    """Whether two networks have an address in common; never across families."""
    if one.version != other.version:
        return False
    shift = one.max_prefixlen - min(one.prefixlen, other.prefixlen)
    return (int(one.network_address) ^ int(other.network_address)) >> shift == 0


_HALF_OF_EVERYTHING: Final = 1
"""0.0.0.0/1 and 128.0.0.0/1 together are how VPN clients write a default route."""


def is_default(destination: Network) -> bool:
    """Whether a route to ``destination`` is a default route, or one half of it."""
    return destination.prefixlen <= _HALF_OF_EVERYTHING


def supernet_of(network: Network, prefixlen: int) -> Network:
    """Return the network of that length, no longer than its own, that holds ``network``."""
    return family_of(network).at(int(network.network_address), prefixlen)


def is_host(network: Network) -> bool:
    """Whether ``network`` holds one address only: a /32 or a /128."""
    return network.prefixlen == network.max_prefixlen


_NEVER_HOSTS: Final = {
    IPV4.version: tuple(map(span, map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")))),
    IPV6.version: tuple(map(span, map(IPv6Network, ("::/127", "ff00::/8")))),
}
"""RFC 1122 section 3.2.1.3, RFC 4291 section 2.5: unspecified, loopback, multicast, reserved."""


def can_be_host(address: Address) -> bool:
    """Whether a host on a network can have ``address``."""
    value = int(address)
    return not any(low <= value <= high for low, high in _NEVER_HOSTS[address.version])


def can_hold_hosts(network: Network) -> bool:
    """Whether hosts can have every address of ``network``."""
    first, last = span(network)
    return not any(low <= last and first <= high for low, high in _NEVER_HOSTS[network.version])


_ADDRESSES_WITHOUT_ENDS: Final = 31
"""From /31 on every IPv4 address is a host's (RFC 3021)."""


def reserved_ends(network: Network) -> tuple[Address, ...]:
    """Return the addresses that no host of ``network`` has: an IPv4 network's two ends."""
    if isinstance(network, IPv6Network) or network.prefixlen >= _ADDRESSES_WITHOUT_ENDS:
        return ()
    return network.network_address, network.broadcast_address


def subnets_of(network: Network, prefixlen: int) -> Iterator[Network]:
    """Yield the networks of that length, no shorter than its own, that ``network`` consists of."""
    family = family_of(network)
    first, size = int(network.network_address), family.size(prefixlen)
    for number in range(1 << (prefixlen - network.prefixlen)):
        yield family.network((first + number * size, prefixlen))


def excluding(network: Network, part: Network) -> tuple[Network, ...]:
    """Return the blocks of ``network`` that hold all of it but ``part``, in order of address."""
    family = family_of(part)
    first = int(part.network_address)
    siblings = (
        family.at(first ^ family.size(length), length)
        for length in range(network.prefixlen + 1, part.prefixlen + 1)
    )
    return tuple(sorted(siblings, key=network_order))


def last_subnet(network: Network, prefixlen: int) -> Network:
    """Return the last of the networks of that length that ``network`` consists of."""
    return family_of(network).at(span(network)[1], prefixlen)


def network_order(network: Network) -> tuple[int, int, int]:
    """Sort key: by family, then by address, wider networks first."""
    return network.version, int(network.network_address), network.prefixlen


def address_order(address: Address) -> tuple[int, int]:
    """Sort key: by family, then by address."""
    return address.version, int(address)
