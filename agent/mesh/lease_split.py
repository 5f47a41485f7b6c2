"""How a lease is shared between docker0 and the networks that Docker makes. Pure.

docker0 alone is not enough: Compose creates a network per project, and Docker takes its subnet from
``default-address-pools``. So docker0 gets the lower part of the lease, half of it by default, and
the rest becomes pools.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.family import Interface, Network, excluding, family_of

__all__ = ["LeaseSplit", "split_lease"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSplit:
    """One lease, shared out.

    Attributes:
        docker0: The network of Docker's own bridge.
        bip: docker0's address on that network, the first usable one.
        pools: Docker's ``default-address-pools``: (base, prefix length of each network), in
            order of address. Empty when all goes to docker0.
    """

    docker0: Network
    bip: Interface
    pools: tuple[tuple[Network, int], ...]


def split_lease(
    subnet: Network,
    *,
    network_len: int | None = None,
    docker0_bits: int = 1,
) -> LeaseSplit:
    """Share ``subnet`` between docker0 and the pools.

    The rule, for networks of ``/network_len``: docker0 takes its share from the lower end, a
    ``/network_len`` at least, and what is left are the pools. A subnet of ``/network_len`` and
    longer goes to docker0 whole. With the defaults of IPv4:

    ======  ===================  ==========================
    lease   docker0              pool
    ======  ===================  ==========================
    /16     lower /17            128 networks of /24
    /23     lower /24            1 network of /24
    /24     the whole /24        none
    ======  ===================  ==========================

    Args:
        subnet: The lease's subnet, one that a host can hold.
        network_len: Prefix length of each network that Docker makes, as long as a subnet's at
            most; the family's usual one unless given.
        docker0_bits: By how many bits docker0's prefix is longer than the lease's: 1 is half
            of the lease, 0 all of it.

    Raises:
        ValueError: The subnet is too small for a bridge and a container, or ``network_len``
            is not a prefix length that a Docker network can have.
    """
    family = family_of(subnet)
    smallest = family.subnet_lengths[1]
    if network_len is None:
        network_len = family.pool_length
    if subnet.prefixlen > smallest:
        raise ValueError(f"{subnet} is too small for a bridge and a container")
    if not 1 <= network_len <= smallest:
        raise ValueError(f"networks of /{network_len} cannot hold a bridge and a container")
    wished = subnet.prefixlen + docker0_bits
    length = max(subnet.prefixlen, min(wished, network_len))
    docker0 = family.at(int(subnet.network_address), length)
    return LeaseSplit(
        docker0=docker0,
        bip=family.interface((int(docker0.network_address) + 1, length)),
        pools=tuple((base, network_len) for base in excluding(subnet, docker0)),
    )
