"""Choose a subnet for a Docker network. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from agent.model.family import Network, family_of, meet

__all__ = ["free_subnet"]


def free_subnet(bases: Sequence[Network], length: int, taken: Sequence[Network]) -> Network | None:
    """Return the last free subnet of that length, None when none is free.

    Docker takes the first free one for a network without a subnet. From the other end a network
    that was removed for a moment is likely to get its subnet again.

    Args:
        bases: The ranges to choose from.
        length: The prefix length.
        taken: Subnets that it must not overlap.
    """
    for base in sorted(bases, key=lambda each: int(each.network_address), reverse=True):
        size = 1 << (base.max_prefixlen - length)
        first = int(base.network_address)
        at = first + (1 << (base.max_prefixlen - base.prefixlen)) - size
        while at >= first:
            found = family_of(base).at(at, length)
            hit = next((each for each in taken if meet(each, found)), None)
            if hit is None:
                return found
            at = min(at, int(hit.network_address) // size * size) - size
    return None
