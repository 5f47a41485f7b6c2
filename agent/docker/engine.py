"""The engine's API: what it says of itself, and its event stream.

The ``docker`` package costs 20 MB and 0.2 s, so it is imported when an engine is first
spoken to, not before.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from agent.docker.containers import Container, container_name, containers_of
from agent.docker.reading import (
    ACTIVE,
    EngineKind,
    EngineReading,
    read_engine,
    stays_down,
    unreachable,
)
from agent.docker.stream import EventStream, ended_containers
from agent.errors import DockerError
from agent.model import DockerFacts
from agent.model.family import Network

if TYPE_CHECKING:
    import docker

__all__ = ["Engine"]


class Engine:
    """The engine behind one socket. Each call opens a connection and closes it again.

    Args:
        socket: The engine's unix socket.
        timeout_s: Deadline of each request; an engine that hangs costs one of them.
        asleep: Says why the engine must not be woken, "" when it may be spoken to. systemd
            starts dockerd when somebody connects to its socket; an agent that only looks
            must not be that somebody.
        replaceable: Says why another user could put a socket of their own in its place, "" when
            none can: what it would answer decides what root does.
    """

    def __init__(
        self,
        socket: Path,
        timeout_s: float = 5.0,
        *,
        asleep: Callable[[], str] = lambda: "",
        replaceable: Callable[[], str] = lambda: "",
    ) -> None:
        self._socket = socket
        self._timeout_s = timeout_s
        self._asleep = asleep
        self._replaceable = replaceable
        self._lock = threading.Lock()
        self._stream: EventStream | None = None
        self._quiet = False

    def facts(self) -> DockerFacts:
        """Return what the engine says of itself; never raises for one that is not there."""
        return self.read().facts

    def read(self) -> EngineReading:
        """Return what the engine says of itself, or why it says nothing. Never raises."""
        why = self._replaceable()
        if why:
            return unreachable(EngineKind.UNSAFE, why)
        why = self._unavailable()
        if why:
            return unreachable(EngineKind.ABSENT, why)
        failures = _Failures(self._socket, self._timeout_s)
        with failures, contextlib.closing(self._open()) as client:
            return read_engine(client, self._socket)
        return failures.reading()

    def ping(self) -> bool:
        """Return whether anybody answers within the deadline."""
        if self._unavailable():
            return False
        with _Failures(self._socket, self._timeout_s), contextlib.closing(self._open()):
            return True
        return False

    def stay_down(self, expendable: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Name the active containers that a restart of dockerd may not bring back.

        Those are the ones without a restart policy, with --rm, and with "on-failure": one of
        these comes back only if it ends with an error when dockerd stops it (seen on 26.1),
        which nobody knows beforehand. Names nobody when the engine does not answer.
        """
        if self._unavailable():
            return ()
        with (
            _Failures(self._socket, self._timeout_s),
            contextlib.closing(self._open()) as client,
        ):
            active = client.containers(filters={"status": list(ACTIVE)})
            names = {str(each["Id"]): container_name(each) for each in active}
            return tuple(
                sorted(
                    name
                    for identity, name in names.items()
                    if name not in expendable and stays_down(client.inspect_container(identity))
                )
            )
        return ()

    def ended(self, within_s: float) -> tuple[str, ...]:
        """Name the containers that ended in the last ``within_s`` seconds, from dockerd's memory.

        It remembers its last 256 events. Names nobody when it does not answer.
        """
        if self._unavailable():
            return ()
        with (
            _Failures(self._socket, self._timeout_s),
            contextlib.closing(self._open()) as client,
        ):
            return ended_containers(client, time.time() - within_s)
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
            DockerError: Docker refused; carries its words.
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
            DockerError: Docker refused; carries its words.
        """
        self._change(lambda client: client.remove_network(identity))

    def users_of(self, network: str) -> tuple[str, ...]:
        """Name the containers of a network, stopped ones too: they would not start without it.

        Raises:
            DockerError: The engine does not answer.
        """
        found: list[str] = []

        def ask(client: docker.APIClient) -> None:
            listed = client.containers(all=True, filters={"network": network})
            found.extend(container_name(each) for each in listed)

        self._change(ask)
        return tuple(sorted(found))

    def containers(self) -> tuple[Container, ...]:
        """List the containers that run.

        Raises:
            DockerError: The engine does not answer.
        """
        found: list[Container] = []
        self._change(lambda client: found.extend(containers_of(client.containers())))
        return tuple(found)

    def process_of(self, container: str) -> int:
        """Return the process id of a running container's first process.

        Raises:
            DockerError: The engine does not answer, or the container does not run.
        """
        found: list[int] = []

        def ask(client: docker.APIClient) -> None:
            found.append(int(client.inspect_container(container)["State"]["Pid"]))

        self._change(ask)
        if not found[0]:
            raise DockerError(f"container {container[:12]} does not run any more")
        return found[0]

    def _change(self, run: Callable[[docker.APIClient], object]) -> None:
        why = self._unavailable()
        failures = _Failures(self._socket, self._timeout_s)
        if not why:
            with failures, contextlib.closing(self._open()) as client:
                run(client)
                return
            why = failures.reading().facts.problem
        raise DockerError(why)

    def events(self, *, idle_s: float) -> EventStream:
        """Open the engine's event stream.

        Args:
            idle_s: How long the stream may be silent before it ends by itself.

        Raises:
            DockerError: The engine does not answer, or is not Docker.
        """
        why = "Docker is being restarted" if self._quiet else self._unavailable()
        failures = _Failures(self._socket, self._timeout_s)
        if not why:
            with failures:
                return self._kept(EventStream(self._open(), idle_s))
            why = failures.reading().facts.problem
        raise DockerError(why)

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Close the event stream and open none meanwhile: for the time of a restart.

        dockerd 26.1 waits 5 s at its end for a connection that is still open (seen).
        """
        with self._lock:
            self._quiet = True
            if self._stream is not None:
                self._stream.close()
        try:
            yield
        finally:
            self._quiet = False

    def _kept(self, stream: EventStream) -> EventStream:
        with self._lock:
            self._stream = stream
            if self._quiet:
                stream.close()
        return stream

    def _unavailable(self) -> str:
        why = self._replaceable() or self._asleep()
        if not why and not self._socket.exists():
            why = f"{self._socket} does not exist"
        return why

    def _open(self) -> docker.APIClient:
        import docker as package  # noqa: PLC0415 - 20 MB: loaded when first needed

        return package.APIClient(
            base_url=f"unix://{self._socket}",
            version="auto",
            timeout=self._timeout_s,  # type: ignore[arg-type]  # seconds; floats work
        )


