"""Calls from one thread to another that end with the client behind them.

A command may begin long after it was sent: the agent was frozen, or its loop was busy. The client
has then given up and has said so to the operator. The thread that serves the client sets here how
to find out. The first call of a command takes that along, and is cancelled if the client has gone.
Later calls do not: a command that has begun is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

__all__ = [
    "CallCancelled",
    "CallRunning",
    "IsWaiting",
    "ThreadCall",
    "always_waiting",
    "client_is_waiting",
    "serving",
]

_Answer = TypeVar("_Answer")
IsWaiting = Callable[[], bool]


def always_waiting() -> bool:
    """Return True: the agent itself waits for its own calls."""
    return True


_current: ContextVar[IsWaiting] = ContextVar("is_waiting", default=always_waiting)


def client_is_waiting() -> IsWaiting:
    """Return how to find out whether the client whose request this thread serves still waits."""
    return _current.get()


@contextmanager
def serving(is_waiting: IsWaiting) -> Iterator[None]:
    """Set how to find out whether the client of the request that this thread serves waits."""
    token = _current.set(is_waiting)
    try:
        yield
    finally:
        _current.reset(token)


class CallCancelled(Exception):
    """The call had not begun in time, or its client had gone: it never runs."""


class CallRunning(Exception):
    """The call had begun in time and has not ended: it goes on."""


class ThreadCall(Generic[_Answer]):
    """A function that one thread has another one run.

    Args:
        run: Called in the other thread, with the arguments of :meth:`execute`.
        is_waiting: Asked there before it begins.
    """

    def __init__(self, run: Callable[..., _Answer], is_waiting: IsWaiting = always_waiting) -> None:
        self._run = run
        self._is_waiting = is_waiting
        self._future: Future[_Answer] = Future()

    def execute(self, *given: object) -> None:
        """Run it unless it was cancelled or its client has gone, and wake the caller."""
        if not self._is_waiting():
            self._future.cancel()
        if not self._future.set_running_or_notify_cancel():
            return
        try:
            self._future.set_result(self._run(*given))
        except BaseException as error:
            self._future.set_exception(error)  # for the caller
            if not isinstance(error, Exception):
                raise

    def refuse(self, why: Exception) -> None:
        """Answer with an error instead of running it."""
        if self._future.set_running_or_notify_cancel():
            self._future.set_exception(why)

    def answer(self, begin_s: float, end_s: float = 0.0) -> _Answer:
        """Wait for the answer; cancel the call if it has not begun in time.

        Args:
            begin_s: How long to wait before it is cancelled.
            end_s: How much longer to wait once it has begun.

        Raises:
            CallCancelled: It did not begin.
            CallRunning: It has begun and not ended.
            BaseException: The function's.
        """
        late = wait((self._future,), begin_s).not_done
        if late and not self._future.cancel() and wait((self._future,), end_s).not_done:
            raise CallRunning
        try:
            return self._future.result(0)
        except CancelledError as error:
            raise CallCancelled from error
