"""Publish nothing that an agent of the mesh cannot read (promise 12). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.model import LEVEL_OF_0_1, Heartbeat, HostId, MeshConfig
from agent.sharedmap import SharedMap, changed_keys

__all__ = ["HeldBack", "may_publish"]


def may_publish(
    level: int, config: MeshConfig | None, heartbeats: Mapping[HostId, Heartbeat]
) -> bool:
    """Whether what a host needs ``level`` to read may be written to etcd now.

    The config must allow the level, and every host with a heartbeat must read it. flannel hosts
    have no heartbeat and read flannel's fields only; an agent that is away shows its level when
    it comes back.
    """
    if level <= LEVEL_OF_0_1:
        return True
    return config is not None and level <= config.level and not HeldBack.of(heartbeats, level).hosts


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
