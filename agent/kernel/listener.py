"""A netlink socket that a poller listens on; another is opened when it breaks.

Losing messages is normal under load: the kernel says ENOBUFS, and the socket stays in error. Then
there is a new socket, and the receiver of events learns that messages may have been lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import structlog

from agent.errors import KernelError
from agent.retry import Backoff
from agent.threads import Poller, Wait

__all__ = ["Listener", "Listening"]

_log = structlog.get_logger(__name__)

_REOPEN_FIRST_S: Final = 0.05
_REOPEN_MOST_S: Final = 5.0


class _Socket(Protocol):
    def fileno(self) -> int: ...

    def close(self) -> None: ...


_S = TypeVar("_S", bound=_Socket)
_E = TypeVar("_E")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening(Generic[_S, _E]):
    """A source of events, and how to listen to it.

    Attributes:
        name: Of the source; names the log's events too.
        open: A subscribed socket; raises OSError or KernelError when there is none to be had.
        drain: Everything queued as one event, None when nothing of it matters; raises OSError
            when messages were lost, and may raise ValueError for nonsense.
        lost: The event that says "messages may have been lost".
        on_event: Called on the poller's thread; must be quick and must not raise, for example
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
    """Listens in the network namespace of the thread that calls :meth:`start`.

    Args:
        listening: What to listen to.
        poller: Shared with other sources; None: one of its own.
    """

    def __init__(self, listening: Listening[_S, _E], poller: Poller | None = None) -> None:
        self._what = listening
        self._poller = poller or Poller(listening.name)
        self._missed = False
        self._wait_until_s = 0.0
        self._reopening = Backoff(_REOPEN_FIRST_S, _REOPEN_MOST_S)
        self.socket: _S | None = None
        """The socket in use, None before :meth:`start` and while it is broken."""

    @property
    def name(self) -> str:
        """The thread's name while it serves this."""
        return self._what.name

    def start(self) -> None:
        """Subscribe, then start the thread: what is listed after this is never stale unnoticed.

        Raises:
            OSError, KernelError: What ``Listening.open`` raises.
        """
        self.socket = self._what.open()
        self._poller.add(self)

    def stop(self) -> None:
        """Listen no more; returns within two seconds. Harmless when it does not run."""
        if not self._poller.remove(self):
            _log.warning(f"{self.name}-stop-slow")
        elif self.socket is not None:
            self.socket.close()

    def waits_for(self) -> Wait:
        """Return the socket, or when to open another or to go on after an event."""
        now_s = time.monotonic()
        if self.socket is None or self._missed or now_s < self._wait_until_s:
            return Wait(until_s=self._wait_until_s)
        number = self.socket.fileno()
        return Wait((number,)) if number >= 0 else Wait(until_s=now_s)

    def serve(self, ready: frozenset[int]) -> None:
        """Hand on what has come as one event, then rest so that what follows is coalesced."""
        del ready
        event = self._next(self.socket or self._reopen())
        if event is not None:
            self._wait_until_s = time.monotonic() + self._what.coalesce_s
            self._what.on_event(event)

    def _next(self, current: _S | None) -> _E | None:
        """Return what has come; None when none of it matters, or without a socket."""
        if current is None:
            return None
        if self._missed:
            self._missed = False
            return self._what.lost
        self._missed = True  # what a failing drain has read is gone
        try:
            event = self._what.drain(current)
        except (OSError, ValueError) as error:
            _log.warning(f"{self.name}-overrun", problem=str(error))
            current.close()
            self.socket = None
            return self._next(self._reopen())
        self._missed = False
        return event

    def _reopen(self) -> _S | None:
        """Return a new socket; None when there is none yet, and it is tried again later."""
        try:
            self.socket = self._what.open()
        except (OSError, KernelError) as error:
            again_in_s = self._reopening.next_s()
            _log.warning(
                f"{self.name}-reopen-failed", problem=str(error), again_in_s=round(again_in_s, 2)
            )
            self._wait_until_s = time.monotonic() + again_in_s
        else:
            self._reopening.reset()
        return self.socket
