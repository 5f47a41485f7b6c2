"""The top of a thread: report unexpected exceptions and keep the thread running.

A thread that ends by a bug would take a part of the agent with it unseen: the routes are still
there, but nothing repairs them. The daemon sets ``threading.excepthook`` to its own, which raises a
condition.

:class:`Poller` is one thread for everything that waits on sockets, :class:`Jobs` one for work that
waits elsewhere, such as for a name server, and is due now and then.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from agent.retry import Backoff

__all__ = ["Job", "Jobs", "Poller", "Source", "Wait", "report_error", "start_thread"]

_FIRST_S = 1.0
_LONGEST_S = 60.0
_STOP_S = 2.0
_T = TypeVar("_T")


def start_thread(name: str, call: Callable[[], object]) -> threading.Thread:
    """Run ``call`` on a thread of its own that does not keep the process alive.

    Raises:
        RuntimeError: No thread can be had now.
    """
    thread = threading.Thread(target=call, name=name, daemon=True)
    thread.start()
    return thread


def report_error(error: Exception) -> None:
    """Report an exception that this thread survives, as Python reports one that ends a thread."""
    this = threading.current_thread()
    threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, this)))


class _Guard:
    """Calls a component, reports its exceptions in its name, and spaces calls that fail."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._backoff = Backoff(_FIRST_S, _LONGEST_S)
        self.rests_until_s: float | None = None

    def call(self, call: Callable[[], _T]) -> _T | None:
        """Return what ``call`` does; None after an exception."""
        this = threading.current_thread()
        thread, this.name = this.name, self._name
        try:
            answer = call()
        except Exception as error:  # noqa: BLE001 - the top of a thread
            report_error(error)
            self.rests_until_s = time.monotonic() + self._backoff.next_s()
            return None
        finally:
            this.name = thread
        self._backoff.reset()
        self.rests_until_s = None
        return answer


@dataclass(frozen=True, slots=True)
class Wait:
    """The descriptors and the deadline of a source.

    Attributes:
        readable: Descriptors; one with something to read is enough.
        until_s: Monotonic time at which the source is served in any case.
    """

    readable: tuple[int, ...] = ()
    until_s: float = math.inf


class Source(Protocol):
    """A component that a :class:`Poller` serves, on the poller's thread."""

    @property
    def name(self) -> str:
        """Return the thread's name while it serves this source, for errors and the log."""
        ...

    def waits_for(self) -> Wait:
        """Return what to wait for now."""
        ...

    def serve(self, ready: frozenset[int]) -> None:
        """Do what is due, without waiting: the other sources wait meanwhile.

        Args:
            ready: Which of the descriptors have something to read.
        """
        ...


class Poller:
    """One thread that waits on the sockets and deadlines of several sources.

    It starts with the first source, in the network namespace of that caller, and ends with the
    last. A source that raises is reported and rests for a while; the others are served meanwhile.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._served: dict[Source, _Served] = {}
        self._serving: Source | None = None
        self._wake_fd: int | None = None

    def add(self, source: Source) -> None:
        """Serve ``source`` from now on."""
        with self._changed:
            self._served[source] = _Served(source)
            if self._wake_fd is None:
                self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                start_thread(self._name, self._run)
        self.wake()

    def remove(self, source: Source, timeout_s: float = _STOP_S) -> bool:
        """Serve ``source`` no more; harmless when it is not served.

        Returns:
            False when it is still being served after ``timeout_s``.
        """
        with self._changed:
            self._served.pop(source, None)
            self.wake()
            return self._changed.wait_for(lambda: self._serving is not source, timeout_s)

    def wake(self) -> None:
        """Ask all sources again what they wait for. Any thread."""
        with self._changed:
            if self._wake_fd is not None:
                os.eventfd_write(self._wake_fd, 1)

    def _run(self) -> None:
        while (sources := self._sources()) is not None:
            wake_fd, served = sources
            for each, ready in _ready(served, wake_fd):
                if self._serve_now(each):
                    each.serve(ready)

    def _sources(self) -> tuple[int, tuple[_Served, ...]] | None:
        """Return what is served now; None, with no descriptor left open, when that is nothing."""
        with self._changed:
            self._serving = None
            self._changed.notify_all()
            wake_fd = self._wake_fd
            if wake_fd is not None and self._served:
                return wake_fd, tuple(self._served.values())
            if wake_fd is not None:
                os.close(wake_fd)
            self._wake_fd = None
            return None

    def _serve_now(self, each: _Served) -> bool:
        """Note which source is being served, unless it was removed."""
        with self._changed:
            present = self._served.get(each.source) is each
            self._serving = each.source if present else None
            self._changed.notify_all()
            return present


class _Served:
    """A source, and for how long it rests after it failed."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._looks, self._serves = _Guard(source.name), _Guard(source.name)

    def waits_for(self) -> Wait:
        """Return what the source waits for, or the end of its rest."""
        if self._serves.rests_until_s is not None:
            return Wait(until_s=self._serves.rests_until_s)
        found = self._looks.call(self.source.waits_for)
        return found or Wait(until_s=self._looks.rests_until_s or 0.0)

    def serve(self, ready: frozenset[int]) -> None:
        """Have the source do what is due."""
        self._serves.call(lambda: self.source.serve(ready))


