"""Reading from an engine: HTTP on its unix socket, one connection for several requests.

The ``docker`` package takes 7 MB and is loaded only where something is changed.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

__all__ = ["FAILURES", "Api", "ApiError", "NotThereError"]

_MOST_BYTES: Final = 64 << 20
"""Of an answer; 10,000 containers are described in less."""


class ApiError(Exception):
    """The engine answered with an error; its message."""


class NotThereError(ApiError):
    """The engine knows no such object."""


FAILURES: Final = (
    ApiError,
    http.client.HTTPException,
    OSError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
)
"""A request ends in one of these when no engine answers as Docker does."""


class Api:
    """One connection, to be closed; it connects with the first request.

    Args:
        path: The engine's unix socket.
        timeout_s: How long to wait for each step of an answer.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path, self._timeout_s = path, timeout_s
        self._connection = _Connection(path, timeout_s)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def get(self, path: str, **query: object) -> Any:  # noqa: ANN401 - JSON
        """Return the document at ``path``; raises one of :data:`FAILURES`."""
        return json.loads(self._read(path, query))

    def lines(self, path: str, **query: object) -> list[Any]:
        """Return the documents at ``path``, one a line; raises one of :data:`FAILURES`."""
        return [json.loads(line) for line in self._read(path, query).splitlines() if line.strip()]

    def stream(self, path: str, **query: object) -> socket.socket:
        """Ask for an answer without an end; return a socket on which it goes on, unframed.

        Raises one of :data:`FAILURES`. The start of the answer may be lost.
        """
        self._connection.close()
        self._connection = _OldConnection(self._path, self._timeout_s)
        answer = self._ask(path, query)
        try:
            return self._connection.kept.dup()
        finally:
            answer.close()

    def _read(self, path: str, query: dict[str, object]) -> bytes:
        body = self._ask(path, query).read(_MOST_BYTES + 1)
        if len(body) > _MOST_BYTES:
            raise ValueError(f"{path} is longer than {_MOST_BYTES} bytes")
        return body

    def _ask(self, path: str, query: dict[str, object]) -> http.client.HTTPResponse:
        words = {name: _word(value) for name, value in query.items()}
        self._connection.request("GET", f"{path}?{urlencode(words)}" if words else path)
        answer = self._connection.getresponse()
        if answer.status == http.client.NOT_FOUND:
            raise NotThereError(_message(answer))
        if answer.status != http.client.OK:
            raise ApiError(_message(answer))
        return answer


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("docker", timeout=timeout_s)
        self._path = str(path)
        self.kept = socket.socket(socket.AF_UNIX)
        """The same socket; ``sock`` is gone once an answer says that it is the last."""

    def connect(self) -> None:
        self.kept.close()
        self.sock = self.kept = socket.socket(socket.AF_UNIX)
        self.kept.settimeout(self.timeout)
        self.kept.connect(self._path)

    def close(self) -> None:
        super().close()
        self.kept.close()


class _OldConnection(_Connection):
    """Speaks HTTP/1.0, in which an answer without an end has no chunks."""

    _http_vsn = 10
    _http_vsn_str = "HTTP/1.0"


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _message(answer: http.client.HTTPResponse) -> str:
    status = f"{answer.status} {answer.reason}"
    try:
        said = json.loads(answer.read(_MOST_BYTES))
    except ValueError:
        return status
    return str(said.get("message") or status) if isinstance(said, dict) else status
