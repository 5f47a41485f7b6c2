"""The control socket: HTTP/1.1 with JSON on a unix socket, the daemon's only front door.

Reading needs access to the socket (mode 0660, group settable); changing needs uid 0, told by
SO_PEERCRED (unix(7)). A poller accepts. Handlers run in short-lived threads and never touch the
kernel, etcd or Docker: they read documents the loop has published, or post a command to the loop
and wait for its answer within a deadline. docs/control-socket.md describes the documents.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn, UnixStreamServer
from typing import Any

import structlog

from agent.daemon.api.connection import Handler, Paths, error_document, peer_uid
from agent.daemon.api.connection_limit import ConnectionLimit
from agent.errors import AgentUnavailable, StateError
from agent.threads import Poller, Wait

__all__ = ["ControlServer", "MetricsServer"]

_CONNECTION_S = 300.0
"""A connection may stay that long at most, whatever it does: a slot is for everybody."""
_IDLE_S = 0.25
"""A client may take that long to send its request before it can be evicted for another."""
_THREADS = 16
_FOR_ROOT = 4
_GOODBYE_S = 0.2


class _Serving:
    """Accepts connections on a poller, and ends those that stay too long."""

    def __init__(self, server: _Server | _TcpServer, name: str, poller: Poller | None) -> None:
        self.name = name
        self._server = server
        self._server.socket.settimeout(0)  # a client may be gone before it is accepted
        self._poller = poller or Poller(name)
        self._server.on_place_free = self._poller.wake

    def start(self) -> None:
        """Begin to answer."""
        self._poller.add(self)

    def stop(self) -> None:
        """Stop answering."""
        self._poller.remove(self)
        self._server.server_close()

    def waits_for(self) -> Wait:
        """Return the socket that is listened on, and when the time of a connection is over.

        While every connection is busy or new, others wait in the kernel's queue.
        """
        slots = self._server.slots
        free_s = slots.free_s
        if free_s > time.monotonic():
            return Wait(until_s=min(free_s, slots.end_s))
        return Wait((self._server.fileno(),), slots.end_s)

    def serve(self, ready: frozenset[int]) -> None:
        """Accept a connection; end those whose time is over."""
        if ready:
            self._server.handle_request()
        self._server.slots.cut()


class ControlServer(_Serving):
    """Serves :class:`Paths` on a unix socket until stopped.

    Args:
        path: The socket. One that is there is a dead agent's, and is replaced: whoever makes
            this holds the host's lock (agent.daemon.store.host_lock).
        group: Name of the group that may read, "" for root only.
        routes: What to answer.
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
        routes: Paths,
        *,
        connection_s: float = _CONNECTION_S,
        idle_s: float = _IDLE_S,
        poller: Poller | None = None,
    ) -> None:
        self._path = path
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            # Nobody may connect between bind and chmod.
            mask = os.umask(0o177)
            try:
                server = _Server(str(path), routes, connection_s, idle_s)
            finally:
                os.umask(mask)
            if group:
                os.chown(path, 0, grp.getgrnam(group).gr_gid)
            path.chmod(0o660)
        except (OSError, KeyError) as error:
            raise StateError(
                f"the control socket {path} cannot be made: {error}",
                hint="check agent.run_dir and agent.socket_group in agent.toml",
            ) from error
        super().__init__(server, "control", poller)

    def stop(self) -> None:
        """Stop answering and remove the socket."""
        super().stop()
        self._path.unlink(missing_ok=True)


class MetricsServer(_Serving):
    """Serves read-only paths on a TCP address, for Prometheus and load balancers.

    Args:
        address: Where to listen.
        routes: What to answer; nothing that changes anything.
        poller: Shared with other sources; None: one of its own.

    Raises:
        StateError: The address cannot be listened on.
    """

    def __init__(
        self, address: tuple[str, int], routes: Paths, poller: Poller | None = None
    ) -> None:
        try:
            server = _TcpServer(address, routes)
        except OSError as error:
            raise StateError(
                f"metrics cannot be served on {address[0]}:{address[1]}: {error.strerror}",
                hint="check metrics.listen in agent.toml",
            ) from error
        super().__init__(server, "metrics", poller)
        self.port: int = server.server_address[1]


class _Bounded(ThreadingMixIn):
    """A thread for each connection, so many at most."""

    timeout: float | None = 0  # of handle_request: a connection that has gone is not waited for
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    on_place_free: Callable[[], None]

    def prepare(self, routes: Paths, connection_s: float, idle_s: float, name: str) -> None:
        """To be called before anybody connects."""
        self.routes = routes
        self.thread_name = name
        self.slots = ConnectionLimit(_THREADS, _FOR_ROOT, connection_s, idle_s)

    def is_root(self, request: socket.socket) -> bool:  # noqa: ARG002 # of those that can tell
        """Whether root is known to be the one who connected."""
        return False

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 # socketserver's types
        if not self.slots.take(request, root=self.is_root(request)):
            _say_busy(request)
            self.shutdown_request(request)  # type: ignore[attr-defined] # the server it is mixed into
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self.slots.leave(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 # the same
        # One name for all: errors are counted and their log lines limited by the thread's name.
        threading.current_thread().name = self.thread_name
        try:
            super().process_request_thread(request, client_address)
        finally:
            if self.slots.leave(request):
                self.on_place_free()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002 # the same
        if not isinstance(sys.exception(), OSError):  # that is a client that went away
            structlog.get_logger("agent.control").debug("request failed", exc_info=True)


class _Server(_Bounded, UnixStreamServer):
    def __init__(self, path: str, routes: Paths, connection_s: float, idle_s: float) -> None:
        self.prepare(routes, connection_s, idle_s, "control-request")
        super().__init__(path, Handler)

    def is_root(self, request: socket.socket) -> bool:
        return peer_uid(request) == 0


class _TcpServer(_Bounded, TCPServer):
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], routes: Paths) -> None:
        self.prepare(routes, _CONNECTION_S, _IDLE_S, "metrics-request")
        super().__init__(address, Handler)


def _say_busy(connection: socket.socket) -> None:
    """Answer in the thread that accepts: briefly, whatever was asked."""
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
        connection.settimeout(_GOODBYE_S)
        connection.sendall(head.encode() + body)
