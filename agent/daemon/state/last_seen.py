"""Since when each host without a heartbeat has been silent. For display only. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.model import Heartbeat, HostId, View
from agent.sharedmap import changed_keys

__all__ = ["LastSeen"]


@dataclass(frozen=True, slots=True)
class LastSeen:
    """When heartbeats were last seen, by comparing one complete view with the next.

    Attributes:
        last_heartbeat_s: Unix time at which each silent host's heartbeat was found gone.
        before: The heartbeats of the last view.
    """

    last_heartbeat_s: Mapping[HostId, float] = field(default_factory=dict)
    before: Mapping[HostId, Heartbeat] = field(default_factory=dict, repr=False)

    def follow(self, view: View, now_s: float) -> LastSeen:
        """Look at a complete view. Costs what changed, and a look at each silent host.

        Args:
            now_s: Unix time; what is shown is how long ago, to a person.
        """
        kept = {
            host: at
            for host, at in self.last_heartbeat_s.items()
            if host not in view.heartbeats and view.leases_of(host)
        }
        for host in changed_keys(self.before, view.heartbeats):
            if host in self.before and host not in view.heartbeats and view.leases_of(host):
                kept.setdefault(host, now_s)
        return LastSeen(kept, view.heartbeats)
