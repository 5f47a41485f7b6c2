"""Subnets in keys, and the key ranges that hold everything overlapping a subnet.

flannel writes a lease of 10.5.52.0/24 as ``<prefix>/subnets/10.5.52.0-24``; with IPv6 the key
goes on with ``&<address>-<length>`` (flannel pkg/subnet/subnet.go, MakeSubnetKey).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from agent.model.family import IPV4, Network

__all__ = [
    "SHORTEST_RANGE",
    "KeyRange",
    "overlapping_ranges",
    "parse_subnet",
    "subnet_name",
    "without_key",
]

_SUBNET = re.compile(r"((?:\d{1,3}\.){3}\d{1,3})-(\d{1,2})(?:&[0-9a-f:]{2,39}-\d{1,3})?")
SHORTEST_RANGE = IPV4.mesh_lengths[0]
"""No mesh is larger, so no lease or reservation is shorter."""


class KeyRange(NamedTuple):
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
        return IPV4.network((int.from_bytes(octets), int(length)))
    except ValueError:
        raise ValueError("the key is not an IPv4 network without host bits") from None


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
