"""Report unexpected exceptions of threads: a condition for each thread (promise 9)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from agent.model import Condition, Severity

__all__ = ["ThreadErrors"]

_REMEMBERED = 8
_TEXT = 200


@dataclass(frozen=True, slots=True)
class _ThreadError:
    text: str
    times: int


class ThreadErrors:
    """Reports exceptions at the top of a thread (``threading.excepthook``). Any thread.

    Each is a bug: its condition stays until the agent is started again.

    Args:
        on_change: Called on the thread that failed with all conditions; must not block.
    """

    def __init__(self, on_change: Callable[[tuple[Condition, ...]], None]) -> None:
        self._on_change = on_change
        self._lock = threading.Lock()
        self._by_thread: OrderedDict[str, _ThreadError] = OrderedDict()
        self._log = structlog.get_logger("agent")

    def __call__(self, args: threading.ExceptHookArgs) -> None:
        """Log it with its traceback, and report the conditions."""
        if args.exc_value is None:
            return
        name = args.thread.name if args.thread is not None else "unknown"
        self._log.error(
            "thread-failed",
            thread=name,
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
            limit_key=name,
        )
        text = f"{args.exc_type.__name__}: {args.exc_value}"[:_TEXT]
        with self._lock:
            before = self._by_thread.pop(name, None)
            self._by_thread[name] = _ThreadError(text, before.times + 1 if before else 1)
            while len(self._by_thread) > _REMEMBERED:
                self._by_thread.popitem(last=False)
            found = tuple(_condition(*each) for each in self._by_thread.items())
        self._on_change(found)


def _condition(thread: str, error: _ThreadError) -> Condition:
    times = f" ({error.times} times)" if error.times > 1 else ""
    return Condition(
        name="agent-thread-failed",
        subject=thread,
        severity=Severity.ERROR,
        cause=f"the agent's thread {thread} raised an unexpected exception{times}: {error.text}",
        hint="report this bug with agentctl bugreport; the agent goes on, and systemctl restart"
        " hostmesh-agent is safe at any time",
    )
