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
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn, UnixStreamServer
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

import structlog

from agent import threads
from agent.errors import HostmeshError, NotRoot, Refused, StateError, UsageError

__all__ = ["ControlServer", "MetricsServer", "Routes", "Text"]

Document = Mapping[str, Any]
Query = Mapping[str, str]
_BODY_LIMIT = 64 * 1024
_REQUEST_TIMEOUT_S = 10.0
_CONNECTION_S = 300.0
"""A connection may stay that long at most, whatever it does: a slot is for everybody."""
_THREADS = 16
_QUERY_FIELDS = 8


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is not JSON."""

    body: bytes
    content_type: str


Answer = Document | Text | tuple[int, Document]


class Routes:
    """What the socket answers: paths to functions.

    Args:
        read: GET paths; each function returns the document, or (status, document).
        change: POST paths; each function takes the request's JSON object.
        query: GET paths whose functions take what stands behind the "?".
    """

    def __init__(
        self,
        read: Mapping[str, Callable[[], Answer]],
        change: Mapping[str, Callable[[Document], Document]],
        query: Mapping[str, Callable[[Query], Answer]] = MappingProxyType({}),
    ) -> None:
        self.read = read
        self.change = change
        self.query = query


class _Serving:
    """Answers on a thread of its own until stopped."""

    def __init__(self, server: _Server | _TcpServer, name: str) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, name=name, daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(timeout=2)
        self._server.server_close()


class ControlServer(_Serving):
    """Serves :class:`Routes` on a unix socket until stopped.

    Args:
        path: The socket. A stale one of a dead agent is replaced.
        group: Name of the group that may read, "" for root only.
        routes: What to answer.
        connection_s: How long a connection may stay, whatever it does.

    Raises:
        Refused: Another agent answers on the socket.
        StateError: The socket cannot be made.
    """

    def __init__(
        self, path: Path, group: str, routes: Routes, *, connection_s: float = _CONNECTION_S
    ) -> None:
        self._path = path
        _refuse_a_second_agent(path)
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


def _refuse_a_second_agent(path: Path) -> None:
    with (
        contextlib.suppress(OSError),  # nobody listens, or no socket: both are what we want
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe,
    ):
        probe.settimeout(1)
        probe.connect(str(path))
        raise Refused(
            f"another hostmesh-agent answers on {path}",
            hint="one agent runs per host: systemctl status hostmesh-agent",
        )


class _Bounded(ThreadingMixIn):
    """A thread for each connection, so many at most."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def prepare(self, routes: Routes, connection_s: float) -> None:
        """To be called before anybody connects."""
        self.routes = routes
        self.connection_s = connection_s
        self._slots = threading.BoundedSemaphore(_THREADS)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 # socketserver's types
        if not self._slots.acquire(timeout=1):
            self.shutdown_request(request)  # type: ignore[attr-defined] # the server it is mixed into
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 # the same
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002 # the same
        structlog.get_logger("agent.control").debug("request failed", exc_info=True)


class _Server(_Bounded, UnixStreamServer):
    def __init__(self, path: str, routes: Routes, connection_s: float) -> None:
        self.prepare(routes, connection_s)
        super().__init__(path, _Handler)


class _TcpServer(_Bounded, TCPServer):
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], routes: Routes) -> None:
        self.prepare(routes, _CONNECTION_S)
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _REQUEST_TIMEOUT_S
    server: _Server

    def setup(self) -> None:  # http.server's name
        """One that sends a byte now and then would stay for ever: its time is limited."""
        super().setup()
        self._end = threading.Timer(self.server.connection_s, self._cut)
        self._end.daemon = True
        self._end.start()

    def finish(self) -> None:  # http.server's name
        self._end.cancel()
        super().finish()

    def _cut(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:  # http.server's name
        path, _, raw = self.path.partition("?")
        routes = self.server.routes
        if path in routes.read:
            self._answer(routes.read[path])
        elif path in routes.query:
            function = routes.query[path]
            self._answer(lambda: function(_query(raw)))
        else:
            self._unknown()

    def do_POST(self) -> None:  # http.server's name
        function = self.server.routes.change.get(self.path)
        if function is None:
            self._unknown()
            return
        self._answer(lambda: function(self._body()))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 # http.server's signature
        """Say nothing: requests are not news."""

    def _unknown(self) -> None:
        routes = self.server.routes
        known = sorted({*routes.read, *routes.query, *routes.change})
        self.close_connection = True
        self._send(
            HTTPStatus.NOT_FOUND,
            error_document(UsageError(f"no {self.path} here", hint="known: " + " ".join(known))),
        )

    def _body(self) -> Document:
        if self._peer_uid() != 0:
            raise NotRoot("only root may change anything", hint="run it with sudo")
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > _BODY_LIMIT:
            self.close_connection = True
            raise UsageError(f"a request's body has at most {_BODY_LIMIT} bytes")
        try:
            raw = self.rfile.read(int(length)) if int(length) else b"{}"
        except OSError as error:
            self.close_connection = True
            raise UsageError(f"the request's body did not come: {error}") from error
        try:
            body = json.loads(raw)
        except ValueError as error:
            raise UsageError(f"the request's body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise UsageError("the request's body is not a JSON object")
        return body

    def _peer_uid(self) -> int:
        raw = self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("3i", raw)[1])

    def _answer(self, function: Callable[[], Answer]) -> None:
        try:
            answer = function()
        except HostmeshError as error:
            status = HTTPStatus.FORBIDDEN if isinstance(error, NotRoot) else HTTPStatus.CONFLICT
            if isinstance(error, UsageError):
                status = HTTPStatus.BAD_REQUEST
            self._send(status, error_document(error))
            return
        except Exception as error:  # noqa: BLE001 - the top of a thread: the asker is answered
            threads.tell(error)
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, error_document(_bug(error)))
            return
        if isinstance(answer, Text):
            self._write(HTTPStatus.OK, answer.body, answer.content_type)
            return
        status_code, document = answer if isinstance(answer, tuple) else (HTTPStatus.OK, answer)
        self._send(status_code, document)

    def _send(self, status: int, document: Document) -> None:
        self._write(status, json.dumps(document).encode() + b"\n", "application/json")

    def _write(self, status: int, payload: bytes, content_type: str) -> None:
        with contextlib.suppress(OSError):  # the asker went away
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)


def _query(raw: str) -> Query:
    try:
        return dict(parse_qsl(raw, strict_parsing=bool(raw), max_num_fields=_QUERY_FIELDS))
    except ValueError as error:
        raise UsageError(f"what stands behind the ? cannot be read: {error}") from error


def _bug(error: Exception) -> HostmeshError:
    return HostmeshError(
        f"the agent met what nobody foresaw: {type(error).__name__}: {error}",
        hint="a bug: its log has the traceback; please report it with agentctl bugreport",
    )


def error_document(error: HostmeshError) -> Document:
    """An error as the socket says it: message, hint, exit status for agentctl."""
    return {"error": {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}}
