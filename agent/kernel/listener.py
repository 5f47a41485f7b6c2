"""A thread that listens on a netlink socket and opens another when it breaks.

Losing messages is normal under load: the kernel says ENOBUFS, and the socket stays in error. Then
there is a new socket, and whoever listens is told that something may have been missed.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import structlog

from agent import threads
from agent.errors import KernelError

__all__ = ["Listener", "Listening"]

_log = structlog.get_logger(__name__)

_REOPEN_FIRST_S: Final = 0.05
_REOPEN_MOST_S: Final = 5.0
_STOP_S: Final = 2.0
_MISHAP_S: Final = 1.0


class _Socket(Protocol):
    def fileno(self) -> int: ...

    def close(self) -> None: ...


_S = TypeVar("_S", bound=_Socket)
_E = TypeVar("_E")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening(Generic[_S, _E]):
    """What is listened to, and how.

    Attributes:
        name: Of the thread; names the log's events too.
        open: A subscribed socket; raises OSError or KernelError when there is none to be had.
        drain: Everything queued as one event, None when nothing of it matters; raises OSError
            when messages were lost, and may raise ValueError for nonsense.
        lost: The event that says "messages may have been lost".
        on_event: Called on the listener's thread; must be quick and must not raise, for example
            a queue's put.
        coalesce_s: Shortest time between two events.
    """

    name: str
    open: Callable[[], _S]
    drain: Callable[[_S], _E | None]
    lost: _E
    on_event: Callable[[_E], None]
    coalesce_s: float


class Listener(Generic[_S, _E]):
    """Listens in the network namespace of the thread that calls :meth:`start`."""

    def __init__(self, listening: Listening[_S, _E]) -> None:
        self._what = listening
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._wake_out, self._wake_in = socket.socketpair()
        self.socket: _S | None = None
        """The socket in use, None before :meth:`start`. Replaced when it broke."""

    def start(self) -> None:
        """Subscribe, then start the thread: what is listed after this is never stale unnoticed.

        Raises:
            OSError, KernelError: What ``Listening.open`` raises.
        """
        self.socket = self._what.open()
        self._thread = threading.Thread(target=self._run, name=self._what.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, within two seconds. Harmless when it does not run."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._wake_in.send(b"\0")
        if self._thread is not None:
            self._thread.join(_STOP_S)
            if self._thread.is_alive():
                _log.warning(f"{self._what.name}-stop-slow", waited_s=_STOP_S)
                return
        self._wake_in.close()
        self._wake_out.close()
        if self.socket is not None:
            self.socket.close()

    def _run(self) -> None:
        threads.go_on(self._turn, self._stopping)

    def _turn(self) -> None:
        event = self._next()
        if event is not None and not self._stopping.is_set():
            self._what.on_event(event)
            self._stopping.wait(self._what.coalesce_s)

    def _next(self) -> _E | None:
        """Wait for what comes next; None when none of it matters, or when told to stop."""
        current = self.socket
        if current is None:
            raise RuntimeError(f"{self._what.name} runs without a socket")
        try:
            self._wait_for(current)
            return None if self._stopping.is_set() else self._what.drain(current)
        except (OSError, ValueError) as error:
            _log.warning(f"{self._what.name}-overrun", problem=str(error))
            return self._what.lost if self._reopen() else None
        except Exception as error:  # noqa: BLE001 - what it read is gone: that must be told
            threads.tell(error)
            self._stopping.wait(_MISHAP_S)
            return self._what.lost

    def _wait_for(self, current: _S) -> None:
        poller = select.poll()
        poller.register(current.fileno(), select.POLLIN)
        poller.register(self._wake_out.fileno(), select.POLLIN)
        poller.poll()

    def _reopen(self) -> bool:
        """A new socket, however long it takes. False when told to stop meanwhile."""
        if self.socket is not None:
            self.socket.close()
        wait_s = _REOPEN_FIRST_S
        while not self._stopping.is_set():
            try:
                self.socket = self._what.open()
            except (OSError, KernelError) as error:
                _log.warning(
                    f"{self._what.name}-reopen-failed", problem=str(error), again_in_s=wait_s
                )
                self._stopping.wait(wait_s)
                wait_s = min(wait_s * 2, _REOPEN_MOST_S)
            else:
                return True
        return False
