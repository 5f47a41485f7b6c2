"""One connection of the control socket: requests of HTTP/1.1 in, documents out.

Whatever a client sends ends in an answer of JSON and never in a half-understood change: a request
whose body cannot be told from the next request is refused, and the connection ends with it.
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import parse_qsl

from agent import threads
from agent.asker import asked_by
from agent.daemon.api.connection_limit import ConnectionLimit
from agent.errors import HostmeshError, NotRoot, UsageError

__all__ = ["Handler", "Paths", "Text", "error_document", "peer_uid"]

Document = Mapping[str, Any]
Query = Mapping[str, str]
_BODY_LIMIT = 64 * 1024
_REQUEST_TIMEOUT_S = 10.0
_QUERY_FIELDS = 8
_LENGTH = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is not JSON."""

    body: bytes
    content_type: str


Answer = Document | Text | tuple[int, Document]


class Paths:
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


class Server(Protocol):
    """What a connection needs of its server."""

    routes: Paths
    slots: ConnectionLimit


class Handler(BaseHTTPRequestHandler):
    """Serves one connection until it ends."""

    protocol_version = "HTTP/1.1"
    timeout = _REQUEST_TIMEOUT_S
    server: Server  # type: ignore[assignment] # socketserver knows it as its own

    def parse_request(self) -> bool:  # http.server's name
        """Refuse a head whose fields or whose body's end two readers may understand differently."""
        if not super().parse_request():
            return False
        try:
            self._length()
        except UsageError as error:
            self.close_connection = True
            self._send(*_refusal(error))
            return False
        return True

    def do_GET(self) -> None:  # http.server's name
        """Answer with a document."""
        if self._has_body():
            self.close_connection = True  # nobody reads it: it is no next request
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
        """Change something, by root's word."""
        function = self.server.routes.change.get(self.path)
        if function is None:
            self._unknown()
            return
        try:
            body = self._body()
        except HostmeshError as error:
            self.close_connection = True  # what is left of the body is no next request
            self._send(*_refusal(error))
            return
        if not self._is_waiting():
            self.close_connection = True
            return  # the client has said that it was not answered: nothing is done for it
        with asked_by(self._is_waiting):
            self._answer(lambda: function(body))

    def _is_waiting(self) -> bool:
        """Whether the client is still there. One that only ended its own sending is."""
        poller = select.poll()
        poller.register(self.connection, 0)
        return not any(events & select.POLLHUP for _, events in poller.poll(0))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 # http.server's signature
        """Say nothing: requests are not news."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 # http.server's signature
        """Answer a request that cannot be read as every other: http.server would with a page."""
        self.close_connection = True
        self.request_version = self.protocol_version  # which may not have been read
        text = message or HTTPStatus(code).phrase
        self._send(code, error_document(UsageError(f"the request cannot be answered: {text}")))

    def _unknown(self) -> None:
        routes = self.server.routes
        known = sorted({*routes.read, *routes.query, *routes.change})
        self.close_connection = True
        self._send(
            HTTPStatus.NOT_FOUND,
            error_document(UsageError(f"no {self.path} here", hint="known: " + " ".join(known))),
        )

    def _has_body(self) -> bool:
        return "Transfer-Encoding" in self.headers or self.headers.get("Content-Length", "0") != "0"

    def _body(self) -> Document:
        """The request's JSON object; empty when it has no body.

        Raises:
            NotRoot: Whoever sends it may change nothing.
            UsageError: It cannot be read, or where it ends is not plain.
        """
        if "Transfer-Encoding" in self.headers:
            raise UsageError(
                "the request's body must come with a Content-Length, not in chunks",
                hint="curl -d, not curl -T",
            )
        length = self._length()
        if length > _BODY_LIMIT:
            raise UsageError(f"a request's body has at most {_BODY_LIMIT} bytes")
        # Read first: who is cut off while sending does not see the answer.
        raw = self._read(length) or b"{}"
        if peer_uid(self.connection) != 0:
            raise NotRoot("only root may change anything", hint="run it with sudo")
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the request's body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise UsageError("the request's body is not a JSON object")
        return body

    def _length(self) -> int:
        """The body's bytes (RFC 9112, 5.1, 5.2 and 6.3).

        The parser ends the head at the first line that is no field, such as one with a space
        before its colon, and takes the lines after it for a body.

        Raises:
            UsageError: A line is no field, or the length is not plain.
        """
        if self.headers.defects or self.headers.get_payload():
            raise UsageError("a line of the request's head is no field of HTTP")
        given = self.headers.get_all("Content-Length", [])
        length = given[0] if given else "0"
        if len(given) > 1 or not _LENGTH.fullmatch(length):
            raise UsageError("the request's Content-Length is not one number of bytes")
        return int(length)

    def _read(self, length: int) -> bytes:
        try:
            raw = self.rfile.read(length) if length else b""
        except OSError as error:
            raise UsageError(f"the request's body did not come: {error}") from error
        if len(raw) < length:
            raise UsageError(f"of the request's body only {len(raw)} of {length} bytes came")
        return raw

    def _answer(self, function: Callable[[], Answer]) -> None:
        if not self.server.slots.work(self.connection):
            self.close_connection = True
            return  # it had to make room for another, which it learns by the end of the connection
        try:
            answer = _answer_of(function)
        finally:
            self.server.slots.rest(self.connection)
        if isinstance(answer, Text):
            self._write(HTTPStatus.OK, answer.body, answer.content_type)
        else:
            self._send(*(answer if isinstance(answer, tuple) else (HTTPStatus.OK, answer)))

    def _send(self, status: int, document: Document) -> None:
        self._write(
            status, json.dumps(document, separators=(",", ":")).encode() + b"\n", "application/json"
        )

    def _write(self, status: int, payload: bytes, content_type: str) -> None:
        with contextlib.suppress(OSError):  # the asker went away
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(payload)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(payload)


def peer_uid(connection: socket.socket) -> int:
    """Whose the other end of a unix socket is, by the kernel (SO_PEERCRED, unix(7))."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", raw)[1])


def _answer_of(function: Callable[[], Answer]) -> Answer:
    try:
        return function()
    except HostmeshError as error:
        return _refusal(error)
    except Exception as error:  # noqa: BLE001 - the top of a thread: the asker is answered
        threads.tell(error)
        return HTTPStatus.INTERNAL_SERVER_ERROR, error_document(_bug(error))


def _refusal(error: HostmeshError) -> tuple[int, Document]:
    status = HTTPStatus.FORBIDDEN if isinstance(error, NotRoot) else HTTPStatus.CONFLICT
    if isinstance(error, UsageError):
        status = HTTPStatus.BAD_REQUEST
    return status, error_document(error)


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
    """Return an error as the socket sends it, with its code and agentctl's exit status."""
    return {
        "error": {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
        }
    }
