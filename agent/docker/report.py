"""The reports on Docker that the rest of the agent reads. Values only."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from agent.model import Condition, DockerFacts, DockerState

__all__ = ["AttachReport", "ConfigFile", "DetachReport", "Preview", "RestartOutlook"]


class ConfigFile(enum.StrEnum):
    """Whether daemon.json gives the lease to a Docker that starts now."""

    WAITING = "waiting"
    """There is no lease yet, or daemon.json was not looked at."""
    WRITTEN = "written"
    HELD = "held"
    """It does not, or must not now: a condition says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachReport:
    """The result of attaching: what was found and done to give Docker the lease.

    Attributes:
        state: READY when docker0 and the pools are on the lease, PENDING when not yet,
            ABSENT when no engine answers.
        config: Whether a Docker that starts now gets the lease.
        changed: daemon.json was written.
        restarted: Docker was restarted.
        conditions: All that holds now, for the operator.
        facts: What the engine said last.
        again_in_s: When to look again if that is sooner than usual.
    """

    state: DockerState
    facts: DockerFacts
    config: ConfigFile = ConfigFile.WAITING
    changed: bool = False
    restarted: bool = False
    conditions: tuple[Condition, ...] = ()
    again_in_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachReport:
    """The result of detaching: what was done to give Docker its configuration back.

    Attributes:
        done: Lines of what was done.
        todo: Lines of what is left to the operator; empty when all is as it was.
        facts: What the engine said last.
    """

    done: tuple[str, ...] = ()
    todo: tuple[str, ...] = ()
    facts: DockerFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartOutlook:
    """The effect of a restart of dockerd on containers now.

    Attributes:
        running: Active containers that the settings do not name as expendable.
        stay_down: Those of them that dockerd may not start again.
        live_restore: They would go on; dockerd would then leave docker0 as it is.
    """

    running: tuple[str, ...]
    stay_down: tuple[str, ...]
    live_restore: bool


@dataclass(frozen=True, slots=True)
class Preview:
    """The steps that attaching would take.

    Attributes:
        facts: What the engine says now.
        would: Lines for the operator, in order.
        conditions: What speaks against it, or is worth knowing.
    """

    facts: DockerFacts
    would: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
