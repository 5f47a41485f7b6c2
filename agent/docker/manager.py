"""Everything that the agent does with the host's Docker, put together from the settings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from agent.docker.attach.daemon_json import DaemonJsonAttacher
from agent.docker.attach.detach import Detacher
from agent.docker.attach.managed import ManagedDocker, NoRestartLock, RestartLock
from agent.docker.attach.network import NetworkAttacher
from agent.docker.daemonjson.desired import DesiredDocker, DockerNames, desired_docker
from agent.docker.daemonjson.store import DaemonJsonStore
from agent.docker.engine.engine import Engine
from agent.docker.networks.maker import NetworkMaker
from agent.docker.report import AttachReport
from agent.docker.service.dockerd_process import DockerdFinder
from agent.docker.service.dockerd_program import DockerdProgram
from agent.docker.service.restarter import Restarter
from agent.docker.service.service import DockerService
from agent.docker.service.socket_path import why_replaceable
from agent.docker.worker import Attacher, DockerWorker, EventFollower
from agent.model.family import Network
from agent.programs import ProgramRunner
from agent.settings import DockerSettings
from agent.threads import Poller

__all__ = ["DockerManager"]

_ENGINE_TIMEOUT_S = 5.0


class DockerManager:
    """The host's Docker; making it starts nothing and asks nothing.

    Args:
        settings: [docker] of the settings file.
        state_dir: Where the journal of daemon.json is.
        restart_lock: Held while Docker restarts; None where there is no mesh to ask.
        stopping: Ends every wait; set when the worker is stopped.

    Attributes:
        docker: The parts.
        engine: Docker's API.
        attacher: Gives Docker the lease, in the way that the settings name.
        networks: Makes the networks of records.
        detacher: Takes it back.
    """

    def __init__(
        self,
        settings: DockerSettings,
        state_dir: Path,
        *,
        restart_lock: RestartLock | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        self._settings = settings
        self._stopping = stopping or threading.Event()
        self.docker = _docker(settings, state_dir, self._stopping, restart_lock or NoRestartLock())
        self.engine = self.docker.engine
        self.networks = NetworkMaker(self.engine, lambda: self.docker.settings.manage)
        self.detacher = Detacher(self.docker, self.networks)
        self.attacher: Attacher = (
            NetworkAttacher(self.docker, self.detacher)
            if settings.attach == "network"
            else DaemonJsonAttacher(self.docker)
        )

    def desired_for(
        self, subnet: Network, mtu: int | None, names: DockerNames | None = None
    ) -> DesiredDocker:
        """Return what a lease's subnet, the mesh's MTU and its names mean for this Docker."""
        desired = desired_docker(
            subnet,
            mtu,
            network_len=self._settings.network_len,
            share=self._settings.docker0_share,
        )
        return replace(desired, names=names)

    def worker(
        self,
        on_report: Callable[[AttachReport], None],
        poller: Poller,
        follower: EventFollower | None = None,
    ) -> DockerWorker:
        """Return the thread that owns this Docker, not started yet.

        Args:
            on_report: Called in that thread after every look; must not block.
            poller: Reads the engine's events.
            follower: Gets them, too.
        """
        return DockerWorker(
            self.attacher,
            self.detacher,
            self.engine,
            on_report,
            stopping=self._stopping,
            poller=poller,
            follower=follower,
            networks=self.networks,
        )


def _docker(
    settings: DockerSettings, state_dir: Path, stopping: threading.Event, lock: RestartLock
) -> ManagedDocker:
    processes, runner = DockerdFinder(settings.socket), ProgramRunner(stopping=stopping)
    timeout_s = settings.restart_timeout_s
    service = DockerService(settings.restart_command, timeout_s, runner=runner, processes=processes)
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
            engine, service, store, processes, timeout_s=timeout_s, stopping=stopping
        ),
        processes=processes,
        program=DockerdProgram(runner),
        restart_lock=lock,
    )
