"""May Docker be restarted now? Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from agent.model import DockerFacts, first_few

__all__ = ["Held", "Override", "blocking_containers", "held_back"]

Held = tuple[str, str]
"""Why a restart is held back, and what to do about it."""


class Override(enum.Enum):
    """The operator's word on a restart."""

    NONE = "none"
    """Nobody asked: the settings decide."""
    POLICY = "policy"
    """Now, whatever the settings say, but not under containers."""
    CONTAINERS = "containers"
    """They were told who stops."""


def blocking_containers(facts: DockerFacts, expendable: Iterable[str]) -> tuple[str, ...]:
    """Return the active containers that settings do not name as expendable."""
    spared = set(expendable)
    return tuple(name for name in facts.running if name not in spared)


def held_back(
    facts: DockerFacts,
    *,
    policy: str,
    expendable: Iterable[str],
    override: Override = Override.NONE,
) -> Held | None:
    """Return why Docker must not be restarted now, None when it may be.

    live-restore is looked at first: with it and any container running, dockerd keeps
    docker0 as it is (all versions), so a restart would change nothing and be repeated.

    Args:
        facts: What the engine said.
        policy: "when-idle", "always" or "never".
        expendable: Containers that may be restarted with Docker.
        override: The operator's, on this restart.
    """
    if facts.live_restore and facts.running:
        why = f"with live-restore a restart changes nothing while {first_few(facts.running)} runs"
        return why, "stop the containers for a moment, or set live-restore to false and reload"
    if override is Override.CONTAINERS or (policy == "always" and facts.reachable):
        return None
    if not facts.reachable:
        why = f"nobody knows what runs on this Docker: {facts.problem}"
        return why, "wait until it answers, or restart it yourself"
    if policy == "never" and override is Override.NONE:
        return 'docker.restart is "never"', "restart Docker when it suits you"
    blocking = blocking_containers(facts, expendable)
    if blocking:
        why = f"not while {first_few(blocking)} runs"
        return why, "agentctl docker restart --now, or stop the containers, or wait"
    return None
