"""Ask the agent over its unix socket with HTTP, and raise its errors."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent import errors
from agent.errors import (
    AgentUnavailable,
    CannotTell,
    HostmeshError,
    NotRoot,
    SettingsError,
    UsageError,
)
from agent.progress import Progress
from agent.settings.text import shown

__all__ = ["NO_ANSWER", "AgentAbsentError", "AgentClient", "AgentSilentError", "Document"]

Document = dict[str, Any]

_MAX_BODY_BYTES = 64 << 20  # 65,536 leases are 25 MB
_CHUNK_BYTES = 1 << 18
_OK = 200
_CONFLICT = 409
_MAX_HEAD_BYTES = 65_536
_HEAD = re.compile(
    rb"\S+ (?P<status>\d{3})\b(?:.*\r\n)*?Content-Length: *(?P<size>\d{1,18})\r\n(?:.+\r\n)*?\r\n",
    re.IGNORECASE,
)
_LEAST_S = 0.001
_SNDTIMEO_NEW = 67
_ANSWER = "hostmesh-agent's answer"
_START_HINT = "systemctl status hostmesh-agent; journalctl -u hostmesh-agent -n 20"


class AgentSilentError(AgentUnavailable):
    """The agent, or another program on its socket, did not answer in time."""


class AgentAbsentError(AgentUnavailable):
    """No process listens on the socket, so agentctl may look for itself."""


NO_ANSWER = (AgentAbsentError, AgentSilentError)
"""Errors after which a verb that only reads goes on without the agent."""


class _BrokenError(Exception):
    """The answer is not whole."""


class AgentClient:
    """Asks the agent on this host.

    Args:
        path: The control socket.
        timeout_s: How long one request may take from connecting to the last byte.
        clock: Monotonic seconds.
        progress: Says that an answer takes its time; None: nothing says so.
    """

    def __init__(
        self,
        path: Path,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        progress: Progress | None = None,
    ) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._clock = clock
        self._progress = progress or Progress(None)

    def get(self, target: str) -> Document:
        """Return a document. Raises as :meth:`post` does."""
        return self._document(*self._request("GET", target, None))

    def get_text(self, target: str) -> str:
        """Return text, such as metrics. Raises as :meth:`post` does."""
        status, data = self._request("GET", target, None)
        if status != _OK:
            self._document(status, data)
        return data.decode("utf-8", "replace")

    def post(self, target: str, body: Mapping[str, Any], *, waits_for: str = _ANSWER) -> Document:
        """Ask the agent to do something, and return its answer.

        Args:
            waits_for: What takes its time, for :class:`agent.progress.Progress`.

        Raises:
            AgentUnavailable: No answer, or none of hostmesh-agent's.
            AgentSilentError: No answer in time; the request may still be carried out.
            NotRoot: The socket may not be opened by this user.
            HostmeshError: The agent's own error, of the class that its code names.
        """
        return self._document(*self._request("POST", target, json.dumps(body).encode(), waits_for))

    def _request(
        self, method: str, target: str, body: bytes | None, waits_for: str = _ANSWER
    ) -> tuple[int, bytes]:
        try:
            with self._progress.waiting_for(waits_for, self._timeout_s):
                return self._exchange(method, target, body)
        except (TimeoutError, BlockingIOError):
            raise self._late(may_change=method == "POST") from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise self._absent() from None
        except PermissionError:
            if not _is_listened_on(self.path):  # left by an agent that was killed
                raise self._absent() from None
            raise NotRoot(
                f"this user may not open {self.path}",
                hint="run it as root, or join the group that agent.socket_group names",
            ) from None
        except (OSError, _BrokenError) as error:
            reason = str(error) or type(error).__name__
            raise AgentUnavailable(
                f"hostmesh-agent broke off its answer on {self.path}: {reason}", hint=_START_HINT
            ) from error

    def _exchange(self, method: str, target: str, body: bytes | None) -> tuple[int, bytes]:
        """Send one request on a new connection (RFC 9112); http.client costs 40 ms to import."""
        deadline_s = self._clock() + self._timeout_s
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            self._connect(connection)
            connection.settimeout(max(_LEAST_S, deadline_s - self._clock()))
            with contextlib.suppress(BrokenPipeError):  # it may answer before the request is sent
                connection.sendall(head.encode() + b"\r\n" + (body or b""))
            return self._read(connection, deadline_s)

    def _connect(self, connection: socket.socket) -> None:
        """Wait for a place in the queue of a busy agent; BlockingIOError when none becomes free.

        With Python's own timeout connect(2) does not block and is refused at once.
        """
        whole_s, part_s = divmod(max(_LEAST_S, self._timeout_s), 1)
        # SO_SNDTIMEO_NEW (asm-generic/socket.h): 64 bits of time on a machine of 32.
        form = "@qq" if socket.SO_SNDTIMEO == _SNDTIMEO_NEW else "@ll"
        deadline = struct.pack(form, int(whole_s), int(part_s * 1_000_000))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, deadline)
        connection.connect(str(self.path))

    def _absent(self) -> AgentAbsentError:
        return AgentAbsentError(
            f"hostmesh-agent is not running: nothing listens on {self.path}",
            hint=_START_HINT,
        )

    def _late(self, *, may_change: bool) -> AgentSilentError:
        hint = "it may be busy: wait, or give --timeout more; " + _START_HINT
        if may_change:
            hint = "see in agentctl status and agentctl events whether it began; " + _START_HINT
        return AgentSilentError(
            f"hostmesh-agent did not answer on {self.path} within {self._timeout_s:g} s"
            + ("; it drops the command unless it has begun" if may_change else ""),
            hint=hint,
        )

    def _read(self, connection: socket.socket, deadline_s: float) -> tuple[int, bytes]:
        """Return the status and the body of the answer."""
        received = bytearray()
        head = None
        while head is None or len(received) < head.end() + int(head["size"]):
            left_s = deadline_s - self._clock()
            if left_s <= 0:
                raise TimeoutError
            connection.settimeout(left_s)
            chunk = connection.recv(_CHUNK_BYTES)
            if not chunk:
                raise _BrokenError("the connection ended within the answer")
            received += chunk
            if head is None:
                # A copy, since a match keeps the buffer from growing.
                head = _HEAD.match(bytes(received))
                if head is None and (b"\r\n\r\n" in received or len(received) > _MAX_HEAD_BYTES):
                    raise _BrokenError("the answer is not hostmesh-agent's HTTP")
                if head is not None and int(head["size"]) > _MAX_BODY_BYTES:
                    raise _BrokenError(f"answer larger than {_MAX_BODY_BYTES} bytes")
        return int(head["status"]), bytes(received[head.end() :][: int(head["size"])])

    def _document(self, status: int, data: bytes) -> Document:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise AgentUnavailable(
                f"{self.path} does not answer as hostmesh-agent does (status {status})",
                hint="is it another program's socket? agent.run_dir names the agent's",
            )
        if status == _OK:
            return document
        raise _error_of(document, status)


def _is_listened_on(path: Path) -> bool:
    """Return whether a process has a unix socket of that name; True when not known.

    Compare the last part only: the process may have bound it by another path.
    """
    try:
        lines = Path("/proc/net/unix").read_text(errors="replace").splitlines()
    except OSError:
        return True
    return any(line.endswith(f"/{path.name}") for line in lines)


def _class_of(error: Mapping[str, Any], status: int) -> type[HostmeshError]:
    """Return the class of an error document of an agent of any version."""
    code, exit_code = error.get("code"), error.get("exit_code")
    classes: list[type[HostmeshError]] = [getattr(errors, name) for name in errors.__all__]
    by_code = [each for each in classes if each.code == code]
    # Older agents send no code, and UsageError's exit status for CannotTell, too.
    if not by_code and exit_code == UsageError.exit_code and status == _CONFLICT:
        return CannotTell
    # A newer agent may send a code that is not known here yet.
    by_exit_code = [each for each in classes if each.exit_code == exit_code]
    return next(iter(by_code + by_exit_code), HostmeshError)


def _error_of(document: Mapping[str, Any], status: int) -> HostmeshError:
    """Return the error of an error document."""
    error = document.get("error")
    if not isinstance(error, dict):
        return AgentUnavailable(f"hostmesh-agent answered with status {status} and no reason")
    message, hint = error.get("message"), error.get("hint")
    text = message if isinstance(message, str) and message else f"status {status}: {shown(error)}"
    cls, hint = _class_of(error, status), hint if isinstance(hint, str) else ""
    return cls((text,), hint=hint) if issubclass(cls, SettingsError) else cls(text, hint=hint)
