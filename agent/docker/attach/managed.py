"""The host's Docker with the parts that change it, and the rules for restarting it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from agent.docker.daemonjson.desired import DesiredDocker
from agent.docker.daemonjson.files import resolve
from agent.docker.daemonjson.flags import Flags, parse_flags
from agent.docker.daemonjson.store import DaemonJsonStore
from agent.docker.engine.engine import Engine
from agent.docker.report import RestartOutlook
from agent.docker.service.dockerd_process import DockerdFinder
from agent.docker.service.dockerd_program import DockerdProgram
from agent.docker.service.restart_policy import Hold, Override, blocking_containers, policy_hold
from agent.docker.service.restarter import Restarter
from agent.docker.service.service import DockerService
from agent.errors import Refused
from agent.model import DockerFacts, first_few
from agent.model.domain import MOST_BYTES, parse_resolv_conf
from agent.settings import DockerSettings

__all__ = ["ManagedDocker", "NoRestartLock", "RestartLock"]

_SETTLE_S = 5.0
"""How long Docker must have been idle before it is restarted without being asked."""


class RestartLock(Protocol):
    """The mesh's lock on restarts of Docker: at most one host at a time."""

    def __call__(self, *, asked: bool) -> AbstractContextManager[Hold | None]:
        """Hold the lock for the time of a ``with``; it yields why not, None when it is held.

        Args:
            asked: The operator waits for the restart, so waiting for the lock may take a while.
        """
        ...

    def lost(self) -> Hold | None:
        """Return why the lock is held no longer, None when it still is."""
        ...


class NoRestartLock:
    """Lets every restart pass: where there is no mesh to ask."""

    def __call__(self, *, asked: bool) -> AbstractContextManager[Hold | None]:
        """Pass."""
        del asked
        return nullcontext()

    def lost(self) -> Hold | None:
        """Return None."""
        return None


@dataclass(slots=True, kw_only=True)
class ManagedDocker:
    """The parts that attaching and detaching share.

    Attributes:
        settings: What may be done to this Docker now; :meth:`adopt` replaces them.
        engine: The engine.
        store: daemon.json.
        service: dockerd as a service.
        restarter: Restarts with a way back.
        processes: Finds the running dockerd.
        program: The installed dockerd.
        restart_lock: Held while Docker restarts.
        resolv_conf: The host's, whose search domains containers keep.
    """

    settings: DockerSettings
    engine: Engine
    store: DaemonJsonStore
    service: DockerService
    restarter: Restarter
    processes: DockerdFinder
    program: DockerdProgram
    restart_lock: RestartLock = field(default_factory=NoRestartLock)
    resolv_conf: Path = Path("/etc/resolv.conf")

    def adopt(self, settings: DockerSettings) -> None:
        """Use other settings from the next look at Docker on. Any thread."""
        self.settings = settings

    def hold(self, facts: DockerFacts, override: Override = Override.NONE) -> Hold | None:
        """Return why Docker must not be restarted now, None when it may be.

        Args:
            facts: What the engine said.
            override: The operator's, on this restart.
        """
        return self._service_hold() or self._policy_hold(facts, override)

    @contextmanager
    def restart_permission(
        self, facts: DockerFacts, override: Override = Override.NONE, *, asked: bool
    ) -> Iterator[Hold | None]:
        """Take the mesh's lock, if Docker may be restarted; yield why it must not be.

        Waiting for the lock takes a minute at the worst, and a container may be started
        meanwhile: so all is asked again once it is held. A Docker that another program stops or
        starts now does not answer, which holds as well.

        Args:
            facts: What the engine said.
            override: The operator's, on this restart.
            asked: The operator waits for it.
        """
        hold = self.hold(facts, override) or self._unsettled(asked=asked)
        if hold:
            yield hold
            return
        with self.restart_lock(asked=asked) as other:
            hold = other or self._unsettled(asked=asked)
            hold = hold or self._policy_hold(self.engine.facts(), override)
            hold = hold or self.restart_lock.lost()
            yield hold and hold._replace(soon=True)

    def may_restart(self) -> bool:
        """Return whether Docker may be restarted without being asked. Any thread."""
        facts = self.engine.facts()
        return facts.reachable and self.hold(facts) is None

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
        lost = f"; perhaps not started again: {', '.join(staying)}" if staying else ""
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
        """Return dockerd's flags by where they were seen, those of the unit first."""
        sources: dict[str, Flags] = {}
        unit = self.service.unit_argv()
        if unit:
            sources["the unit"] = _flags(unit)
        process = self.processes.dockerd()
        if process:
            sources["the running dockerd"] = _flags(process.argv)
        return sources

    def with_search(self, desired: DesiredDocker) -> DesiredDocker:
        """Return ``desired`` with the search domains that the host has now."""
        if desired.names is None:
            return desired
        try:
            with self.resolv_conf.open(encoding="utf-8", errors="replace") as file:
                text = file.read(MOST_BYTES)
        except OSError:
            text = ""
        search = parse_resolv_conf(text).search
        return replace(desired, names=replace(desired.names, search=search))

    def _service_hold(self) -> Hold | None:
        starting = self.service.starting()
        if starting:
            return Hold(starting, "nothing: Docker is looked at again when it runs")
        cannot = self.service.can_restart()
        if cannot:
            return Hold(cannot, "restart Docker yourself, or set docker.restart_command")
        return None

    def _policy_hold(self, facts: DockerFacts, override: Override) -> Hold | None:
        settings = self.settings
        return policy_hold(
            facts, policy=settings.restart, expendable=settings.expendable, override=override
        )

    def _unsettled(self, *, asked: bool) -> Hold | None:
        """Return which containers ended a moment ago, None when there are none or it was asked.

        The first idle moment of a busy host is often the middle of ``docker restart``, or of a
        script that stops a container to start a new one.
        """
        if asked or self.settings.restart != "when-idle":
            return None
        spared = self.settings.expendable
        names = [name for name in self.engine.ended(_SETTLE_S) if name not in spared]
        if not names:
            return None
        why = f"{first_few(names)} ended a moment ago, perhaps to start again"
        return Hold(why, "wait a moment", soon=True)


def _flags(argv: Sequence[str]) -> Flags:
    """Return the flags of a command line; symlinks to the file that dockerd reads are followed."""
    flags = parse_flags(argv)
    values = tuple(
        (name, str(resolve(Path(value))) if name == "config-file" else value)
        for name, value in flags.values
    )
    return replace(flags, values=values)
