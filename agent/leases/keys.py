"""The keys under the prefix, and the key ranges that hold everything overlapping a subnet.

flannel writes a lease of 10.5.52.0/24 as ``<prefix>/subnets/10.5.52.0-24``; with IPv6 the key
goes on with ``&<address>-<length>`` (flannel pkg/subnet/subnet.go, MakeSubnetKey).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network

from agent.model import HostId
from agent.model.family import Address, Network

__all__ = [
    "HOST_ID",
    "SHORTEST_RANGE",
    "KeyRange",
    "Keys",
    "overlapping_ranges",
    "parse_subnet",
    "subnet_name",
    "without_key",
]

_SUBNET = re.compile(r"((?:\d{1,3}\.){3}\d{1,3})-(\d{1,2})(?:&[0-9a-f:]{2,39}-\d{1,3})?")
HOST_ID = re.compile(r"[0-9a-f]{32}")
"""How a host id looks, in keys and in values."""

SHORTEST_RANGE = 8
"""No mesh is larger than a /8, so no lease or reservation is shorter."""


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys in [start, end), in etcd's order (bytes)."""

    start: bytes
    end: bytes


def subnet_name(subnet: Network) -> str:
    """Spell a subnet as in keys: ``10.5.52.0-24``."""
    return f"{subnet.network_address}-{subnet.prefixlen}"


def parse_subnet(name: str) -> Network:
    """Read a subnet from the last part of a key, the IPv6 half of a dual-stack key left out.

    Raises:
        ValueError: It is not exactly what :func:`subnet_name` would write.
    """
    found = _SUBNET.fullmatch(name)
    if found is None:
        raise ValueError("the key is not <address>-<length>")
    address, length = found.groups()
    octets = tuple(map(int, address.split(".")))
    if "{}.{}.{}.{}-{}".format(*octets, int(length)) != f"{address}-{length}":
        raise ValueError("the key is not an IPv4 network as <address>-<length>")
    try:  # from numbers: a tenth of what parsing the text takes, and a large mesh has many
        return IPv4Network((int.from_bytes(octets), int(length)))
    except ValueError:
        raise ValueError("the key is not an IPv4 network without host bits") from None


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one mesh.

    Attributes:
        prefix: Such as "/hostmesh", without a slash at the end.
    """

    prefix: str

    @property
    def everything(self) -> KeyRange:
        """All keys of the mesh."""
        return KeyRange(f"{self.prefix}/".encode(), f"{self.prefix}0".encode())

    @property
    def leases(self) -> KeyRange:
        """The keys of all leases."""
        return self._folder("subnets")

    @property
    def reservations(self) -> KeyRange:
        """The keys of all reservations."""
        return self._folder("reservations")

    def _folder(self, kind: str) -> KeyRange:
        return KeyRange(f"{self.prefix}/{kind}/".encode(), f"{self.prefix}/{kind}0".encode())

    @property
    def config(self) -> bytes:
        """The mesh's settings."""
        return f"{self.prefix}/config".encode()

    @property
    def grace(self) -> bytes:
        """There while holders of a replaced etcd come back; see Registry.create_config."""
        return f"{self.prefix}/grace".encode()

    def subnet(self, subnet: Network) -> bytes:
        """Return the key of the lease of a subnet."""
        return f"{self.prefix}/subnets/{subnet_name(subnet)}".encode()

    def reservation(self, subnet: Network) -> bytes:
        """Return the key of the reservation of a subnet."""
        return f"{self.prefix}/reservations/{subnet_name(subnet)}".encode()

    def heartbeat(self, host_id: HostId) -> bytes:
        """Return the key that lives while the host's agent does."""
        return f"{self.prefix}/hosts/{host_id}".encode()

    def clone(self, host_id: HostId, node_address: Address) -> bytes:
        """Return the key by which a host says that another has its identity."""
        return f"{self.prefix}/clones/{host_id}/{node_address}".encode()

    def memory(self, host_id: HostId) -> bytes:
        """Return the key of a host's last subnet."""
        return f"{self.prefix}/memory/{host_id}".encode()

    def turn(self, what: str) -> bytes:
        """Return the key that the one host has whose turn it is to do ``what``."""
        return f"{self.prefix}/turns/{what}".encode()

    def split(self, key: bytes) -> tuple[str, str]:
        """Take a key apart into kind and name: ("subnets", "10.64.0.0-16"), ("config", "").

        Raises:
            ValueError: The key is not ASCII or too long to be one of ours.
        """
        if len(key) > len(self.prefix) + 200:
            raise ValueError("the key is too long")
        try:
            path = key.decode("ascii")
        except UnicodeDecodeError:
            raise ValueError("the key is not ASCII") from None
        kind, _, name = path.removeprefix(f"{self.prefix}/").partition("/")
        return kind, name

    def leases_overlapping(self, subnet: Network) -> tuple[KeyRange, ...]:
        """Return ranges holding all leases, of any length, that share an address with it."""
        return self._below("subnets", subnet)

    def reservations_overlapping(self, subnet: Network) -> tuple[KeyRange, ...]:
        """Return ranges holding all reservations that share an address with ``subnet``."""
        return self._below("reservations", subnet)

    def _below(self, kind: str, subnet: Network) -> tuple[KeyRange, ...]:
        folder = f"{self.prefix}/{kind}/".encode()
        return tuple(
            KeyRange(folder + each.start, folder + each.end) for each in overlapping_ranges(subnet)
        )


