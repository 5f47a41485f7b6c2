"""HTTP over the agent's unix socket, and its errors as ours."""

from __future__ import annotations

import contextlib
import json
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
from agent.settings.text import shown

__all__ = ["NO_ANSWER", "AgentAbsentError", "AgentClient", "AgentSilentError", "Document"]

Document = dict[str, Any]

_MAX_BODY_BYTES = 64 << 20  # 65,536 leases are 25 MB
_CHUNK_BYTES = 1 << 18
_OK = 200
_CONFLICT = 409
_HEAD_ENDS = b"\r\n\r\n"
_MAX_HEAD_BYTES = 65_536
_STATUS_WORDS = 2
_LEAST_S = 0.001
_SNDTIMEO_NEW = 67
_START_HINT = "systemctl status hostmesh-agent; journalctl -u hostmesh-agent -n 20"


class AgentSilentError(AgentUnavailable):
    """The agent runs, or something on its socket does, but did not answer in time."""


class AgentAbsentError(AgentUnavailable):
    """Nobody listens on the socket: no agent runs here, and others may answer for it."""


NO_ANSWER = (AgentAbsentError, AgentSilentError)
"""What only looks goes on without the agent then; what changes something does not beside one."""


class _BrokenError(Exception):
    """What came is not a whole answer."""


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
            HostmeshError: The agent's own error, of the class that its code names.
        """
        return self._document(*self._request("POST", target, json.dumps(body).encode()))

    def _request(self, method: str, target: str, body: bytes | None) -> tuple[int, bytes]:
        try:
            return self._exchange(method, target, body)
        except (TimeoutError, BlockingIOError):
            raise self._late(may_change=method == "POST") from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise self._absent() from None
        except PermissionError:
            if not _is_listened_on(self.path):  # what an agent that was killed left behind
                raise self._absent() from None
            raise NotRoot(
                f"this user may not open {self.path}",
                hint="run it as root, or join the group that agent.socket_group names",
            ) from None
        except (OSError, _BrokenError) as error:
            raise AgentUnavailable(
                f"hostmesh-agent broke off on {self.path}: {error or type(error).__name__}",
                hint=_START_HINT,
            ) from error

    def _exchange(self, method: str, target: str, body: bytes | None) -> tuple[int, bytes]:
        """One request on a connection of its own (RFC 9112); http.client costs 40 ms to import."""
        deadline_s = self._clock() + self._timeout_s
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            self._connect(connection)
            connection.settimeout(max(_LEAST_S, deadline_s - self._clock()))
            with contextlib.suppress(BrokenPipeError):  # it may be answered before it was asked
                connection.sendall(head.encode() + b"\r\n" + (body or b""))
            return self._read(connection, deadline_s)

    def _connect(self, connection: socket.socket) -> None:
        """Wait for a place in the queue of a busy agent; BlockingIOError when none gets free.

        Python's own deadline would not: connect(2) without blocking is refused at once there.
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
            hint = "agentctl status and agentctl events show whether it had begun; " + _START_HINT
        return AgentSilentError(
            f"hostmesh-agent did not answer on {self.path} within {self._timeout_s:g} s"
            + ("; it drops the command unless it has begun" if may_change else ""),
            hint=hint,
        )

    def _read(self, connection: socket.socket, deadline_s: float) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        received = bytearray()
        status, begins, ends = 0, 0, -1
        while ends < 0 or len(received) < ends:
            left_s = deadline_s - self._clock()
            if left_s <= 0:
                raise TimeoutError
            connection.settimeout(left_s)
            chunk = connection.recv(_CHUNK_BYTES)
            if not chunk:
                raise _BrokenError("it ended within its answer")
            received += chunk
            if not begins and (found := received.find(_HEAD_ENDS)) >= 0:
                begins = found + len(_HEAD_ENDS)
                status, size = _head_of(bytes(received[:found]))
                if size > _MAX_BODY_BYTES:
                    raise _BrokenError(f"answer larger than {_MAX_BODY_BYTES} bytes")
                ends = begins + size
            elif not begins and len(received) > _MAX_HEAD_BYTES:
                raise _BrokenError("it does not speak HTTP")
        return status, bytes(received[begins:ends])

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


def _is_listened_on(path: Path) -> bool:
    """Whether a process holds a unix socket of that name; True when it cannot be told.

    By the last part of the name: the process may have bound it by another way there.
    """
    try:
        lines = Path("/proc/net/unix").read_text(errors="replace").splitlines()
    except OSError:
        return True
    return any(line.endswith(f"/{path.name}") for line in lines)


def _head_of(head: bytes) -> tuple[int, int]:
    """The status and the body's size in bytes that the head of an answer tells."""
    first, *fields = head.split(b"\r\n")
    size = b""
    for field in fields:
        name, _, value = field.partition(b":")
        if name.lower() == b"content-length":
            size = value.strip()
    words = first.split(b" ")
    if len(words) < _STATUS_WORDS or not words[1].isdigit() or not size.isdigit():
        raise _BrokenError("it does not speak HTTP as hostmesh-agent does")
    return int(words[1]), int(size)


def _class_of(error: Mapping[str, Any], status: int) -> type[HostmeshError]:
    """Return the class that an error document of an agent of any version means."""
    code, exit_code = error.get("code"), error.get("exit_code")
    classes = [getattr(errors, name) for name in errors.__all__]
    by_code: dict[object, type[HostmeshError]] = {each.code: each for each in classes}
    by_exit_code: dict[object, type[HostmeshError]] = {each.exit_code: each for each in classes}
    if isinstance(code, str) and code in by_code:
        return by_code[code]
    # An older agent sends no code, and the exit status of UsageError for CannotTell, too.
    if exit_code == UsageError.exit_code and status == _CONFLICT:
        return CannotTell
    # A newer agent may send a code of a class that is not known here yet.
    return (
        by_exit_code.get(exit_code, HostmeshError) if isinstance(exit_code, int) else HostmeshError
    )


def _error_of(document: Mapping[str, Any], status: int) -> HostmeshError:
    """Make of the agent's error document the error that it was there."""
    error = document.get("error")
    if not isinstance(error, dict):
        return AgentUnavailable(f"hostmesh-agent answered with status {status} and no reason")
    message, hint = error.get("message"), error.get("hint")
    text = message if isinstance(message, str) and message else f"status {status}: {shown(error)}"
    cls, hint = _class_of(error, status), hint if isinstance(hint, str) else ""
    return cls((text,), hint=hint) if issubclass(cls, SettingsError) else cls(text, hint=hint)
