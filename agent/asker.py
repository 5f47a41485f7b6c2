"""Orders from one thread to another, and whether the client behind one still waits.

A command may begin long after it was sent: the agent was frozen, or its loop was busy. The client
has then given up and has said so to the operator. The thread that serves the client states here how
to find out. An order that is the first step of a command takes that along, and is withdrawn if its
client has gone. Later steps do not: a command that has begun is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

__all__ = ["GoesOn", "IsWaiting", "Order", "Withdrawn", "always", "asked_by", "current"]

_Answer = TypeVar("_Answer")
IsWaiting = Callable[[], bool]


def always() -> bool:
    """Whether the agent itself still waits for what it ordered."""
    return True


_current: ContextVar[IsWaiting] = ContextVar("is_waiting", default=always)


def current() -> IsWaiting:
    """Return how to find out whether the client whose request this thread serves still waits."""
    return _current.get()


@contextmanager
def asked_by(is_waiting: IsWaiting) -> Iterator[None]:
    """State for the request that this thread serves how to find out whether its client waits."""
    token = _current.set(is_waiting)
    try:
        yield
    finally:
        _current.reset(token)


class Withdrawn(Exception):
    """The order had not begun in time, or its client had gone: it is not done and will not be."""


class GoesOn(Exception):
    """The order had begun in time and was not done: it goes on."""


class Order(Generic[_Answer]):
    """What one thread asks of another, which carries it out when it gets to it.

    Args:
        run: Called in the thread that carries the order out.
        is_waiting: Asked there before it begins.
    """

    def __init__(self, run: Callable[[], _Answer], is_waiting: IsWaiting = always) -> None:
        self._run = run
        self._is_waiting = is_waiting
        self._future: Future[_Answer] = Future()

    def carry_out(self) -> None:
        """Do it unless it was withdrawn or its client has gone, and wake the asker."""
        if not self._is_waiting():
            self._future.cancel()
        if not self._future.set_running_or_notify_cancel():
            return
        try:
            self._future.set_result(self._run())
        except BaseException as error:
            self._future.set_exception(error)  # the asker's, whose question it was
            if not isinstance(error, Exception):
                raise

    def refuse(self, why: Exception) -> None:
        """Answer with an error instead of carrying it out."""
        if self._future.set_running_or_notify_cancel():
            self._future.set_exception(why)

    def answer(self, begin_s: float, end_s: float = 0.0) -> _Answer:
        """Wait for the answer; withdraw the order if it has not begun in time.

        Args:
            begin_s: How long to wait before it is withdrawn.
            end_s: How much longer to wait once it has begun.

        Raises:
            Withdrawn: It was not begun.
            GoesOn: It was begun and is not done.
            BaseException: What it raised.
        """
        late = wait((self._future,), begin_s).not_done
        if late and not self._future.cancel() and wait((self._future,), end_s).not_done:
            raise GoesOn
        try:
            return self._future.result(0)
        except CancelledError as error:
            raise Withdrawn from error
