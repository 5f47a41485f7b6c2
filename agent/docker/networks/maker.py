"""Bring Docker's networks to those that records of mesh networks ask for."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, TypeVar

import structlog

from agent.docker.daemonjson.desired import DesiredDocker
from agent.docker.engine.engine import Engine
from agent.docker.engine.reading import BRIDGE_NAME, NETWORK_DRIVER_MTU, OWN_LABEL
from agent.docker.networks.plan import Creation, Plan, Wanted, plan
from agent.docker.networks.seen import MADE_FOR_MESH, Seen, SeenNetwork, read_seen
from agent.docker.report import AttachReport
from agent.errors import DockerError
from agent.model import Condition, Severity, first_few, summarise
from agent.model.network import NETWORK_LABEL

__all__ = ["NetworkMaker"]

_log = structlog.get_logger("docker")

_Step = TypeVar("_Step", Creation, SeenNetwork)

_MOST_AT_ONCE: Final = 8
"""Docker takes 0.1 to 0.3 s for each; the worker looks at Docker in between."""
_SOON_S: Final = 0.05


class NetworkMaker:
    """Makes and removes networks through Docker's API. For the thread that owns Docker.

    Args:
        engine: Docker.
        may_change: Returns whether the settings let the agent change this Docker.
        link_exists: Tells whether the host has a link of a name.
    """

    def __init__(
        self,
        engine: Engine,
        may_change: Callable[[], bool],
        link_exists: Callable[[str], bool] | None = None,
    ) -> None:
        self._engine = engine
        self._may_change = may_change
        self._link_exists = link_exists or _link_exists
        self._refused: frozenset[str] = frozenset()

    def ensure(self, wanted: Wanted, docker: DesiredDocker, report: AttachReport) -> AttachReport:
        """Make what is missing and remove what is to go; return the report with what was found.

        A network that was removed is there again before the report says anything of it.

        Args:
            wanted: The networks that records ask for.
            docker: The lease, with the ranges for networks.
            report: Of attaching, which went before.
        """
        if not report.facts.reachable or not _concerned(wanted, report):
            return report
        try:
            changed, found, more = self._bring(wanted, docker)
        except DockerError:  # the next look says why it does not answer
            return report
        facts = self._engine.facts() if changed else report.facts
        return replace(
            report,
            facts=facts if facts.reachable else report.facts,
            conditions=(*report.conditions, *summarise(found)),
            again_in_s=_SOON_S if more else report.again_in_s,
        )

    def remove_unused(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Remove the networks that the agent made, for a host that leaves.

        Returns:
            Lines of what was done, and of what is left to the operator.
        """
        done: list[str] = []
        todo: list[str] = []
        try:
            seen = self._see(())
        except DockerError:
            return (), ()
        for network in (each for each in seen.networks if each.own):
            users = seen.users_of(network)
            problem = f"{first_few(users)} use it" if users else self._remove(network)
            if problem:
                todo.append(f"docker network rm {network.name} when it is empty: {problem}")
            else:
                done.append(f"removed Docker network {network.name}")
        return tuple(done), tuple(todo)

    def _bring(self, wanted: Wanted, docker: DesiredDocker) -> tuple[bool, list[Condition], bool]:
        """Return whether networks were changed, the conditions, and whether there is more to do."""
        names = [each.name for each in wanted.networks]
        steps = plan(wanted, docker, self._see(names), self._link_exists)
        if not self._may_change():
            return False, [*steps.conditions, *_not_made(steps)], False
        refused: dict[str, str] = {}
        left = _MOST_AT_ONCE
        if steps.removals:
            for network in self._in_turn(steps.removals)[:left]:
                refused[network.name] = self._remove(network)
            left -= sum(not each for each in refused.values())
            steps = plan(wanted, docker, self._see(names), self._link_exists)
        for creation in self._in_turn(steps.creations)[:left]:
            refused[creation.name] = self._create(creation)
        more = len(steps.creations) > left and not all(refused.values())
        changed = bool(refused)
        self._refused = frozenset(name for name, problem in refused.items() if problem)
        found = (_refused(name, problem) for name, problem in refused.items() if problem)
        return changed, [*steps.conditions, *found], more

    def _in_turn(self, steps: list[_Step]) -> list[_Step]:
        """Return those last that Docker refused before: they must not keep the others waiting."""
        return sorted(steps, key=lambda each: each.name in self._refused)

    def _see(self, names: Iterable[str]) -> Seen:
        return self._engine.ask(lambda api: read_seen(api, names))

    def _create(self, creation: Creation) -> str:
        """Make a network; return why that was refused, "" when it is there."""
        options = {BRIDGE_NAME: creation.bridge}
        if creation.mtu is not None:
            options[NETWORK_DRIVER_MTU] = str(creation.mtu)
        labels = {NETWORK_LABEL: creation.name, OWN_LABEL: MADE_FOR_MESH}
        try:
            self._engine.create_bridge(
                creation.name, creation.subnet, options=options, labels=labels
            )
        except DockerError as error:
            return f"Docker did not make it on {creation.subnet}: {error.message}"
        _log.info("docker-network-made", network=creation.name, subnet=str(creation.subnet))
        return ""

    def _remove(self, network: SeenNetwork) -> str:
        """Remove a network; return why that was refused, "" when it is gone."""
        try:
            self._engine.remove_network(network.id)
        except DockerError as error:
            return f"Docker did not remove it: {error.message}"
        _log.info("docker-network-removed", network=network.name)
        return ""


def _concerned(wanted: Wanted, report: AttachReport) -> bool:
    own = (each.labels.get(OWN_LABEL) == MADE_FOR_MESH for each in report.facts.networks)
    return bool(wanted.networks) or (wanted.complete and any(own))


def _refused(name: str, problem: str) -> Condition:
    return Condition(
        name="network-refused",
        subject=name,
        cause=f"Docker network {name}: {problem}",
        hint="look at Docker's log: journalctl -u docker; it is tried again",
        severity=Severity.ERROR,
    )


def _not_made(steps: Plan) -> tuple[Condition, ...]:
    names = [*(e.name for e in steps.removals), *(e.name for e in steps.creations)]
    return tuple(
        Condition(
            name="network-not-made",
            subject=name,
            cause=f"Docker network {name} is neither made nor removed: docker.manage = false",
            hint="set manage = true under [docker] in agent.toml, then agentctl reload",
        )
        for name in names
    )


def _link_exists(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True
