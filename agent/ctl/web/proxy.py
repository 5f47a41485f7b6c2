"""Serve the agent's page to browsers of this machine: a port of loopback, and a secret path.

Other users of the machine reach the port, too. The page is therefore under a path that cannot be
guessed, and the link to it works once: the arguments of a browser that was started show it. Only
the page and its stream are answered, so nothing behind the port changes anything.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from agent.daemon.api.connection import Document, Paths, Stream, Text, error_document
from agent.daemon.api.server import TcpServer
from agent.daemon.ui.page import HEADERS
from agent.daemon.ui.paths import page_answer
from agent.errors import AgentUnavailable

__all__ = ["PageProxy"]

_HEAD_BYTES = 4096
_CHUNK_BYTES = 1 << 16
_CONNECT_S = 5.0
_PAUSE_S = 1.0
_REQUEST = b"GET /ui/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
_PLAIN = "text/plain; charset=utf-8"
_STREAM = "text/event-stream; charset=utf-8"


class PageProxy:
    """The page on a port of 127.0.0.1.

    Args:
        control: The agent's control socket.
        port: 0 for a free one.

    Raises:
        StateError: The port is in use.
    """

    def __init__(self, control: Path, port: int) -> None:
        self._control = control
        self._ticket = f"/open/{secrets.token_urlsafe(18)}"
        self._secret = f"/{secrets.token_urlsafe(24)}"
        self._lock = threading.Lock()
        self._is_used = False
        read = {
            self._ticket: self._open,
            f"{self._secret}/ui": page_answer,
            f"{self._secret}/ui/stream": self._stream,
        }
        self._server = TcpServer(
            "ui", ("127.0.0.1", port), Paths(read=read, are_secret=True), by_address=True
        )
        self.port = self._server.port

    @property
    def link(self) -> str:
        """The address that opens the page, once."""
        return f"http://127.0.0.1:{self.port}{self._ticket}"

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def stop(self) -> None:
        """Stop answering."""
        self._server.stop()

    def _open(self) -> Text:
        with self._lock:
            used, self._is_used = self._is_used, True
        if used:
            text = b"This link has been used. Run agentctl ui again for a new one.\n"
            return Text(text, _PLAIN, HEADERS, HTTPStatus.GONE)
        return Text(
            b"", _PLAIN, {**HEADERS, "Location": f"{self._secret}/ui"}, HTTPStatus.SEE_OTHER
        )

    def _stream(self) -> Stream | tuple[int, Document]:
        try:
            return Stream(_Relay(self._control), _STREAM, 0, HEADERS)
        except OSError as error:
            away = AgentUnavailable(f"hostmesh-agent does not answer: {error}")
            return HTTPStatus.SERVICE_UNAVAILABLE, error_document(away)


class _Relay:
    """The agent's stream. Raises OSError when the agent does not give one."""

    def __init__(self, control: Path) -> None:
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connection.settimeout(_CONNECT_S)
            self._connection.connect(str(control))
            self._connection.sendall(_REQUEST)
            self._begun = self._past_head()
            self._connection.settimeout(_PAUSE_S)
        except BaseException:
            self._connection.close()
            raise

    def _past_head(self) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = self._connection.recv(_CHUNK_BYTES)
            if not chunk or len(received) > _HEAD_BYTES:
                raise ConnectionError("it ended its answer early")
            received += chunk
        head, _, rest = received.partition(b"\r\n\r\n")
        if not re.match(rb"HTTP/1\.1 200 ", head):
            raise ConnectionError(head.partition(b"\r\n")[0].decode("ascii", "replace"))
        return rest

    def __iter__(self) -> Iterator[bytes]:
        yield self._begun
        while True:
            chunk = b""
            with contextlib.suppress(TimeoutError):
                chunk = self._connection.recv(_CHUNK_BYTES)
                if not chunk:
                    return
            yield chunk

    def close(self) -> None:
        """End the agent's stream."""
        self._connection.close()