def without_key(ranges: Iterable[KeyRange], key: bytes) -> tuple[KeyRange, ...]:
    """Cut one key out of ranges."""
    found: list[KeyRange] = []
    for each in ranges:
        if not each.start <= key < each.end:
            found.append(each)
            continue
        if each.start < key:
            found.append(KeyRange(each.start, key))
        found.append(KeyRange(key + b"\0", each.end))
    return tuple(found)


def overlapping_ranges(subnet: Network) -> tuple[KeyRange, ...]:
    """Return ranges of names that hold every network overlapping ``subnet``, and no other.

    Networks overlap when one contains the other. The containing ones are one short range
    per length: ``10.64.0.0-12`` alone and with an IPv6 half behind "&". The contained ones,
    of whatever length, start with one of a run of octets: for 10.64.0.0/16 with ``10.64.``,
    for 10.64.4.0/22 with ``10.64.4.`` to ``10.64.7.``.
    """
    return (*_containing(subnet), *_contained(subnet))


def _containing(subnet: Network) -> Iterator[KeyRange]:
    for length in range(SHORTEST_RANGE, subnet.prefixlen):
        name = subnet_name(subnet.supernet(new_prefix=length)).encode()
        yield KeyRange(name, name + b"'")  # "'" is the character after "&"


def _contained(subnet: Network) -> Iterator[KeyRange]:
    """Yield ranges of names that start with an address inside ``subnet``."""
    octets = subnet.network_address.packed
    whole, bits = divmod(subnet.prefixlen, 8)
    if bits == 0 and whole:  # all of an octet: the run of one value of the octet before
        whole, bits = whole - 1, 8
    head = "".join(f"{octet}." for octet in octets[:whole])
    first = octets[whole]
    last = first + (1 << (8 - bits)) - 1
    separator, following = ("-", ".") if whole == len(octets) - 1 else (".", "/")
    for low, high in _runs(first, last):
        yield KeyRange(f"{head}{low}{separator}".encode(), f"{head}{high}{following}".encode())


@functools.cache
def _runs(first: int, last: int) -> tuple[tuple[int, int], ...]:
    """Cut first … last into runs that are neighbours in order of text: (130, 139), (14, 14).

    The separators sort before all digits, so "13." comes before "130." and both before
    "14.": runs of neighbours in that order are ranges of keys that hold nothing else.
    """
    runs: list[tuple[int, int]] = []
    previous_inside = False
    for octet in sorted(range(256), key=lambda each: f"{each}."):
        inside = first <= octet <= last
        if inside and previous_inside:
            runs[-1] = (runs[-1][0], octet)
        elif inside:
            runs.append((octet, octet))
        previous_inside = inside
    return tuple(runs)
