"""Jobs at etcd that must not run on the loop's thread: one at a time, repeated until it works."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from agent.errors import HostmeshError
from agent.model import Condition, Severity
from agent.retry import jittered
from agent.threads import start_thread

__all__ = ["RetryingJob"]

_RETRY_S = 5.0


class RetryingJob:
    """Runs one kind of job off the loop. Its changes come back as a view of etcd.

    Args:
        condition: Name of the condition that is active while the job fails.
        on_end: Called on the job's thread when a try has ended.
        retry_s: Pause between two tries, give or take a fifth.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        condition: str,
        on_end: Callable[[], None],
        retry_s: float = _RETRY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._condition = condition
        self._on_end = on_end
        self._retry_s = retry_s
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._not_before_s = 0.0
        self._problem: HostmeshError | None = None

    def ensure(self, job: Callable[[], object]) -> tuple[Condition, ...]:
        """Start a try unless one is under way or has just been made. Never blocks.

        Returns:
            Why the last try failed, as a condition; nothing when it did not.
        """
        idle = self._thread is None or not self._thread.is_alive()
        if idle and self._clock() >= self._not_before_s:
            self._not_before_s = self._clock() + jittered(self._retry_s)
            self._thread = start_thread("retrying-job", partial(self._run, job))
        problem = self._problem
        if problem is None:
            return ()
        return (
            Condition(
                name=self._condition,
                severity=Severity.ERROR,
                cause=problem.message,
                hint=problem.hint or "it is tried again",
            ),
        )

    def _run(self, job: Callable[[], object]) -> None:
        try:
            job()
        except HostmeshError as error:
            self._problem = error
        else:
            self._problem = None
        self._on_end()
