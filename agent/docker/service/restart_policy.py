"""Whether Docker may be restarted now, by the settings and what runs. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple

from agent.model import DockerFacts, first_few

__all__ = ["Hold", "Override", "blocking_containers", "policy_hold"]


class Hold(NamedTuple):
    """Why Docker must not be restarted now.

    Attributes:
        why: The fact.
        hint: What the operator can do.
        soon: It is over soon: look again in a few seconds.
    """

    why: str
    hint: str
    soon: bool = False


class Override(enum.Enum):
    """How far the operator overrides the restart policy, this once."""

    NONE = "none"
    """Not asked for: the settings decide."""
    POLICY = "policy"
    """Restart now, but not under containers."""
    CONTAINERS = "containers"
    """Restart now, also under the containers that were named to the operator."""


def blocking_containers(facts: DockerFacts, expendable: Iterable[str]) -> tuple[str, ...]:
    """Return the active containers that settings do not name as expendable."""
    spared = set(expendable)
    return tuple(name for name in facts.running if name not in spared)


def policy_hold(
    facts: DockerFacts,
    *,
    policy: str,
    expendable: Iterable[str],
    override: Override = Override.NONE,
) -> Hold | None:
    """Return why Docker must not be restarted now, None when it may be.

    live-restore is looked at first: with it and any container running, dockerd keeps
    docker0 as it is (all versions), so a restart would change nothing and be repeated.

    Args:
        facts: What the engine said.
        policy: "when-idle", "always" or "never".
        expendable: Containers that may be restarted with Docker.
        override: The operator's.
    """
    if facts.live_restore and facts.running:
        why = f"with live-restore a restart changes nothing while {first_few(facts.running)} runs"
        return Hold(
            why, "stop the containers for a moment, or set live-restore to false and reload"
        )
    if override is Override.CONTAINERS or (policy == "always" and facts.reachable):
        return None
    if not facts.reachable:
        why = f"it is not known what runs on this Docker: {facts.problem}"
        return Hold(why, "wait until it answers, or restart it yourself")
    if policy == "never" and override is Override.NONE:
        return Hold('docker.restart is "never"', "restart Docker when it suits you")
    blocking = blocking_containers(facts, expendable)
    if blocking:
        hint = "agentctl docker restart --now, or stop the containers, or wait"
        return Hold(f"not while {first_few(blocking)} runs", hint)
    return None
