"""One connection of the control socket: one HTTP/1.1 request in, one document out.

Every request is answered with JSON, and a request with more than one reading changes nothing. The
web page (agent.daemon.ui) and its stream of events are the exceptions.
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import parse_qsl

from agent import threads
from agent.daemon.api.connection_limit import ConnectionLimit
from agent.errors import HostmeshError, NotRoot, UsageError
from agent.thread_call import serving

__all__ = [
    "Chunks",
    "Document",
    "Handler",
    "Paths",
    "Stream",
    "Text",
    "answer_of",
    "error_document",
    "peer_uid",
]

Document = Mapping[str, Any]
Query = Mapping[str, str]
_BODY_LIMIT = 64 * 1024
_REQUEST_TIMEOUT_S = 10.0
_QUERY_FIELDS = 8
_LENGTH = re.compile(r"[0-9]{1,9}")
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is not JSON."""

    body: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = HTTPStatus.OK


class Chunks(Protocol):
    """The parts of a stream."""

    def __iter__(self) -> Iterator[bytes]:
        """Return each part as soon as it is there, and now and then b"" while none is."""
        ...

    def close(self) -> object:
        """Release what the stream holds; called once, even if no part was taken."""
        ...


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that continues until either side closes the connection.

    Attributes:
        pause_s: Pause after each part; the client's end is noticed meanwhile.
    """

    chunks: Chunks
    content_type: str
    pause_s: float
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Document | Text | Stream | tuple[int, Document]


@dataclass(frozen=True, slots=True)
class Paths:
    """The functions behind the paths.

    Attributes:
        read: GET: return the document, or (status, document).
        change: POST: take the request's JSON object.
        query: GET: take the query's fields.
        are_secret: An unknown path is not answered with those that there are.
    """

    read: Mapping[str, Callable[[], Answer]] = field(default_factory=dict)
    change: Mapping[str, Callable[[Document], Document]] = field(default_factory=dict)
    query: Mapping[str, Callable[[Query], Answer]] = field(default_factory=dict)
    are_secret: bool = False

    def and_those_of(self, *others: Paths) -> Paths:
        """Return these paths and those of other parts; no two parts answer one path."""
        every = (self, *others)
        return Paths(
            read={path: answer for each in every for path, answer in each.read.items()},
            change={path: answer for each in every for path, answer in each.change.items()},
            query={path: answer for each in every for path, answer in each.query.items()},
        )


class Server(Protocol):
    """The parts of a server that a connection uses."""

    paths: Paths
    limit: ConnectionLimit

    def serves_as(self, host: str) -> bool:
        """Return whether requests with this Host header are answered."""
        ...


class Handler(BaseHTTPRequestHandler):
    """Answers the one request of a connection."""

    protocol_version = "HTTP/1.1"
    timeout = _REQUEST_TIMEOUT_S
    server: Server  # type: ignore[assignment] # socketserver knows it as its own

    def __init__(self, connection: socket.socket, server: Server) -> None:
        super().__init__(connection, "", server)  # type: ignore[arg-type] # a server for sockets

    def handle(self) -> None:  # http.server's name
        """Read one request and answer it: no second one follows, however the first one ends."""
        self.handle_one_request()

    def parse_request(self) -> bool:  # http.server's name
        """Refuse a head whose fields or whose body's end two readers may understand differently.

        The parser ends the head at the first line that is no field, such as one with a space
        before its colon, and takes the lines after it for a body (RFC 9112, 5.1, 5.2 and 6.3).
        """
        if not super().parse_request():
            return False
        lengths = self.headers.get_all("Content-Length", ["0"])
        plain = len(lengths) == 1 and _LENGTH.fullmatch(lengths[0])
        if plain and not (self.headers.defects or self.headers.get_payload()):
            return True
        self._send(*_refusal(UsageError("the request's head does not say how long its body is")))
        return False

    def do_GET(self) -> None:  # http.server's name
        """Answer with a document."""
        path, _, raw = self.path.partition("?")
        paths = self.server.paths
        if not self.server.serves_as(self.headers.get("Host", "")):
            error = UsageError(
                "requests that name this host otherwise than by an address are refused",
                hint="open the page by an address, such as http://127.0.0.1:PORT, or as localhost",
            )
            self._send(HTTPStatus.MISDIRECTED_REQUEST, error_document(error))
            return
        if path in paths.read:
            self._answer(paths.read[path])
        elif path in paths.query:
            self._answer(lambda: paths.query[path](_query(raw)))
        else:
            self._unknown()

    def do_POST(self) -> None:  # http.server's name
        """Change something for root."""
        function = self.server.paths.change.get(self.path)
        try:
            raw = self._body()  # first: a client that is cut off while sending misses the answer
            if function is None:
                self._unknown()
                return
            self._refuse_others()
            body = _document(raw)
        except HostmeshError as error:
            self._send(*_refusal(error))
            return
        if not self._is_waiting():
            return  # the client has said that it was not answered: nothing is done for it
        with serving(self._is_waiting):
            self._answer(lambda: function(body))

    def _is_waiting(self) -> bool:
        """Return whether the client is connected; one that only ended its sending is."""
        return not self._ends(select.POLLHUP, 0)

    def _ends(self, how: int, within_s: float) -> bool:
        """Wait for the client's end: POLLHUP, or POLLRDHUP for one that ended its sending."""
        poller = select.poll()
        poller.register(self.connection, how)
        return any(events & (how | select.POLLHUP) for _, events in poller.poll(within_s * 1000))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 # http.server's signature
        """Log nothing: requests are not news."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 # http.server's signature
        """Answer an unreadable request with JSON: http.server would with a page."""
        self.request_version = self.protocol_version  # which may not have been read
        text = message or HTTPStatus(code).phrase
        self._send(code, error_document(UsageError(f"the request cannot be answered: {text}")))

    def _unknown(self) -> None:
        paths = self.server.paths
        known = " ".join(sorted({*paths.read, *paths.query, *paths.change}))
        hint = "" if paths.are_secret else f"known: {known}"
        error = UsageError(f"no {self.path} here", hint=hint)
        self._send(HTTPStatus.NOT_FOUND, error_document(error))

    def _refuse_others(self) -> None:
        """Raise where the client may change nothing: a web page, or a user who is not root."""
        if "Origin" in self.headers:  # only browsers send it
            raise UsageError("a web page may change nothing", hint="use agentctl")
        if peer_uid(self.connection) != 0:
            raise NotRoot("only root may change anything", hint="run it with sudo")

    def _body(self) -> bytes:
        """Return the request's body; empty when it has none.

        Raises:
            UsageError: It cannot be read.
        """
        if "Transfer-Encoding" in self.headers:
            raise UsageError(
                "the request's body must come with a Content-Length, not in chunks",
                hint="curl -d, not curl -T",
            )
        length = int(self.headers.get("Content-Length", "0"))
        if length > _BODY_LIMIT:
            raise UsageError(f"a request's body has at most {_BODY_LIMIT} bytes")
        try:
            raw = self.rfile.read(length)
        except OSError as error:
            raise UsageError(f"the request's body did not come: {error}") from error
        if len(raw) < length:
            raise UsageError(f"of the request's body only {len(raw)} of {length} bytes came")
        return raw

    def _answer(self, function: Callable[[], Answer]) -> None:
        if not self.server.limit.start_work(self.connection):
            return  # it was evicted for another, which it learns by the end of the connection
        try:
            answer = answer_of(function)
        finally:
            self.server.limit.end_work(self.connection)
        if isinstance(answer, Text):
            self._write(answer.status, answer.body, answer.content_type, answer.headers)
        elif isinstance(answer, Stream):
            self._write_stream(answer)
        else:
            self._send(*(answer if isinstance(answer, tuple) else (HTTPStatus.OK, answer)))

    def _send(self, status: int, document: Document) -> None:
        payload = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        self._write(status, payload, "application/json")

    def _write(
        self,
        status: int,
        payload: bytes,
        content_type: str,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        with contextlib.suppress(OSError):  # the client went away
            length = {"Content-Length": str(len(payload))}
            self._write_head(status, content_type, {**length, **headers})
            self.wfile.write(payload)

    def _write_stream(self, stream: Stream) -> None:
        """Send a stream's parts until the client is gone or takes none within the timeout.

        The connection counts as idle: for a new client, the limit may end it.
        """
        with contextlib.closing(stream.chunks), contextlib.suppress(OSError):
            self._write_head(HTTPStatus.OK, stream.content_type, stream.headers)
            for chunk in stream.chunks:
                if chunk:
                    self.wfile.write(chunk)
                if self._ends(select.POLLRDHUP, stream.pause_s):
                    return

    def _write_head(self, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()


def peer_uid(connection: socket.socket) -> int:
    """Return the user at the other end of a unix socket (SO_PEERCRED, unix(7))."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", raw)[1])