def _ready(served: tuple[_Served, ...], wake_fd: int) -> Iterator[tuple[_Served, frozenset[int]]]:
    """Wait until a source is due or the poller is woken; yield who is due, and by what."""
    waits = [(each, each.waits_for()) for each in served]
    poller = select.poll()
    for number in (wake_fd, *(each for _, wait in waits for each in wait.readable)):
        if number >= 0:  # else it was closed a moment ago
            poller.register(number, select.POLLIN)
    until_s = min(wait.until_s for _, wait in waits)
    left_s = max(0.0, until_s - time.monotonic())
    ready = {number for number, _ in poller.poll(None if math.isinf(left_s) else left_s * 1000 + 1)}
    if wake_fd in ready:
        os.eventfd_read(wake_fd)
    for each, wait in waits:
        mine = ready.intersection(wait.readable)
        if mine or wait.until_s <= time.monotonic():
            yield each, frozenset(mine)


class Job(Protocol):
    """Work that may wait, such as a question to a name server, and is done again and again."""

    @property
    def name(self) -> str:
        """Return the thread's name meanwhile, for errors and the log."""
        ...

    def run(self) -> float:
        """Do it once; return the seconds until it is due again, infinity for never."""
        ...


@dataclass(slots=True)
class _Scheduled:
    guard: _Guard
    due_s: float


class Jobs:
    """Runs the jobs that are due, one after the other, on a thread that ends when none is.

    Args:
        poller: Starts that thread; None: one of its own.
    """

    name = "jobs"

    def __init__(self, poller: Poller | None = None) -> None:
        self._poller = poller or Poller(self.name)
        self._lock = threading.Lock()
        self._jobs: dict[Job, _Scheduled] = {}
        self._running = False

    def add(self, job: Job, in_s: float = 0.0) -> None:
        """Run ``job`` in ``in_s`` seconds, and from then on when it is due."""
        with self._lock:
            self._jobs[job] = _Scheduled(_Guard(job.name), time.monotonic() + in_s)
        self._poller.add(self)

    def remove(self, job: Job) -> None:
        """Run ``job`` no more. It is not waited for: a name server may hang."""
        with self._lock:
            self._jobs.pop(job, None)
            last = not self._jobs
        if last:
            self._poller.remove(self)

    def hurry(self, job: Job) -> None:
        """Run ``job`` now; once more if it runs already. Any thread."""
        with self._lock:
            if job in self._jobs:
                self._jobs[job].due_s = 0.0
        self._poller.wake()

    def waits_for(self) -> Wait:
        """Return when the next job is due; never while the thread runs, which looks itself."""
        with self._lock:
            due_s = () if self._running else (each.due_s for each in self._jobs.values())
            return Wait(until_s=min(due_s, default=math.inf))

    def serve(self, ready: frozenset[int]) -> None:
        """Start the thread."""
        del ready
        with self._lock:
            self._running = True
        try:
            start_thread(self.name, self._run)
        except RuntimeError:
            with self._lock:
                self._running = False
            raise

    def _run(self) -> None:
        while (found := self._next()) is not None:
            job, scheduled = found
            pause_s = scheduled.guard.call(job.run)
            due_s = scheduled.guard.rests_until_s or time.monotonic() + (pause_s or 0.0)
            with self._lock:  # it may be hurried meanwhile
                scheduled.due_s = min(scheduled.due_s, due_s)
        self._poller.wake()

    def _next(self) -> tuple[Job, _Scheduled] | None:
        with self._lock:
            now_s = time.monotonic()
            due = next((item for item in self._jobs.items() if item[1].due_s <= now_s), None)
            self._running = due is not None
            if due is not None:
                due[1].due_s = math.inf
            return due
