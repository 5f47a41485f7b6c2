"""The control socket: HTTP/1.1 with JSON on a unix socket, the daemon's only interface.

Reading needs access to the socket (mode 0660, group settable); changing needs uid 0 by SO_PEERCRED
(unix(7)). A poller accepts. Each connection is answered on a short-lived thread that never touches
the kernel, etcd or Docker: it reads the newest state, or posts a command to the loop and waits for
its answer within a deadline. docs/control-socket.md describes the documents.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import re
import socket
import time
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path

from agent.daemon.api.connection import Handler, Paths, error_document, peer_uid
from agent.daemon.api.connection_limit import ConnectionLimit
from agent.errors import AgentUnavailable, StateError
from agent.threads import Poller, Wait, start_thread

__all__ = ["ControlServer", "TcpServer", "is_address"]

_CONNECTION_S = 300.0
"""A connection may stay that long at most, whatever it does."""
_IDLE_S = 0.25
"""A client may take that long to send its request before it can be evicted for another."""
_QUEUE = 128
_THREADS = 16
_FOR_ROOT = 4
_BUSY_S = 0.2


class _Server:
    """Accepts connections on a poller, and ends those that stay too long."""

    def __init__(
        self,
        name: str,
        listener: socket.socket,
        paths: Paths,
        poller: Poller | None,
        *,
        connection_s: float = _CONNECTION_S,
        idle_s: float = _IDLE_S,
    ) -> None:
        self.name = name
        self.paths = paths
        self.limit = ConnectionLimit(_THREADS, _FOR_ROOT, connection_s, idle_s)
        self._listener = listener
        self._listener.settimeout(0)  # a client may be gone before it is accepted
        self._poller = poller or Poller(name)

    def start(self) -> None:
        """Begin to answer."""
        self._poller.add(self)

    def stop(self) -> None:
        """Stop answering."""
        self._poller.remove(self)
        self._listener.close()

    def serves_as(self, host: str) -> bool:  # noqa: ARG002 # for those that look
        """Return whether requests with this Host header are answered: all."""
        return True

    def waits_for(self) -> Wait:
        """Return the socket that is listened on, and when the time of a connection is over.

        While every connection is busy or new, others wait in the kernel's queue.
        """
        free_s, end_s = self.limit.free_s, self.limit.end_s
        if free_s > time.monotonic():
            return Wait(until_s=min(free_s, end_s))
        return Wait((self._listener.fileno(),), end_s)

    def serve(self, ready: frozenset[int]) -> None:
        """Accept a connection; end those whose time is over."""
        if ready:
            self._accept()
        self.limit.end_overdue()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        root = connection.family == socket.AF_UNIX and peer_uid(connection) == 0
        if not self.limit.take(connection, root=root):
            _say_busy(connection)
            connection.close()
            return
        # One name for all: errors are counted and their log lines limited by the thread's name.
        try:
            start_thread(f"{self.name}-request", partial(self._answer, connection))
        except RuntimeError:  # no thread can be had now
            self.limit.leave(connection)
            connection.close()
            raise

    def _answer(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):  # a client that went away
                Handler(connection, self)
        finally:
            if self.limit.leave(connection):
                self._poller.wake()


class ControlServer(_Server):
    """Serves :class:`Paths` on a unix socket until stopped.

    Args:
        path: The socket. One that exists is a dead agent's, and is replaced: the caller holds the
            host's lock (agent.daemon.store.host_lock).
        group: Name of the group that may read, "" for root only.
        paths: What to answer.
        connection_s: How long a connection may stay, whatever it does.
        idle_s: How long a connection may be idle before it can be evicted for another.
        poller: Shared with other sources; None: one of its own.

    Raises:
        StateError: The socket cannot be made.
    """

    def __init__(
        self,
        path: Path,
        group: str,
        paths: Paths,
        *,
        connection_s: float = _CONNECTION_S,
        idle_s: float = _IDLE_S,
        poller: Poller | None = None,
    ) -> None:
        self._path = path
        try:
            listener = _listen(path, group)
        except (OSError, KeyError) as error:
            raise StateError(
                f"the control socket {path} cannot be made: {error}",
                hint="check agent.run_dir and agent.socket_group in agent.toml",
            ) from error
        super().__init__(
            "control", listener, paths, poller, connection_s=connection_s, idle_s=idle_s
        )

    def stop(self) -> None:
        """Stop answering and remove the socket."""
        super().stop()
        self._path.unlink(missing_ok=True)


class TcpServer(_Server):
    """Serves read-only paths on a TCP address, for Prometheus, load balancers and browsers.

    Args:
        name: The section of the settings that names the address: "metrics", "ui".
        address: Where to listen.
        paths: What to answer; nothing that changes anything.
        poller: Shared with other sources; None: one of its own.
        by_address: Answer only requests whose Host is an address or localhost. A name may be a web
            page's that resolves to this host to read it (DNS rebinding).

    Raises:
        StateError: The address cannot be listened on.
    """

    def __init__(
        self,
        name: str,
        address: tuple[str, int],
        paths: Paths,
        poller: Poller | None = None,
        *,
        by_address: bool = False,
    ) -> None:
        try:
            listener = socket.create_server(address, backlog=_QUEUE)
        except OSError as error:
            raise StateError(
                f"{name} cannot be served on {address[0]}:{address[1]}: {error.strerror}",
                hint=f"check {name}.listen in agent.toml",
            ) from error
        super().__init__(name, listener, paths, poller)
        self._by_address = by_address
        self.port: int = listener.getsockname()[1]

    def serves_as(self, host: str) -> bool:
        """Return whether requests with this Host header are answered."""
        return not self._by_address or is_address(host)


def is_address(host: str) -> bool:
    """Return whether a Host header has an address or localhost, with or without a port."""
    name = host.rpartition(":")[0] if re.search(r":[0-9]{1,5}$", host) else host
    if name.lower() == "localhost":
        return True
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _listen(path: Path, group: str) -> socket.socket:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(0o177)  # no other user may connect between bind and chmod
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(_QUEUE)
        if group:
            os.chown(path, 0, grp.getgrnam(group).gr_gid)
        path.chmod(0o660)
    except BaseException:
        listener.close()
        raise
    return listener


def _say_busy(connection: socket.socket) -> None:
    """Refuse in the thread that accepts, briefly, without reading the request."""
    error = AgentUnavailable(
        "the agent answers as many as it can at a time", hint="ask again in a moment"
    )
    status = HTTPStatus.SERVICE_UNAVAILABLE
    body = json.dumps(error_document(error)).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with contextlib.suppress(OSError):
        connection.settimeout(_BUSY_S)
        connection.sendall(head.encode() + body)