def answer_of(function: Callable[[], Answer]) -> Answer:
    """Return a function's answer; of an error its document. An unexpected one is reported."""
    try:
        return function()
    except HostmeshError as error:
        return _refusal(error)
    except Exception as error:  # noqa: BLE001 - the top of a thread: the client is answered
        threads.report_error(error)
        bug = HostmeshError(
            f"internal error in the agent: {type(error).__name__}: {error}",
            hint="its log has the traceback; please report it with agentctl bugreport",
        )
        return HTTPStatus.INTERNAL_SERVER_ERROR, error_document(bug)


def _refusal(error: HostmeshError) -> tuple[int, Document]:
    status = HTTPStatus.FORBIDDEN if isinstance(error, NotRoot) else HTTPStatus.CONFLICT
    if isinstance(error, UsageError):
        status = HTTPStatus.BAD_REQUEST
    return status, error_document(error)


def _document(raw: bytes) -> Document:
    """Return the JSON object of a body; an empty one for none. UsageError: it is none."""
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the request's body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise UsageError("the request's body is not a JSON object")
    return body


def _query(raw: str) -> Query:
    try:
        return dict(parse_qsl(raw, strict_parsing=bool(raw), max_num_fields=_QUERY_FIELDS))
    except ValueError as error:
        raise UsageError(f"the query after ? cannot be read: {error}") from error


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
