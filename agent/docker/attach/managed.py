"""The host's Docker with all that it takes to change it, and the rules for doing so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from agent.docker.attach.own_network import OwnNetwork
from agent.docker.daemonjson.files import resolve
from agent.docker.daemonjson.flags import Flags, parse_flags
from agent.docker.daemonjson.store import DaemonJsonStore
from agent.docker.engine.engine import Engine
from agent.docker.report import RestartOutlook
from agent.docker.service.dockerd_process import DockerdFinder
from agent.docker.service.restart_policy import Held, Override, blocking_containers, held_back
from agent.docker.service.restarter import Restarter
from agent.docker.service.service import DockerService
from agent.docker.service.validation import ConfigValidator
from agent.errors import Refused
from agent.model import DockerFacts, first_few
from agent.settings import DockerSettings

__all__ = ["ManagedDocker", "NoRestartLock", "RestartLock"]


_SETTLE_S = 5.0
"""How long Docker must have been idle before it is restarted without anybody's word."""


class RestartLock(Protocol):
    """Asks the mesh for the turn to restart Docker: at most one host at a time."""

    def __call__(self, *, asked: bool) -> AbstractContextManager[Held | None]:
        """Hold the turn for the time of a ``with``; it says why not now, None when it may be.

        Args:
            asked: The operator waits for it, so it may wait a while for its turn.
        """
        ...

    def lost(self) -> Held | None:
        """Return why the turn that is held is ours no longer, None when it still is."""
        ...


class NoRestartLock:
    """Lets every restart pass: where nobody else can be asked."""

    def __call__(self, *, asked: bool) -> AbstractContextManager[Held | None]:
        """Pass."""
        del asked
        return nullcontext()

    def lost(self) -> Held | None:
        """Never."""
        return None


@dataclass(slots=True, kw_only=True)
class ManagedDocker:
    """What the ways of giving a lease to Docker and of taking it back share.

    Attributes:
        settings: What we may do to this Docker now; :meth:`adopt` replaces them.
        engine: The engine.
        store: daemon.json.
        service: dockerd as a service.
        restarter: Restarts with a way back.
        processes: The running dockerd's command line.
        checker: Lets dockerd check a file before it is written.
        own_network: The network of ``docker.attach = "network"``.
        turn: Asks the mesh for the turn to restart.
    """

    settings: DockerSettings
    engine: Engine
    store: DaemonJsonStore
    service: DockerService
    restarter: Restarter
    processes: DockerdFinder
    checker: ConfigValidator
    own_network: OwnNetwork
    restart_lock: RestartLock = field(default_factory=NoRestartLock)

    def adopt(self, settings: DockerSettings) -> None:
        """Let other settings hold from the next look at Docker on. Any thread."""
        self.settings = settings

    def held(self, facts: DockerFacts, *, override: Override = Override.NONE) -> Held | None:
        """Return why Docker must not be restarted now, None when it may be.

        Args:
            facts: What the engine said.
            override: The operator's, on this restart.
        """
        return self._service_holds() or self._facts_hold(facts, override)

    def unsettled(self, *, override: Override = Override.NONE) -> Held | None:
        """Return who ended a moment ago, None when nobody did or the operator gave their word.

        The first idle moment of a busy host is often the middle of ``docker restart``, or of a
        script that stops a container to start a new one.
        """
        if override is not Override.NONE or self.settings.restart != "when-idle":
            return None
        spared = self.settings.expendable
        names = [name for name in self.engine.ended(_SETTLE_S) if name not in spared]
        if not names:
            return None
        return f"{first_few(names)} ended a moment ago, perhaps to start again", "wait a moment"

    def held_now(self, *, override: Override = Override.NONE) -> Held | None:
        """Look again, as late as can be: whose turn it is, and what runs by now.

        Between the first look and the restart lie a check of the file, a write and a wait for
        the turn, of a minute at the worst; a container may have been started meanwhile. A
        Docker that somebody stops or starts now does not answer, which holds as well.
        """
        return self.restart_lock.lost() or self._facts_hold(self.engine.facts(), override)

    def _service_holds(self) -> Held | None:
        starting = self.service.starting()
        if starting:
            return starting, "nothing: Docker is looked at again when it runs"
        cannot = self.service.can_restart()
        if cannot:
            return cannot, "restart Docker yourself, or set docker.restart_command"
        return None

    def _facts_hold(self, facts: DockerFacts, override: Override) -> Held | None:
        return held_back(
            facts,
            policy=self.settings.restart,
            expendable=self.settings.expendable,
            override=override,
        )

    def may_restart(self) -> bool:
        """Look whether Docker may be restarted without anybody's word. Any thread."""
        facts = self.engine.facts()
        return facts.reachable and self.held(facts) is None

    def refuse_under_containers(self) -> None:
        """Refuse what ends running containers, naming those that may not come back.

        Raises:
            Refused: Containers run that the settings do not name as expendable.
        """
        outlook = self.outlook()
        running, staying = outlook.running, outlook.stay_down
        if not running:
            return
        what = f"{len(running)} containers run" if len(running) > 1 else f"{running[0]} runs"
        lost = f"; perhaps not back by themselves: {', '.join(staying)}" if staying else ""
        hint = "agentctl docker restart --now restarts it all the same"
        raise Refused(f"{what} on this Docker{lost}", hint=hint)

    def outlook(self) -> RestartOutlook:
        """Return what a restart would do to containers now. Any thread."""
        facts, expendable = self.engine.facts(), self.settings.expendable
        return RestartOutlook(
            running=blocking_containers(facts, expendable),
            stay_down=self.engine.stay_down(expendable),
            live_restore=facts.live_restore,
        )

    def flags(self) -> Mapping[str, Flags]:
        """Return dockerd's flags by where they were seen."""
        sources: dict[str, Flags] = {}
        unit = self.service.unit_argv()
        if unit:
            sources["the unit"] = _flags(unit)
        process = self.processes.dockerd()
        if process:
            sources["the running dockerd"] = _flags(process.argv)
        return sources


def _flags(argv: Sequence[str]) -> Flags:
    """Return the flags of a command line; symlinks to the file that dockerd reads are followed."""
    flags = parse_flags(argv)
    values = tuple(
        (name, str(resolve(Path(value))) if name == "config-file" else value)
        for name, value in flags.values
    )
    return replace(flags, values=values)
