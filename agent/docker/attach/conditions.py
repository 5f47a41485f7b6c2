"""Conditions of the engine and of attaching to it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from agent.docker.daemonjson.desired import DesiredDocker
from agent.docker.engine.reading import EngineKind, EngineReading
from agent.docker.report import AttachReport
from agent.docker.service.restart_policy import Hold
from agent.errors import HostmeshError, StateError
from agent.model import Condition, DockerNetwork, DockerState, Severity
from agent.model.family import within

__all__ = [
    "engine_conditions",
    "engine_report",
    "error_condition",
    "network_conflicts",
    "not_routable",
    "pending_condition",
    "rolled_back_condition",
]


def engine_conditions(reading: EngineReading) -> tuple[Condition, ...]:
    """Return what the operator should know about the engine itself."""
    if reading.kind is EngineKind.DOCKER:
        return (_swarm(reading),) if reading.swarm not in {"", "inactive"} else ()
    name, hint, severity = {
        EngineKind.PODMAN: (
            "docker-is-podman",
            "set docker.socket to Docker's own socket; Hostmesh configures Docker only",
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
        EngineKind.ABSENT: (
            "docker-absent",
            "install or start Docker: it will use this host's subnet when it starts",
            Severity.INFO,
        ),
    }[reading.kind]
    return (Condition(name=name, cause=reading.facts.problem, hint=hint, severity=severity),)


def _swarm(reading: EngineReading) -> Condition:
    return Condition(
        name="docker-swarm",
        cause=f"this Docker is part of a Swarm ({reading.swarm}); its overlay networks take "
        "their subnets from Swarm, not from the lease",
        hint="use docker0 and bridge networks for the mesh, only these are routed; a restart"
        " of Docker moves Swarm's tasks",
    )


def engine_report(reading: EngineReading) -> AttachReport:
    """Return the report on a Docker that is to get nothing."""
    return AttachReport(
        state=DockerState.PENDING if reading.facts.reachable else DockerState.ABSENT,
        facts=reading.facts,
        conditions=engine_conditions(reading),
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


def pending_condition(what: str, hold: Hold) -> Condition:
    """Return the condition for a restart that is due and held back.

    Args:
        what: What a restart would bring.
        hold: Why it is held back.
    """
    return Condition(name="docker-restart-pending", cause=f"{what}; {hold.why}", hint=hold.hint)


def rolled_back_condition(reason: str) -> Condition:
    """Return the condition for a change that the engine did not take."""
    return Condition(
        name="docker-rolled-back",
        cause=f"Docker did not come up with the lease and daemon.json was put back: {reason}",
        hint="repair that, then run agentctl docker restart --now; Hostmesh tries again when"
        " daemon.json, the lease or Docker's version changes",
        severity=Severity.ERROR,
    )


def network_conflicts(
    desired: DesiredDocker, networks: Iterable[DockerNetwork]
) -> tuple[Condition, ...]:
    """Find networks that overlap the docker0 to be: dockerd would not start with both."""
    return tuple(
        Condition(
            name="docker-network-in-the-way",
            subject=network.name,
            cause=f"Docker network {network.name} has {network.subnet}, which overlaps"
            f" {desired.bip.network}, docker0's range to be",
            hint=f"docker network rm {network.name}; nothing is written before",
            severity=Severity.ERROR,
        )
        for network in networks
        if not network.default and network.subnet.overlaps(desired.bip.network)
    )


def not_routable(
    networks: Iterable[DockerNetwork], desired: DesiredDocker, *, attached_by_network: bool = False
) -> tuple[Condition, ...]:
    """Name the networks outside the lease: their containers are not reachable from the mesh.

    Args:
        networks: Every bridge network.
        desired: Which subnets are routed.
        attached_by_network: New networks are not in the lease either; network hostmesh is.
    """
    return tuple(
        Condition(
            name="network-not-routable",
            subject=network.name,
            cause=f"Docker network {network.name} is {network.subnet}, outside {desired.subnet}",
            hint="docker network connect hostmesh CONTAINER gives its containers an address that is"
            if attached_by_network
            else f"docker network rm {network.name} and create it again: "
            "a new one gets a subnet inside the lease",
            severity=Severity.INFO,
        )
        for network in networks
        if not network.default
        and not network.internal
        and not any(within(network.subnet, each) for each in desired.subnets)
    )
