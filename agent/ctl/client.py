"""HTTP over the agent's unix socket, and its errors as ours."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent import errors
from agent.errors import AgentUnavailable, HostmeshError, NotRoot
from agent.settings.text import shown

__all__ = ["AgentAbsentError", "AgentClient", "AgentSilentError", "Document"]

Document = dict[str, Any]

_MAX_BODY_BYTES = 64 << 20  # 65,536 leases are 25 MB
_CHUNK_BYTES = 1 << 16
_OK = 200
_START_HINT = "systemctl status hostmesh-agent; journalctl -u hostmesh-agent -n 20"


class AgentSilentError(AgentUnavailable):
    """The agent runs, or something on its socket does, but did not answer in time."""


class AgentAbsentError(AgentUnavailable):
    """Nobody listens on the socket: no agent runs here, and others may answer for it."""


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection to a socket in the file system."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the path instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class AgentClient:
    """Asks the agent on this host.

    Args:
        path: The control socket.
        timeout_s: How long one request may take from connecting to the last byte.
        clock: Monotonic seconds.
    """

    def __init__(
        self, path: Path, timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._clock = clock

    def get(self, target: str) -> Document:
        """Ask for a document. Raises as :meth:`post` does."""
        return self._document(*self._request("GET", target, None))

    def get_text(self, target: str) -> str:
        """Ask for what is no document, such as metrics. Raises as :meth:`post` does."""
        status, data = self._request("GET", target, None)
        if status != _OK:
            self._document(status, data)
        return data.decode("utf-8", "replace")

    def post(self, target: str, body: Mapping[str, Any]) -> Document:
        """Ask the agent to do something.

        Raises:
            AgentUnavailable: Nobody answers, or not in our language.
            AgentSilentError: No answer in time; what was asked for may still be done.
            NotRoot: The socket may not be opened by this user.
            HostmeshError: The agent's own error, of the class its exit status names.
        """
        return self._document(*self._request("POST", target, json.dumps(body).encode()))

    def _request(self, method: str, target: str, body: bytes | None) -> tuple[int, bytes]:
        deadline_s = self._clock() + self._timeout_s
        connection = _UnixConnection(self.path, self._timeout_s)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
            data = self._read(response, deadline_s)
        except TimeoutError:
            raise self._late() from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise AgentAbsentError(
                f"hostmesh-agent is not running here: nobody answers on {self.path}",
                hint=_START_HINT,
            ) from None
        except PermissionError:
            raise NotRoot(
                f"this user may not open {self.path}",
                hint="run it as root, or join the group that agent.socket_group names",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise AgentUnavailable(
                f"hostmesh-agent broke off on {self.path}: {error or type(error).__name__}",
                hint=_START_HINT,
            ) from error
        finally:
            connection.close()
        return response.status, data

    def _late(self) -> AgentSilentError:
        return AgentSilentError(
            f"hostmesh-agent did not answer on {self.path} within {self._timeout_s:g} s",
            hint="it may be busy: wait, or give --timeout more; " + _START_HINT,
        )

    def _read(self, response: http.client.HTTPResponse, deadline_s: float) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while chunk := response.read1(_CHUNK_BYTES):
            chunks.append(chunk)
            size += len(chunk)
            if size > _MAX_BODY_BYTES:
                raise http.client.HTTPException(f"answer larger than {_MAX_BODY_BYTES} bytes")
            if self._clock() > deadline_s:
                raise TimeoutError
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return b"".join(chunks)

    def _document(self, status: int, data: bytes) -> Document:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise AgentUnavailable(
                f"{self.path} does not answer as hostmesh-agent does (status {status})",
                hint="is it another program's socket? agent.run_dir says where ours is",
            )
        if status == _OK:
            return document
        raise _error_of(document, status)


def _classes() -> dict[int, type[HostmeshError]]:
    found: dict[int, type[HostmeshError]] = {}
    for name in errors.__all__:
        cls = getattr(errors, name)
        if cls is not errors.SettingsError:  # takes problems instead of a message
            found.setdefault(cls.exit_code, cls)
    return found


def _error_of(document: Mapping[str, Any], status: int) -> HostmeshError:
    """Make of the agent's error document the error that it was there."""
    error = document.get("error")
    if not isinstance(error, dict):
        return AgentUnavailable(f"hostmesh-agent answered with status {status} and no reason")
    message, hint, code = error.get("message"), error.get("hint"), error.get("exit_code")
    text = message if isinstance(message, str) and message else f"status {status}: {shown(error)}"
    if code == errors.SettingsError.exit_code:
        return errors.SettingsError((text,), hint=hint if isinstance(hint, str) else "")
    cls = _classes().get(code, HostmeshError) if isinstance(code, int) else HostmeshError
    return cls(text, hint=hint if isinstance(hint, str) else "")
