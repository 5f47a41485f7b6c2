"""What would be done to Docker for a lease, without doing it. For `agentctl doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from agent.docker.attach.managed import ManagedDocker
from agent.docker.daemonjson.desired import DesiredDocker, differences
from agent.docker.daemonjson.file_plan import plan_file
from agent.docker.engine.reading import EngineKind
from agent.docker.report import engine_conditions, error_condition
from agent.errors import HostmeshError
from agent.model import Condition, DockerFacts

__all__ = ["Preview", "preview"]


@dataclass(frozen=True, slots=True)
class Preview:
    """What would happen.

    Attributes:
        facts: What the engine says now.
        would: Lines for the operator, in order.
        conditions: What speaks against it, or is worth knowing.
    """

    facts: DockerFacts
    would: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()


def preview(docker: ManagedDocker, desired: DesiredDocker) -> Preview:
    """Plan ``desired`` for this Docker. dockerd is asked to check the file; nothing is written."""
    reading = docker.engine.read()
    conditions = list(engine_conditions(reading))
    if reading.kind in {EngineKind.PODMAN, EngineKind.UNSAFE} or not docker.settings.manage:
        return Preview(reading.facts, conditions=tuple(conditions))
    try:
        snapshot = docker.store.read()
        plan = plan_file(
            desired,
            snapshot,
            docker.flags(),
            version=reading.facts.version,
            replace=docker.settings.replace,
        )
        conditions += plan.conditions
        if plan.blocked:
            return Preview(reading.facts, conditions=tuple(conditions))
        text = docker.store.preview(snapshot, plan.values, drop=plan.drop)
        refused = docker.checker.check(text, reading.facts.version)
    except HostmeshError as error:
        return Preview(reading.facts, conditions=(*conditions, error_condition(error)))
    if refused is not None:
        conditions.append(refused)
    keys = ", ".join(".".join(path) for path in plan.values)
    would = [f"{docker.store.path}: set {keys}"] if text != snapshot.document.text else []
    differing = differences(desired, bip=reading.bip, pools=reading.pools, mtu=reading.mtu)
    if reading.facts.reachable and differing:
        held = docker.held(reading.facts)
        would.append(f"Docker is not restarted yet: {held[0]}" if held else "restart Docker once")
    return Preview(reading.facts, tuple(would), tuple(conditions))
