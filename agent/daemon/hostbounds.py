"""What this host allows of a config, kept current while the agent runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agent.daemon.known import Known
from agent.kernel.needed import needed_addresses
from agent.leases.registry import Registry
from agent.model import Bounds, HostFacts
from agent.model.family import Address, Network

__all__ = ["HostBounds"]


class HostBounds:
    """Writes the bounds that the registry holds every config against. For the loop's thread.

    Args:
        registry: Its ``bounds`` are replaced.
        kept: CIDRs outside ``mesh.within`` that stay valid.
        endpoints: Addresses of etcd's endpoints, as far as they are known.
        changed: Called when a config that was judged must be judged again.
    """

    def __init__(
        self,
        registry: Registry,
        kept: tuple[Network, ...],
        endpoints: Callable[[], frozenset[Address]],
        changed: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._endpoints = endpoints
        self._changed = changed
        registry.bounds = replace(registry.bounds, kept=kept)

    def adopt(self, bounds: Bounds) -> None:
        """Go on with another ``mesh.within``."""
        self._registry.bounds = replace(self._registry.bounds, allowed=bounds.allowed)
        self._changed()

    def follow(self, known: Known) -> None:
        """Follow which config is in force: its CIDRs are not refused for what they hold."""
        in_force = known.config.cidrs if known.config else ()
        self._registry.bounds = replace(self._registry.bounds, in_force=in_force)

    def with_needed(self, facts: HostFacts) -> HostFacts:
        """Add to a fresh look what the host needs, and hold configs against it from now on."""
        needed = needed_addresses(facts, self._endpoints())
        if needed != self._registry.bounds.needed:
            self._registry.bounds = replace(self._registry.bounds, needed=needed)
            self._changed()
        return replace(facts, needed=needed)