class _Failures:
    """Catches what a request to an engine can end in, and says what it means."""

    def __init__(self, socket: Path, timeout_s: float) -> None:
        self._socket = socket
        self._timeout_s = timeout_s
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        import docker.errors  # noqa: PLC0415
        import requests.exceptions  # noqa: PLC0415

        self._error = error
        return isinstance(
            error,
            docker.errors.DockerException
            | requests.exceptions.RequestException
            | OSError
            | KeyError
            | TypeError
            | ValueError
            | AttributeError,
        )

    def reading(self) -> EngineReading:
        """Return the reading of an engine that failed so."""
        import docker.errors  # noqa: PLC0415
        import requests.exceptions  # noqa: PLC0415

        chain = list(_chain(self._error))
        if any(isinstance(e, TimeoutError | requests.exceptions.Timeout) for e in chain):
            what = f"{self._socket} does not answer within {self._timeout_s:g} s"
            return unreachable(EngineKind.SILENT, what)
        for error in chain:
            if isinstance(error, FileNotFoundError | ConnectionRefusedError | PermissionError):
                return unreachable(EngineKind.ABSENT, f"{self._socket}: {error.strerror}")
            if isinstance(error, docker.errors.APIError):
                what = f"{self._socket}: {error.explanation or error}"
                return unreachable(EngineKind.SILENT, what)
        what = f"{self._socket} answers what no Docker Engine would: {self._error}"
        return unreachable(EngineKind.SILENT, what)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it, through arguments too: urllib3 nests them there."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop(0)
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        waiting += [error.__cause__, error.__context__]
        waiting += [part for part in error.args if isinstance(part, BaseException)]
