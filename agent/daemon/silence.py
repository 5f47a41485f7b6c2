"""Since when each host without a heartbeat has been silent. For display only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from agent.model import Heartbeat, HostId, View
from agent.sharedmap import changed_keys

__all__ = ["Silence"]


class Silence:
    """Remembers when a heartbeat was last seen, by comparing one complete view with the next.

    Args:
        wall_clock: Unix seconds; what is shown is how long ago, to a person.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._before: Mapping[HostId, Heartbeat] = {}
        self.last_heartbeat_s: Mapping[HostId, float] = {}
        """Unix time at which each silent host's heartbeat was found gone. Replaced, not changed."""

    def update(self, view: View) -> None:
        """Look at a complete view. Costs what changed, and a look at each silent host."""
        kept = {
            host: at
            for host, at in self.last_heartbeat_s.items()
            if host not in view.heartbeats and view.leases_of(host)
        }
        for host in changed_keys(self._before, view.heartbeats):
            if host in self._before and host not in view.heartbeats and view.leases_of(host):
                kept.setdefault(host, self._wall_clock())
        self._before = view.heartbeats
        self.last_heartbeat_s = kept
