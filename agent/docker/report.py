"""What the configurator tells the daemon, and the conditions that follow from a reading. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from agent.docker.engine.reading import EngineKind, EngineReading
from agent.errors import HostmeshError, StateError
from agent.model import Condition, DockerFacts, DockerState, Severity

__all__ = [
    "AttachReport",
    "ConfigFile",
    "DetachReport",
    "RestartOutlook",
    "engine_conditions",
    "error_condition",
    "observed",
    "pending_condition",
    "rolled_back_condition",
]


class ConfigFile(enum.StrEnum):
    """How daemon.json stands to the lease: what a Docker that starts now would get."""

    WAITING = "waiting"
    """There is no lease yet, or it was not looked at."""
    WRITTEN = "written"
    HELD = "held"
    """It is not given by daemon.json, or cannot be as things are: a condition says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachReport:
    """What was found and done.

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
    """What giving Docker back came to.

    Attributes:
        done: Lines of what was done.
        todo: Lines of what is left to the operator; empty when all is as it was.
        facts: What the engine said last.
    """

    done: tuple[str, ...]
    todo: tuple[str, ...]
    facts: DockerFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartOutlook:
    """What a restart of dockerd would do to containers now.

    Attributes:
        running: Active containers that the settings do not name as expendable.
        stay_down: Those of them that dockerd may not start again.
        live_restore: They would go on; dockerd would then leave docker0 as it is.
    """

    running: tuple[str, ...]
    stay_down: tuple[str, ...]
    live_restore: bool


def observed(reading: EngineReading) -> AttachReport:
    """Return the report of a look at a Docker that has nothing to get."""
    return AttachReport(
        state=DockerState.PENDING if reading.facts.reachable else DockerState.ABSENT,
        facts=reading.facts,
        conditions=engine_conditions(reading),
    )


def engine_conditions(reading: EngineReading) -> tuple[Condition, ...]:
    """Return what the operator should know about the engine itself."""
    if reading.kind is EngineKind.DOCKER:
        return (_swarm(reading),) if reading.swarm not in {"", "inactive"} else ()
    name, hint, severity = {
        EngineKind.PODMAN: (
            "docker-is-podman",
            "Hostmesh configures Docker only; point docker.socket at Docker's socket",
            Severity.ERROR,
        ),
        EngineKind.UNSAFE: (
            "docker-socket-unsafe",
            "set docker.socket to a path whose folders root alone can write: /run/docker.sock",
            Severity.ERROR,
        ),
        EngineKind.SILENT: (
            "docker-not-answering",
            "look at Docker's log: journalctl -u docker",
            Severity.ERROR,
        ),
    }.get(
        reading.kind,
        (
            "docker-absent",
            "daemon.json is right when Docker is installed or started",
            Severity.INFO,
        ),
    )
    return (Condition(name=name, cause=reading.facts.problem, hint=hint, severity=severity),)


def _swarm(reading: EngineReading) -> Condition:
    return Condition(
        name="docker-swarm",
        cause=f"this Docker is part of a Swarm ({reading.swarm}); its overlay networks take "
        "their subnets from Swarm, not from the lease",
        hint="only docker0 and bridge networks are routed; a restart moves Swarm's tasks",
    )


def error_condition(error: HostmeshError) -> Condition:
    """Return the condition for daemon.json or its journal being unusable."""
    state = isinstance(error, StateError)
    return Condition(
        name="docker-journal-unusable" if state else "docker-config-unusable",
        cause=error.message,
        hint=error.hint or "nothing was changed",
        severity=Severity.ERROR,
    )


def pending_condition(what: str, why: str, hint: str) -> Condition:
    """Return the condition for a restart that is wanted and held back.

    Args:
        what: What a restart would bring.
        why: Why it is held back.
        hint: What the operator can do.
    """
    return Condition(name="docker-restart-pending", cause=f"{what}; {why}", hint=hint)


def rolled_back_condition(reason: str) -> Condition:
    """Return the condition for a change that the engine did not take."""
    return Condition(
        name="docker-rolled-back",
        cause=f"Docker did not come up with the lease and daemon.json was put back: {reason}",
        hint="it is not tried again until daemon.json, the lease or Docker's version changes, "
        "or by agentctl docker restart --now",
        severity=Severity.ERROR,
    )
