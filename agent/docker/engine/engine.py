"""The engine behind one socket: what it says of itself, its networks, its event stream."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from agent.docker.engine.api import FAILURES, Api, ApiError
from agent.docker.engine.containers import container_name, containers_of
from agent.docker.engine.events import FOLLOWED
from agent.docker.engine.reading import (
    ACTIVE,
    EngineKind,
    EngineReading,
    read_engine,
    stays_down,
    unreachable,
)
from agent.errors import DockerError
from agent.model import Container, DockerFacts
from agent.model.family import Network

if TYPE_CHECKING:
    import docker

__all__ = ["Engine"]

_Answer = TypeVar("_Answer")


class _NoAnswerError(DockerError):
    """No Docker answers; ``reading`` says what does instead."""

    def __init__(self, reading: EngineReading) -> None:
        super().__init__(reading.facts.problem)
        self.reading = reading


class Engine:
    """The engine behind one socket. Each call opens a connection and closes it again.

    Args:
        path: The engine's unix socket.
        timeout_s: Deadline of each request; an engine that hangs costs one of them.
        asleep: Returns why the engine must not be woken, "" when it may be spoken to. systemd
            starts dockerd when a program connects to its socket; an agent that only looks
            must not be that program.
        replaceable: Returns why another user could put a socket of their own in its place, ""
            when none can: what it would answer decides what root does.
    """

    def __init__(
        self,
        path: Path,
        timeout_s: float = 5.0,
        *,
        asleep: Callable[[], str] = lambda: "",
        replaceable: Callable[[], str] = lambda: "",
    ) -> None:
        self._socket = path
        self._timeout_s = timeout_s
        self._asleep = asleep
        self._replaceable = replaceable
        self._stream: socket.socket | None = None

    def facts(self) -> DockerFacts:
        """Return what the engine says of itself; never raises for one that is not there."""
        return self.read().facts

    def read(self) -> EngineReading:
        """Return what the engine says of itself, or why it says nothing. Never raises."""
        why = self._replaceable()
        if why:
            return unreachable(EngineKind.UNSAFE, why)
        try:
            return self.ask(lambda api: read_engine(api, self._socket))
        except _NoAnswerError as error:
            return error.reading

    def stay_down(self, expendable: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Name the active containers that a restart of dockerd may not bring back.

        Those are the ones without a restart policy, with --rm, and with "on-failure": one of
        these comes back only if it ends with an error when dockerd stops it (seen on 26.1),
        which is not known beforehand. None when the engine does not answer.
        """

        def ask(api: Api) -> tuple[str, ...]:
            active = api.get("/containers/json", filters={"status": list(ACTIVE)})
            names = {str(each["Id"]): container_name(each) for each in active}
            return tuple(
                sorted(
                    name
                    for identity, name in names.items()
                    if name not in expendable and stays_down(_inspected(api, identity))
                )
            )

        with contextlib.suppress(DockerError):
            return self.ask(ask)
        return ()

    def ended(self, within_s: float) -> tuple[str, ...]:
        """Name the containers that ended in the last ``within_s`` seconds, from dockerd's memory.

        It remembers its last 256 events. None when it does not answer.
        """
        now_s = time.time()

        def ask(api: Api) -> tuple[str, ...]:
            found = api.lines(
                "/events",
                since=f"{now_s - within_s:.9f}",
                until=f"{now_s:.9f}",
                filters={"type": ["container"], "event": ["die"]},
            )
            actors = [each["Actor"] for each in found]
            return tuple(sorted({str(each["Attributes"].get("name") or "") for each in actors}))

        with contextlib.suppress(DockerError):
            return self.ask(ask)
        return ()

    def create_bridge(
        self,
        name: str,
        subnet: Network,
        *,
        options: Mapping[str, str],
        labels: Mapping[str, str],
    ) -> None:
        """Make a bridge network whose gateway is the subnet's first address.

        Raises:
            DockerError: Docker refused; carries its message.
        """
        import docker.types  # noqa: PLC0415

        pool = docker.types.IPAMPool(subnet=str(subnet), gateway=str(subnet.network_address + 1))
        ipam = docker.types.IPAMConfig(pool_configs=[pool])
        self._change(
            lambda client: client.create_network(
                name,
                driver="bridge",
                options=dict(options),
                labels=dict(labels),
                ipam=ipam,
                check_duplicate=True,
            )
        )

    def remove_network(self, identity: str) -> None:
        """Remove a network.

        Raises:
            DockerError: Docker refused; carries its message.
        """
        self._change(lambda client: client.remove_network(identity))

    def users_of(self, network: str) -> tuple[str, ...]:
        """Name the containers of a network, stopped ones too: they would not start without it.

        Raises:
            DockerError: The engine does not answer.
        """

        def ask(api: Api) -> tuple[str, ...]:
            listed = api.get("/containers/json", all="1", filters={"network": [network]})
            return tuple(sorted(container_name(each) for each in listed))

        return self.ask(ask)

    def containers(self) -> tuple[Container, ...]:
        """List the containers that run.

        Raises:
            DockerError: The engine does not answer.
        """
        return self.ask(lambda api: containers_of(api.get("/containers/json")))

    def process_of(self, container: str) -> int:
        """Return the process id of a running container's first process.

        Raises:
            DockerError: The engine does not answer, or the container does not run.
        """
        number = self.ask(lambda api: int(_inspected(api, container)["State"]["Pid"]))
        if not number:
            raise DockerError(f"container {container[:12]} does not run any more")
        return number

    def events(self) -> socket.socket:
        """Return a socket on which the lines of events come.

        Raises:
            DockerError: The engine does not answer.
        """
        self._stream = self.ask(lambda api: api.stream("/events", filters=FOLLOWED))
        return self._stream

    def end_events(self) -> None:
        """End the stream that :meth:`events` opened last, before a restart of dockerd.

        dockerd 26.1 waits 5 s at its end for a connection that is still open (seen).
        """
        if self._stream is not None:
            with contextlib.suppress(OSError):  # it has ended
                self._stream.shutdown(socket.SHUT_RDWR)

    def ask(self, question: Callable[[Api], _Answer], *, timeout_s: float | None = None) -> _Answer:
        """Put questions on a connection of their own; return the answer.

        Args:
            question: Asks, and reads the answers.
            timeout_s: Deadline of each request; None: as usual.

        Raises:
            DockerError: The engine does not answer, or not as Docker does.
        """
        why = self._unavailable()
        if why:
            raise _NoAnswerError(unreachable(EngineKind.ABSENT, why))
        timeout_s = timeout_s or self._timeout_s
        try:
            with contextlib.closing(Api(self._socket, timeout_s)) as api:
                return question(api)
        except FAILURES as error:
            raise _NoAnswerError(self._instead_of_answer(error, timeout_s)) from error

    def _unavailable(self) -> str:
        why = self._replaceable() or self._asleep()
        if not why and not self._socket.exists():
            why = f"{self._socket} does not exist"
        return why

    def _instead_of_answer(self, error: Exception, timeout_s: float) -> EngineReading:
        if isinstance(error, TimeoutError):
            what = f"{self._socket} does not answer within {timeout_s:g} s"
            return unreachable(EngineKind.SILENT, what)
        if isinstance(error, FileNotFoundError | ConnectionRefusedError | PermissionError):
            return unreachable(EngineKind.ABSENT, f"{self._socket}: {error.strerror}")
        if isinstance(error, ApiError):
            return unreachable(EngineKind.SILENT, f"{self._socket}: {error}")
        what = f"{self._socket} answers what no Docker Engine would: {error!r}"
        return unreachable(EngineKind.SILENT, what)

    def _change(self, run: Callable[[docker.APIClient], object]) -> None:
        """Change something with the ``docker`` package, which is loaded here first."""
        why = self._unavailable()
        if why:
            raise DockerError(why)
        import docker as package  # noqa: PLC0415 - 7 MB, for hosts that attach by a network
        import requests.exceptions  # noqa: PLC0415 - the same

        try:
            client = package.APIClient(
                base_url=f"unix://{self._socket}",
                version="auto",
                timeout=self._timeout_s,  # type: ignore[arg-type]  # seconds; floats work
            )
            with contextlib.closing(client):
                run(client)
        except package.errors.APIError as error:
            raise DockerError(f"{self._socket}: {error.explanation or error}") from error
        except (package.errors.DockerException, requests.exceptions.RequestException) as error:
            raise DockerError(f"{self._socket}: {error}") from error


def _inspected(api: Api, container: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = api.get(f"/containers/{quote(container, safe='')}/json")
    return found
