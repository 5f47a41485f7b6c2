"""Since when each host without a heartbeat has been silent. For display only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from agent.model import HostId, View

__all__ = ["Silence"]


class Silence:
    """Remembers when a heartbeat was last seen, by comparing one complete view with the next.

    Args:
        wall_clock: Unix seconds; what is shown is how long ago, to a person.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._before: frozenset[HostId] = frozenset()
        self.last_heartbeat_s: Mapping[HostId, float] = {}
        """Unix time at which each silent host's heartbeat was found gone. Replaced, not changed."""

    def update(self, view: View) -> None:
        """Look at a complete view."""
        now = frozenset(view.heartbeats)
        holders = {lease.host_id for lease in view.leases}
        kept = {
            host: at
            for host, at in self.last_heartbeat_s.items()
            if host not in now and host in holders
        }
        for host in self._before - now:
            if host in holders:
                kept.setdefault(host, self._wall_clock())
        self._before = now
        self.last_heartbeat_s = kept
