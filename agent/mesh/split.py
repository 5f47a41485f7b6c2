"""How a lease is shared between docker0 and the networks that Docker makes. Pure.

docker0 alone is not enough: Compose creates a network per project, and Docker takes its
subnet from ``default-address-pools``. So the lease is cut in two: docker0 gets the lower
half, the upper half becomes the pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network

__all__ = ["DEFAULT_POOL_SIZE", "LeaseSplit", "split_lease"]

DEFAULT_POOL_SIZE = 24
"""Prefix length of each network that Docker makes from the pool: 254 containers."""

_SMALLEST = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSplit:
    """One lease, shared out.

    Attributes:
        docker0: The network of Docker's own bridge.
        bip: docker0's address on that network, the first usable one.
        pools: Docker's ``default-address-pools``: (base, prefix length of each network).
            Empty when the lease is too small to share.
    """

    docker0: IPv4Network
    bip: IPv4Interface
    pools: tuple[tuple[IPv4Network, int], ...]


def split_lease(subnet: IPv4Network, *, pool_size: int = DEFAULT_POOL_SIZE) -> LeaseSplit:
    """Share ``subnet`` between docker0 and the pool.

    The rule, for a pool of networks of ``/pool_size``: a subnet shorter than ``/pool_size``
    is halved, docker0 takes the lower half, the upper half is the pool. A subnet of
    ``/pool_size`` and longer goes to docker0 whole, without pools. With the default of 24:

    ======  ===================  ==========================
    lease   docker0              pool
    ======  ===================  ==========================
    /12     lower /13            2,048 networks of /24
    /16     lower /17            128 networks of /24
    /20     lower /21            8 networks of /24
    /23     lower /24            1 network of /24
    /24     the whole /24        none
    /30     the whole /30        none
    ======  ===================  ==========================

    Args:
        subnet: The lease's subnet, /30 or shorter.
        pool_size: Prefix length of each network that Docker makes, at most 30.

    Raises:
        ValueError: The subnet has no room for a bridge and a container, or ``pool_size``
            is not a prefix length that a Docker network can have.
    """
    if subnet.prefixlen > _SMALLEST:
        raise ValueError(f"{subnet} is too small for a bridge and a container")
    if not 1 <= pool_size <= _SMALLEST:
        raise ValueError(f"networks of /{pool_size} cannot hold a bridge and a container")
    if subnet.prefixlen >= pool_size:
        return LeaseSplit(docker0=subnet, bip=_first(subnet), pools=())
    lower, upper = subnet.subnets(prefixlen_diff=1)
    return LeaseSplit(docker0=lower, bip=_first(lower), pools=((upper, pool_size),))


def _first(network: IPv4Network) -> IPv4Interface:
    return IPv4Interface((network.network_address + 1, network.prefixlen))
