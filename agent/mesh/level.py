"""Find the hosts that read less than the config's level (promise 12). Pure.

What needs a level is published once the config has it, and `agentctl config set --level` refuses
one that a host with a heartbeat does not read. An agent that is away shows its level when it comes
back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.model import LEVEL_OF_0_1, Heartbeat, HostId
from agent.sharedmap import SharedMap, changed_keys

__all__ = ["HeldBack"]


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The hosts that read less than a level.

    Attributes:
        heartbeats: Of all hosts.
        level: What they should read.
        hosts: Heartbeats of those that read less.
    """

    heartbeats: Mapping[HostId, Heartbeat] = field(default_factory=SharedMap)
    level: int = LEVEL_OF_0_1
    hosts: Mapping[HostId, Heartbeat] = field(default_factory=dict)

    @classmethod
    def of(cls, heartbeats: Mapping[HostId, Heartbeat], level: int) -> HeldBack:
        """Look at every heartbeat."""
        if level <= LEVEL_OF_0_1:
            return cls(heartbeats, level)
        found = {host: beat for host, beat in heartbeats.items() if beat.level < level}
        return cls(heartbeats, level, found)

    def follow(self, heartbeats: Mapping[HostId, Heartbeat], level: int) -> HeldBack:
        """The same of later heartbeats, at the cost of what changed."""
        if level != self.level or level <= LEVEL_OF_0_1:
            return HeldBack.of(heartbeats, level)
        changed = changed_keys(self.heartbeats, heartbeats)
        if not changed:
            return replace(self, heartbeats=heartbeats)
        found = {host: beat for host, beat in self.hosts.items() if host not in changed}
        now = ((host, heartbeats.get(host)) for host in changed)
        found.update((host, beat) for host, beat in now if beat and beat.level < level)
        return HeldBack(heartbeats, level, found)
