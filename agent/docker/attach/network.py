"""``docker.attach = "network"``: the lease goes to network hostmesh, and nothing restarts."""

from __future__ import annotations

from agent.docker.attach.conditions import (
    engine_conditions,
    error_condition,
    not_routable,
    pending_condition,
)
from agent.docker.attach.detach import Detacher
from agent.docker.attach.managed import ManagedDocker
from agent.docker.attach.own_network import ensure_network, is_right
from agent.docker.daemonjson.desired import DesiredDocker
from agent.docker.daemonjson.names import not_used
from agent.docker.engine.reading import OWN_NETWORK, EngineKind, EngineReading
from agent.docker.report import AttachReport, ConfigFile, Preview
from agent.docker.service.restart_policy import Hold, Override
from agent.errors import HostmeshError
from agent.model import Condition, DockerState, Severity

__all__ = ["NetworkAttacher"]


class NetworkAttacher:
    """Keeps network ``hostmesh`` on the lease. For one thread; a call may take minutes.

    What ``docker.attach = "daemon"`` did before is undone first: docker0 and the network cannot
    both have the lease. That takes a restart of dockerd, by the same rules as ever.

    Args:
        docker: What to work on, and by which rules.
        detacher: Takes Hostmesh's keys out of daemon.json.
    """

    def __init__(self, docker: ManagedDocker, detacher: Detacher) -> None:
        self._docker = docker
        self._detacher = detacher

    def ensure(
        self, desired: DesiredDocker, override: Override = Override.NONE, *, replace: bool = False
    ) -> AttachReport:
        """Make the network as ``desired`` has it.

        Args:
            desired: The lease and its MTU.
            override: The operator's, on a restart that is due.
            replace: Not used: the operator's own keys are not in the way here.

        Returns:
            What was found and done; trouble with Docker is a condition in it.

        Raises:
            Refused: dockerd must restart for it, containers run and ``override`` does not reach
                that far.
            Stopped: The agent stops.
        """
        del replace
        reading = self._docker.engine.read()
        if override is Override.POLICY and self._detacher.needs_restart(reading):
            self._docker.refuse_under_containers()
        if not self._docker.settings.manage or reading.kind is not EngineKind.DOCKER:
            return self._report(reading, desired, [])
        found: list[Condition] = []
        try:
            if self._docker.store.journal() is not None:
                found += self._detach_docker0(reading, override)
                reading = self._docker.engine.read()
            if not found:
                problem = ensure_network(self._docker.engine, reading, desired)
                found += (problem,) if problem else ()
        except HostmeshError as error:
            found.append(error_condition(error))
        if found or not is_right(reading, desired):
            reading = self._docker.engine.read()
        return self._report(reading, desired, found)

    def preview(self, desired: DesiredDocker) -> Preview:
        """Say what :meth:`ensure` would do."""
        reading = self._docker.engine.read()
        conditions = engine_conditions(reading)
        if not self._docker.settings.manage or reading.kind is not EngineKind.DOCKER:
            return Preview(reading.facts, conditions=conditions)
        would: list[str] = []
        try:
            if self._detacher.needs_restart(reading):
                would.append(f"restart Docker once: docker0 has {reading.bip}")
        except HostmeshError as error:
            conditions += (error_condition(error),)
        if not is_right(reading, desired):
            would.append(f"make Docker network {OWN_NETWORK} on {desired.subnet}")
        return Preview(reading.facts, tuple(would), conditions)

    def _detach_docker0(self, reading: EngineReading, override: Override) -> list[Condition]:
        """Undo what attaching by daemon.json did; return what is left of it."""
        if not self._detacher.needs_restart(reading):
            self._detacher.put_back()
            return []
        what = f"Docker must be restarted: docker0 has {reading.bip}, which {OWN_NETWORK} is to get"
        asked = override is not Override.NONE
        with self._docker.restart_permission(reading.facts, override, asked=asked) as hold:
            if hold:
                return [pending_condition(what, hold)]
            left = self._detacher.move_back(reading).todo
        return [pending_condition(what, Hold(left[0], "look at Docker's log"))] if left else []

    def _report(
        self, reading: EngineReading, desired: DesiredDocker, found: list[Condition]
    ) -> AttachReport:
        if not reading.facts.reachable:
            state = DockerState.ABSENT
        else:
            state = DockerState.READY if is_right(reading, desired) else DockerState.PENDING
        outside = not_routable(reading.facts.networks, desired, attached_by_network=True)
        if desired.names:
            why = 'docker.attach is "network"'
            outside += (not_used(desired.names, why, Severity.INFO),)
        return AttachReport(
            state=state,
            facts=reading.facts,
            config=ConfigFile.HELD,
            conditions=(*engine_conditions(reading), *found, *outside),
        )
