"""``docker.attach = "network"``: the lease goes to one network of ours, and nothing restarts."""

from __future__ import annotations

from agent.docker.attach.give_back import GiveBack
from agent.docker.attach.managed import ManagedDocker
from agent.docker.attach.wants import DockerWants
from agent.docker.daemonjson.conflicts import not_routable
from agent.docker.engine.reading import OWN_NETWORK, EngineKind, EngineReading
from agent.docker.report import (
    ConfigFile,
    ConfiguratorReport,
    engine_conditions,
    error_condition,
    observed,
    pending_condition,
)
from agent.docker.service.restart_policy import Word
from agent.errors import HostmeshError
from agent.model import Condition, DockerState

__all__ = ["NetworkAttacher"]


class NetworkAttacher:
    """Keeps the network ``hostmesh`` on the lease. For one thread; every call may take minutes.

    What ``docker.attach = "daemon"`` did before is given back first: docker0 and the network
    cannot both have the lease. That takes a restart of dockerd, by the same rules as ever.

    Args:
        docker: What to work on, and by which rules.
        give_back: Takes our keys out of daemon.json.
    """

    def __init__(self, docker: ManagedDocker, give_back: GiveBack) -> None:
        self._docker = docker
        self._give_back = give_back

    def observe(self, wants: DockerWants | None = None) -> ConfiguratorReport:
        """Look and touch nothing."""
        reading = self._docker.engine.read()
        return observed(reading) if wants is None else self._report(reading, wants, [])

    def ensure(self, wants: DockerWants, *, word: Word = Word.NONE) -> ConfiguratorReport:
        """Make the network as ``wants`` has it.

        Args:
            wants: The lease and its MTU.
            word: The operator's, on what is pending.

        Returns:
            What was found and done; trouble with Docker is a condition in it.

        Raises:
            Stopped: The agent stops.
        """
        reading = self._docker.engine.read()
        if not self._docker.settings.manage or reading.kind is not EngineKind.DOCKER:
            return self._report(reading, wants, [])
        found: list[Condition] = []
        try:
            if self._docker.store.journal() is not None:
                found += self._give_docker0_back(reading, word)
                reading = self._docker.engine.read()
            if not found:
                problem = self._docker.own_network.ensure(reading, wants)
                found += (problem,) if problem else ()
        except HostmeshError as error:
            found.append(error_condition(error))
        if found or not self._docker.own_network.is_right(reading, wants):
            reading = self._docker.engine.read()
        return self._report(reading, wants, found)

    def restart_now(
        self, wants: DockerWants, *, force: bool, replace: bool = False
    ) -> ConfiguratorReport:
        """Do what is pending now, on the operator's word; their keys are not in the way here.

        Raises:
            Refused: dockerd must restart for it, containers run and ``force`` is not given.
            Stopped: The agent stops.
        """
        del replace
        if not force and self._give_back.needs_restart(self._docker.engine.read()):
            self._docker.refuse_under_containers()
        return self.ensure(wants, word=Word.NOW_UNDER_CONTAINERS if force else Word.NOW)

    def _give_docker0_back(self, reading: EngineReading, word: Word) -> list[Condition]:
        """Undo what attaching by daemon.json did; return what is left of it."""
        if not self._give_back.needs_restart(reading):
            self._give_back.put_back()
            return []
        what = f"Docker must be restarted: docker0 has {reading.bip}, which {OWN_NETWORK} is to get"
        held = self._docker.held(reading.facts, word=word) or self._docker.unsettled(word=word)
        if held:
            return [pending_condition(what, *held)]
        with self._docker.turn(asked=word is not Word.NONE) as not_ours:
            held = not_ours or self._docker.held_now(word=word)
            if held:
                return [pending_condition(what, *held)]
            left = self._give_back.move_back(reading).todo
        return [pending_condition(what, left[0], "look at Docker's log")] if left else []

    def _report(
        self, reading: EngineReading, wants: DockerWants, found: list[Condition]
    ) -> ConfiguratorReport:
        if not reading.facts.reachable:
            state = DockerState.ABSENT
        elif self._docker.own_network.is_right(reading, wants):
            state = DockerState.READY
        else:
            state = DockerState.PENDING
        outside = not_routable(reading.facts.networks, wants, attached_by_network=True)
        return ConfiguratorReport(
            state=state,
            facts=reading.facts,
            config=ConfigFile.HELD,
            conditions=(*engine_conditions(reading), *found, *outside),
        )
