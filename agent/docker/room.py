"""Puts the room together from settings: what the daemon makes once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from agent.docker.checker import FileChecker
from agent.docker.configurator import Configurator, ConfiguratorReport, Gate
from agent.docker.engine import Engine
from agent.docker.giveback import GiveBack
from agent.docker.processes import ProcessTable, read_routes
from agent.docker.restarter import Restarter
from agent.docker.service import Commands, DockerService
from agent.docker.store import DaemonJsonStore
from agent.docker.worker import DockerWorker
from agent.settings import DockerSettings

__all__ = ["DockerRoom", "open_gate"]

_ENGINE_TIMEOUT_S = 5.0


def open_gate() -> AbstractContextManager[bool]:
    """Let every restart pass: a mesh of one host, or nobody to ask."""
    return nullcontext(enter_result=True)


@dataclass(frozen=True, slots=True)
class DockerRoom:
    """The parts of the room that share one engine and one daemon.json."""

    engine: Engine
    store: DaemonJsonStore
    configurator: Configurator
    give_back: GiveBack
    stopping: threading.Event

    @classmethod
    def of(cls, settings: DockerSettings, state_dir: Path, *, gate: Gate = open_gate) -> DockerRoom:
        """Put the room together; nothing is started and nothing is asked.

        Args:
            settings: [docker] of the settings file.
            state_dir: Where the journal of daemon.json lives.
            gate: Asks the mesh for the right to restart Docker.
        """
        stopping = threading.Event()
        runner, processes = Commands(stopping), ProcessTable()
        service = DockerService(
            settings.restart_command,
            settings.restart_timeout_s,
            runner=runner,
            processes=processes,
        )
        engine = Engine(settings.socket, _ENGINE_TIMEOUT_S, asleep=service.asleep)
        store = DaemonJsonStore(settings.daemon_json, state_dir)
        restarter = Restarter(
            engine,
            service,
            store,
            processes,
            timeout_s=settings.restart_timeout_s,
            stopping=stopping,
        )
        configurator = Configurator(
            settings,
            engine=engine,
            store=store,
            service=service,
            restarter=restarter,
            processes=processes,
            checker=FileChecker(service, processes),
            gate=gate,
        )
        give_back = GiveBack(
            settings,
            engine=engine,
            store=store,
            service=service,
            restarter=restarter,
            routes=read_routes,
        )
        return cls(engine, store, configurator, give_back, stopping)

    def worker(self, on_report: Callable[[ConfiguratorReport], None]) -> DockerWorker:
        """Return the thread that owns this room, not started yet.

        Args:
            on_report: Called in that thread after every look; must not block.
        """
        return DockerWorker(
            self.configurator, self.give_back, self.engine, on_report, stopping=self.stopping
        )
