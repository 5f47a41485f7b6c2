"""``docker.attach = "network"``: the lease goes to one network of ours, and nothing restarts."""

from __future__ import annotations

from agent.docker.attach.detach import Detacher
from agent.docker.attach.managed import ManagedDocker
from agent.docker.daemonjson.conflicts import not_routable
from agent.docker.daemonjson.desired import DesiredDocker
from agent.docker.engine.reading import OWN_NETWORK, EngineKind, EngineReading
from agent.docker.report import (
    AttachReport,
    ConfigFile,
    engine_conditions,
    error_condition,
    observed,
    pending_condition,
)
from agent.docker.service.restart_policy import Override
from agent.errors import HostmeshError
from agent.model import Condition, DockerState

__all__ = ["NetworkAttacher"]


class NetworkAttacher:
    """Keeps the network ``hostmesh`` on the lease. For one thread; every call may take minutes.

    What ``docker.attach = "daemon"`` did before is given back first: docker0 and the network
    cannot both have the lease. That takes a restart of dockerd, by the same rules as ever.

    Args:
        docker: What to work on, and by which rules.
        detacher: Takes our keys out of daemon.json.
    """

    def __init__(self, docker: ManagedDocker, detacher: Detacher) -> None:
        self._docker = docker
        self._detacher = detacher

    def observe(self, desired: DesiredDocker | None = None) -> AttachReport:
        """Look and touch nothing."""
        reading = self._docker.engine.read()
        return observed(reading) if desired is None else self._report(reading, desired, [])

    def ensure(self, desired: DesiredDocker, *, override: Override = Override.NONE) -> AttachReport:
        """Make the network as ``desired`` has it.

        Args:
            desired: The lease and its MTU.
            override: The operator's, on what is pending.

        Returns:
            What was found and done; trouble with Docker is a condition in it.

        Raises:
            Stopped: The agent stops.
        """
        reading = self._docker.engine.read()
        if not self._docker.settings.manage or reading.kind is not EngineKind.DOCKER:
            return self._report(reading, desired, [])
        found: list[Condition] = []
        try:
            if self._docker.store.journal() is not None:
                found += self._give_docker0_back(reading, override)
                reading = self._docker.engine.read()
            if not found:
                problem = self._docker.own_network.ensure(reading, desired)
                found += (problem,) if problem else ()
        except HostmeshError as error:
            found.append(error_condition(error))
        if found or not self._docker.own_network.is_right(reading, desired):
            reading = self._docker.engine.read()
        return self._report(reading, desired, found)

    def restart_now(
        self, desired: DesiredDocker, *, force: bool, replace: bool = False
    ) -> AttachReport:
        """Do what is pending now, on the operator's word; their keys are not in the way here.

        Raises:
            Refused: dockerd must restart for it, containers run and ``force`` is not given.
            Stopped: The agent stops.
        """
        del replace
        if not force and self._detacher.needs_restart(self._docker.engine.read()):
            self._docker.refuse_under_containers()
        return self.ensure(desired, override=Override.CONTAINERS if force else Override.POLICY)

    def _give_docker0_back(self, reading: EngineReading, override: Override) -> list[Condition]:
        """Undo what attaching by daemon.json did; return what is left of it."""
        if not self._detacher.needs_restart(reading):
            self._detacher.put_back()
            return []
        what = f"Docker must be restarted: docker0 has {reading.bip}, which {OWN_NETWORK} is to get"
        held = self._docker.held(reading.facts, override=override) or self._docker.unsettled(
            override=override
        )
        if held:
            return [pending_condition(what, *held)]
        with self._docker.restart_lock(asked=override is not Override.NONE) as not_ours:
            held = not_ours or self._docker.held_now(override=override)
            if held:
                return [pending_condition(what, *held)]
            left = self._detacher.move_back(reading).todo
        return [pending_condition(what, left[0], "look at Docker's log")] if left else []

    def _report(
        self, reading: EngineReading, desired: DesiredDocker, found: list[Condition]
    ) -> AttachReport:
        if not reading.facts.reachable:
            state = DockerState.ABSENT
        elif self._docker.own_network.is_right(reading, desired):
            state = DockerState.READY
        else:
            state = DockerState.PENDING
        outside = not_routable(reading.facts.networks, desired, attached_by_network=True)
        return AttachReport(
            state=state,
            facts=reading.facts,
            config=ConfigFile.HELD,
            conditions=(*engine_conditions(reading), *found, *outside),
        )
