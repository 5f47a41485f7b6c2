"""Arithmetic on ranges of addresses: overlap, the order in which a host tries subnets, a free CIDR.

Pure: no clock, no randomness but what a host id gives, so that a host prefers the same
subnets after every restart and on every rebuilt etcd.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_network

from agent.model import MeshConfig
from agent.model.family import Network, family_of, subnets_of

__all__ = [
    "MAX_SUBNETS",
    "NEVER_PROPOSED",
    "OverlapIndex",
    "candidates",
    "count_subnets",
    "propose_cidr",
    "subnet_at",
]

MAX_SUBNETS = 65_536
"""More subnets than this in one mesh are refused: it is what the candidate order is tested for."""

NEVER_PROPOSED: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "172.16.0.0/12",  # Docker's default pools (and 172.17.0.0/16, docker0's)
        "192.168.0.0/16",  # Docker's second default pool, and most home and office networks
        "10.128.0.0/9",  # one cloud's default range for new networks
        "10.244.0.0/16",  # flannel's in its own manifests
        "10.0.0.0/16",  # the usual first private network at cloud providers
    )
)
"""Ranges that :func:`propose_cidr` avoids, even when this host sees no use of them."""


_Block = tuple[int, int, int]
"""IP version, prefix length and prefix: compares and hashes faster than a network."""


def _block(network: Network, length: int) -> _Block:
    """The block of that length, no longer than its own, that ``network`` lies in."""
    return (
        network.version,
        length,
        int(network.network_address) >> (network.max_prefixlen - length),
    )


class OverlapIndex:
    """A growing set of networks that answers "does this overlap any?" in constant time.

    CIDR blocks overlap only when one contains the other. So it is enough to remember every
    network and every prefix above one: a look-up for each length that there is, and one more,
    however many networks there are (65,536 leases are folded per view).
    """

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._members: dict[_Block, Network] = {}
        self._above: dict[_Block, Network] = {}
        self._lengths: dict[int, tuple[int, ...]] = {}  # by IP version, the shortest first
        for network in networks:
            self.add(network)

    def add(self, network: Network) -> None:
        """Remember ``network``; adding it twice is harmless."""
        version = network.version
        self._members[_block(network, network.prefixlen)] = network
        lengths = self._lengths.get(version, ())
        if network.prefixlen not in lengths:
            self._lengths[version] = tuple(sorted((*lengths, network.prefixlen)))
        for length in range(network.prefixlen - 1, -1, -1):
            above = _block(network, length)
            if above in self._above:
                return  # and so is every shorter one
            self._above[above] = network

    def find(self, network: Network) -> Network | None:
        """One remembered network that shares an address with ``network``, or None."""
        for length in self._lengths.get(network.version, ()):
            if length > network.prefixlen:
                break
            found = self._members.get(_block(network, length))
            if found is not None:
                return found
        return self._above.get(_block(network, network.prefixlen))


def count_subnets(config: MeshConfig) -> int:
    """How many subnets of ``subnet_len`` lie between ``subnet_min`` and ``subnet_max``, both in."""
    reach = int(config.subnet_max) - int(config.subnet_min)
    return max(0, reach // family_of(config.cidr).size(config.subnet_len) + 1)


def subnet_at(config: MeshConfig, index: int) -> Network:
    """Return the ``index``-th subnet of the mesh, counted from ``subnet_min``."""
    family = family_of(config.cidr)
    first = int(config.subnet_min) + index * family.size(config.subnet_len)
    return family.network((first, config.subnet_len))


def candidates(
    config: MeshConfig,
    host_id: str,
    *,
    preferred: Iterable[Network] = (),
    last: Collection[Network] = (),
    avoid: Collection[Network] = (),
) -> Iterator[Network]:
    """Yield the subnets that a host should try, best first, as they are asked for.

    ``preferred`` (a reservation, the past subnet) come first as they are; then every subnet
    of the mesh in an order of the host's own; those that overlap one of ``last`` (remembered
    for other hosts) at the end. Whatever overlaps ``avoid`` is left out altogether.

    Args:
        config: The mesh; its subnet_len and bounds say which subnets there are.
        host_id: Seeds the order, so that it is stable per host and differs between hosts.
        preferred: Tried first; may have another length than the mesh's.
        last: Subnets that others held lately.
        avoid: Networks that this host sees elsewhere.
    """
    avoided = OverlapIndex(avoid)
    late = OverlapIndex(last)
    seen: set[Network] = set()
    for subnet in preferred:
        if subnet not in seen and avoided.find(subnet) is None:
            seen.add(subnet)
            yield subnet
    postponed: list[Network] = []
    for index in _permutation(host_id, count_subnets(config)):
        subnet = subnet_at(config, index)
        if subnet in seen or avoided.find(subnet) is not None:
            continue
        if late.find(subnet) is not None:
            postponed.append(subnet)
        else:
            yield subnet
    yield from postponed


def _permutation(seed: str, size: int) -> Iterator[int]:
    """All of 0 … size-1 once, in an order drawn from ``seed``, without a list of them.

    ``start + step * i`` modulo ``size`` visits everything when step and size have no common
    divisor. Start and step differ per seed, so two hosts that meet once part again.
    """
    if size <= 0:
        return
    digest = hashlib.sha256(seed.encode()).digest()
    start = int.from_bytes(digest[:8]) % size
    step = int.from_bytes(digest[8:16]) % size
    while math.gcd(step, size) != 1:
        step = (step + 1) % size
    position = start
    for _ in range(size):
        yield position
        position = (position + step) % size


def propose_cidr(occupied: Collection[Network], *, prefixlen: int = 10) -> Network | None:
    """Find a private range for a new mesh that meets nothing in ``occupied`` nor usual defaults.

    Args:
        occupied: Every network that the asking host can see: addresses and routes, without
            the default route.
        prefixlen: Wished length. A longer one is taken when no such range is free, down
            to /16; the result is the first free range of the shortest such length.

    Returns:
        The range, or None when even a /16 of 10.0.0.0/8 and 100.64.0.0/10 is not free.
    """
    taken = OverlapIndex(itertools.chain(occupied, NEVER_PROPOSED))
    private = ip_network("10.0.0.0/8")
    shared = ip_network("100.64.0.0/10")  # RFC 6598; only when 10/8 is full
    for pool in (private, shared):
        for length in range(max(prefixlen, pool.prefixlen), 17):
            for candidate in _blocks(pool, length):
                if taken.find(candidate) is None:
                    return candidate
    return None


def _blocks(pool: Network, length: int) -> Iterator[Network]:
    """Yield the blocks of ``pool``, its first quarter last: numbering plans start there."""
    quarter = max(1, 1 << (length - pool.prefixlen) >> 2)
    blocks = subnets_of(pool, length)
    first = tuple(itertools.islice(blocks, quarter))
    return itertools.chain(blocks, first)
