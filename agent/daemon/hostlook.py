"""When the host's links, addresses and others' routes are looked at again, and how much of them."""

from __future__ import annotations

from collections.abc import Callable

from agent.kernel.monitor import KernelEvent
from agent.model import HostFacts

__all__ = ["HostLook", "same_routes"]


class HostLook:
    """Remembers what has to be looked at. Used by the loop's thread only.

    A container that starts or stops makes and unmakes a link that no route leads by: that costs a
    list of the links. A list of all routes costs 50 ms where a mesh is large, and a second where
    the host is a router with a full table.

    Args:
        read: A fresh look; given an earlier one, at links and addresses only.
    """

    def __init__(self, read: Callable[[HostFacts | None], HostFacts]) -> None:
        self._read = read
        self._all = True
        self._links = False

    @property
    def due(self) -> bool:
        """Whether anything may be otherwise than at the last look."""
        return self._all or self._links

    def again(self) -> None:
        """Look at everything."""
        self._all = True

    def noticed(self, event: KernelEvent, facts: HostFacts | None) -> None:
        """Follow what the monitor saw since the look that found ``facts``."""
        if not event.concerns_host:
            return
        self._links = True
        if facts is None or event.ways or event.may_have_taken(_by_routes(facts)):
            self._all = True

    def look(self, facts: HostFacts | None) -> HostFacts:
        """See how it is now; nothing is due any more.

        Args:
            facts: What the last look found.

        Raises:
            KernelError: A list could not be had completely.
        """
        known = None if self._all else facts
        self._all = self._links = False
        return self._read(known)


def _by_routes(facts: HostFacts) -> frozenset[str]:
    """Links that others' routes lead by: the kernel takes those with their link, unsaid."""
    return frozenset(route.link for route in facts.foreign_routes if route.link is not None)


def same_routes(facts: HostFacts, before: HostFacts | None) -> bool:
    """Whether others' routes and what the host needs are as they were; rules depend on no more."""
    return (
        before is not None
        and facts.foreign_routes == before.foreign_routes
        and facts.needed == before.needed
    )
