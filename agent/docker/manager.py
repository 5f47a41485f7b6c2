"""Puts the room together from settings: what the daemon makes once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.docker.attach.daemon_json import DaemonJsonAttacher
from agent.docker.attach.detach import Detacher
from agent.docker.attach.managed import ManagedDocker, NoRestartLock, RestartLock
from agent.docker.attach.network import NetworkAttacher
from agent.docker.attach.own_network import OwnNetwork
from agent.docker.attach.preview import Preview, preview
from agent.docker.daemonjson.desired import DesiredDocker, desired_docker
from agent.docker.daemonjson.store import DaemonJsonStore
from agent.docker.engine.engine import Engine
from agent.docker.report import AttachReport, RestartOutlook
from agent.docker.service.dockerd_process import DockerdFinder, read_routes
from agent.docker.service.restarter import Restarter
from agent.docker.service.service import DockerService
from agent.docker.service.socket_path import why_replaceable
from agent.docker.service.validation import ConfigValidator
from agent.docker.worker import Attacher, DockerWorker
from agent.model.family import Network
from agent.programs import ProgramRunner
from agent.settings import DockerSettings
from agent.threads import Poller

__all__ = ["DockerManager"]

_ENGINE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class DockerManager:
    """The parts of the room that share one engine and one daemon.json.

    Attributes:
        adopt: Let other settings of what may be done to this Docker hold; any thread.
        outlook: What a restart would do to containers now; may be called by any thread.
        may_restart: Whether Docker may be restarted now; any thread.
        preview: What would be done for such wishes, without doing it.
        desired_for: What a lease's subnet and the mesh's MTU mean for this Docker.
    """

    engine: Engine
    outlook: Callable[[], RestartOutlook]
    attacher: Attacher
    detacher: Detacher
    desired_for: Callable[[Network, int | None], DesiredDocker]
    adopt: Callable[[DockerSettings], None]
    stopping: threading.Event
    may_restart: Callable[[], bool]
    preview: Callable[[DesiredDocker], Preview]

    @classmethod
    def of(
        cls,
        settings: DockerSettings,
        state_dir: Path,
        *,
        restart_lock: RestartLock | None = None,
        stopping: threading.Event | None = None,
    ) -> DockerManager:
        """Put the room together; nothing is started and nothing is asked.

        Args:
            settings: [docker] of the settings file.
            state_dir: Where the journal of daemon.json lives.
            restart_lock: Held while Docker restarts; None where there is none.
            stopping: Ends every wait in this room; set when its worker is stopped.
        """
        stopping = stopping or threading.Event()
        docker = _managed(settings, state_dir, stopping, restart_lock or NoRestartLock())
        detacher = Detacher(docker, read_routes)
        attacher: Attacher = DaemonJsonAttacher(docker)
        if settings.attach == "network":
            attacher = NetworkAttacher(docker, detacher)
        desired_for = partial(
            desired_docker, network_len=settings.network_len, share=settings.docker0_share
        )
        return cls(
            docker.engine,
            docker.outlook,
            attacher,
            detacher,
            desired_for,
            docker.adopt,
            stopping,
            docker.may_restart,
            partial(preview, docker),
        )

    def worker(self, on_report: Callable[[AttachReport], None], poller: Poller) -> DockerWorker:
        """Return the thread that owns this room, not started yet.

        Args:
            on_report: Called in that thread after every look; must not block.
            poller: Reads the engine's events.
        """
        return DockerWorker(
            self.attacher,
            self.detacher,
            self.engine,
            on_report,
            stopping=self.stopping,
            poller=poller,
        )


def _managed(
    settings: DockerSettings,
    state_dir: Path,
    stopping: threading.Event,
    restart_lock: RestartLock,
) -> ManagedDocker:
    processes = DockerdFinder(settings.socket)
    service = DockerService(
        settings.restart_command,
        settings.restart_timeout_s,
        runner=ProgramRunner(stopping=stopping),
        processes=processes,
    )
    engine = Engine(
        settings.socket,
        _ENGINE_TIMEOUT_S,
        asleep=service.asleep,
        replaceable=partial(why_replaceable, settings.socket),
    )
    store = DaemonJsonStore(settings.daemon_json, state_dir)
    return ManagedDocker(
        settings=settings,
        engine=engine,
        store=store,
        service=service,
        restarter=Restarter(
            engine,
            service,
            store,
            processes,
            timeout_s=settings.restart_timeout_s,
            stopping=stopping,
        ),
        processes=processes,
        checker=ConfigValidator(service, processes),
        own_network=OwnNetwork(engine),
        restart_lock=restart_lock,
    )
