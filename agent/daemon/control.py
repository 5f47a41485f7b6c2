"""The control socket: HTTP/1.1 with JSON on a unix socket, the daemon's only front door.

Reading needs access to the socket (mode 0660, group settable); changing needs uid 0, told by
SO_PEERCRED (unix(7)). Handlers run in short-lived threads and never touch the kernel, etcd or
Docker: they read documents the loop has published, or post a command to the loop and wait for
its answer within a deadline. docs/control-socket.md describes the documents.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import selectors
import socket
import sys
import threading
from http import HTTPStatus
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn, UnixStreamServer
from typing import Any

import structlog

from agent.daemon.connection import Handler, Routes, error_document, peer_uid
from agent.daemon.slots import Slots
from agent.errors import AgentUnavailable, StateError

__all__ = ["ControlServer", "MetricsServer"]

_CONNECTION_S = 300.0
"""A connection may stay that long at most, whatever it does: a slot is for everybody."""
_THREADS = 16
_FOR_ROOT = 4
_GOODBYE_S = 0.2


class _Serving:
    """Answers on a thread of its own until stopped."""

    def __init__(self, server: _Server | _TcpServer, name: str) -> None:
        self._server = server
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering."""
        self._wake.close()
        if self._thread.is_alive():
            self._thread.join(timeout=2)
        self._server.server_close()
        self._woken.close()

    def _serve(self) -> None:
        """Accept until woken; socketserver's own loop would poll twice a second."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while all(key.fileobj is not self._woken for key, _ in selector.select()):
                self._server.handle_request()


class ControlServer(_Serving):
    """Serves :class:`Routes` on a unix socket until stopped.

    Args:
        path: The socket. One that is there is a dead agent's, and is replaced: whoever makes
            this holds the host's lock (agent.daemon.hostlock).
        group: Name of the group that may read, "" for root only.
        routes: What to answer.
        connection_s: How long a connection may stay, whatever it does.

    Raises:
        StateError: The socket cannot be made.
    """

    def __init__(
        self, path: Path, group: str, routes: Routes, *, connection_s: float = _CONNECTION_S
    ) -> None:
        self._path = path
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            # Nobody may connect between bind and chmod.
            mask = os.umask(0o177)
            try:
                server = _Server(str(path), routes, connection_s)
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
        super().__init__(server, "control")

    def stop(self) -> None:
        """Stop answering and remove the socket."""
        super().stop()
        self._path.unlink(missing_ok=True)


class MetricsServer(_Serving):
    """Serves read-only paths on a TCP address, for Prometheus and load balancers.

    Args:
        address: Where to listen.
        routes: What to answer; nothing that changes anything.

    Raises:
        StateError: The address cannot be listened on.
    """

    def __init__(self, address: tuple[str, int], routes: Routes) -> None:
        try:
            server = _TcpServer(address, routes)
        except OSError as error:
            raise StateError(
                f"metrics cannot be served on {address[0]}:{address[1]}: {error.strerror}",
                hint="check metrics.listen in agent.toml",
            ) from error
        super().__init__(server, "metrics")
        self.port: int = server.server_address[1]


class _Bounded(ThreadingMixIn):
    """A thread for each connection, so many at most."""

    timeout: float | None = 0  # of handle_request: a connection that has gone is not waited for
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def prepare(self, routes: Routes, connection_s: float, name: str) -> None:
        """To be called before anybody connects."""
        self.routes = routes
        self.thread_name = name
        self.connection_s = connection_s
        self.slots = Slots(_THREADS, _FOR_ROOT)

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
            self.slots.leave(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002 # the same
        if not isinstance(sys.exception(), OSError):  # that is a client that went away
            structlog.get_logger("agent.control").debug("request failed", exc_info=True)


class _Server(_Bounded, UnixStreamServer):
    def __init__(self, path: str, routes: Routes, connection_s: float) -> None:
        self.prepare(routes, connection_s, "control-request")
        super().__init__(path, Handler)

    def is_root(self, request: socket.socket) -> bool:
        return peer_uid(request) == 0


class _TcpServer(_Bounded, TCPServer):
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], routes: Routes) -> None:
        self.prepare(routes, _CONNECTION_S, "metrics-request")
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
