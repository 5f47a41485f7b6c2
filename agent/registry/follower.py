"""Follow ranges of etcd: a complete snapshot, then a watch, for as long as it is wanted.

Whatever ends the watch (compaction, cancellation, silence, a broken connection) leads to a
new complete snapshot, and every view that is handed out is complete. No follower computes "what
was removed" here: views are compared by value by those who use them (promises 3 and 4).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import structlog

from agent import threads
from agent.errors import EtcdError, EtcdUnavailable
from agent.etcd.client import EtcdClient
from agent.etcd.kv import Event
from agent.etcd.watch import WatchStream
from agent.retry import Backoff

__all__ = ["PROGRESS_EVERY_S", "SILENCE_S", "Follower", "Records"]

_V = TypeVar("_V")
_V_co = TypeVar("_V_co", covariant=True)

_log = structlog.get_logger()

PROGRESS_EVERY_S = 7.5
"""An idle host asks etcd little more than this and three keep-alives in 30 s."""
SILENCE_S = 10.0
"""A watch that has not even answered a progress request for that long is dead.
With one call's deadline (5 s) on top, a stopped server is reported within 15 s."""

_COALESCE_S = 0.1
"""Responses that come while others are folded join the same view, for this long at most. Those that
were here before always do: a host short of processor time must not fall further behind."""

_NEVER_REPORTED = "never reported"
_STEADY_S = 10.0  # a watch that lived that long resets the back-off
_PATIENCE = 3
"""So many watches in a row that did not live that long, or were not even created, are reported: the
mesh is then read again and again instead."""


class Records(Protocol[_V_co]):
    """Records of one revision that events can be folded into."""

    @property
    def cluster_id(self) -> int:
        """Return etcd's cluster id."""

    @property
    def revision(self) -> int:
        """Return the revision at which all of it is true."""

    def apply(self, events: Sequence[Event]) -> bool:
        """Fold events in; return whether a view may differ now."""

    def view(self) -> _V_co:
        """See the records as one immutable value."""


class Follower(Generic[_V]):
    """A thread that calls back with every new view of some ranges.

    Both callbacks run on the follower's thread and must only post an event.

    Args:
        name: Of the thread.
        client: To etcd.
        ranges: To watch; the last one decides how far the watch has come.
        on_view: Called with a complete view after each batch of changes.
        on_problem: Called with the error when contact is lost (and again when its reason
            changes) and with None when it is there, for the first time or again; the second
            argument is the monotonic time of the last contact, in seconds (0.0: never).
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        client: EtcdClient,
        ranges: Sequence[tuple[bytes, bytes]],
        on_view: Callable[[_V], None],
        on_problem: Callable[[EtcdError | None, float], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._client = client
        self._ranges = ranges
        self._on_view = on_view
        self._on_problem = on_problem
        self._clock = clock
        self._stop = threading.Event()
        self._again = threading.Event()
        self._wanted = threading.Event()
        self._wanted.set()
        self._thread: threading.Thread | None = None
        self._stream: WatchStream | None = None
        self._problem: str | None = _NEVER_REPORTED
        self._last_contact_s = 0.0
        self._short_watches = 0

    def read(self) -> Records[_V]:
        """Take a complete snapshot.

        Raises:
            EtcdError: There is none, rather than a partial one.
        """
        raise NotImplementedError

    def is_urgent(self, events: Sequence[Event]) -> bool:
        """Return whether a view must be made before more events are folded in."""
        del events
        return False

    def rest(self) -> None:
        """Prepare to follow nothing until :meth:`follow`; on the follower's thread."""

    def start(self) -> None:
        """Start following. Call once."""
        self._thread = threads.start_thread(self._name, self._run)

    def stop(self) -> None:
        """Stop; returns within 2 s even if etcd hangs (the thread is a daemon)."""
        self._stop.set()
        self._wanted.set()
        self._wake()
        if self._thread is not None:
            self._thread.join(2.0)

    def look_again(self) -> None:
        """Take a new snapshot soon: what may be believed of a record has changed. Any thread."""
        self._again.set()
        self._wake()

    def follow(self, *, wanted: bool) -> None:
        """Follow only while the views are wanted, as they are at first. Any thread."""
        if wanted:
            self._wanted.set()
        else:
            self._wanted.clear()
            self._wake()

    def _wake(self) -> None:
        stream = self._stream
        if stream is not None:
            stream.wake()

    @property
    def last_contact_s(self) -> float:
        """Monotonic time when etcd last answered, 0.0 if never."""
        return self._last_contact_s

    def _run(self) -> None:
        backoff = Backoff()
        while not self._stop.is_set():
            if not self._wanted.is_set():
                self._problem = _NEVER_REPORTED
                self.rest()
                self._wanted.wait()
            started_s = self._clock()
            try:
                self._follow()
            except EtcdError as error:
                self._report(error)
            except Exception as error:  # noqa: BLE001  # the top of a thread
                threads.report_error(error)
                self._report(EtcdError("the follower met an unexpected error; see the log"))
            if self._clock() - started_s > _STEADY_S:
                backoff.reset()
            self._stop.wait(backoff.next_s())

    def _follow(self) -> None:
        """Take a snapshot and watch from the next revision until the watch ends.

        Raises:
            EtcdError: Why there is no snapshot or why the watch ended. What the watch ends
                with is not reported as lost contact: the next snapshot decides that.
        """
        self._again.clear()
        records = self.read()
        self._contact()
        self.publish(records)
        try:
            stream = self._client.watch(self._ranges, records.revision)
        except EtcdUnavailable as error:
            self._retry_later(error)
            return
        self._stream = stream
        try:
            if stream.cluster_id != records.cluster_id:  # replaced between the two
                raise EtcdUnavailable(f"{stream.connection.endpoint} is of another cluster now")
            if self._short_watches < _PATIENCE:
                self._report(None)
            self._drain(stream, records)
        except EtcdError as error:
            self._client.leave(stream, str(error))
            self._retry_later(error)
        finally:
            stream.close()

    def _drain(self, stream: WatchStream, records: Records[_V]) -> None:
        asked_s = heard_s = now_s = started_s = self._clock()
        while self._wanted.is_set() and not (self._stop.is_set() or self._again.is_set()):
            due_s = min(asked_s + PROGRESS_EVERY_S, heard_s + SILENCE_S)
            events = stream.next(due_s - now_s)
            now_s = self._clock()
            if events is not None:
                heard_s = now_s
                self._contact()
                if events:
                    self._fold(stream, records, list(events))
            if now_s - heard_s >= SILENCE_S:
                raise EtcdUnavailable(
                    f"{stream.connection.endpoint} has been silent for {now_s - heard_s:.0f} s",
                    hint="is etcd stopped there, or the network between cut?",
                )
            if self._short_watches and now_s - started_s > _STEADY_S:
                self._short_watches = 0
                self._report(None)
            if now_s - asked_s >= PROGRESS_EVERY_S:
                asked_s = now_s
                stream.request_progress()

    def _fold(self, stream: WatchStream, records: Records[_V], events: list[Event]) -> None:
        """Fold the responses that are already here into one view, so that a storm costs few views.

        Never wait for more: the first change must be acted on at once. Changes that precede an
        error are published before the error is raised.
        """
        try:
            here, until_s = stream.waiting, self._clock() + _COALESCE_S
            more: Sequence[Event] | None = events
            while more is not None and not self.is_urgent(more):
                if here <= 0 and self._clock() >= until_s:
                    break
                here -= 1
                more = stream.next(0.0)
                events.extend(more or ())
        finally:
            if records.apply(events):
                self.publish(records)

    def publish(self, records: Records[_V]) -> _V:
        """Call back with a view, and return it."""
        view = records.view()
        self._on_view(view)
        return view

    def _contact(self) -> None:
        self._last_contact_s = self._clock()

    def _retry_later(self, error: EtcdError) -> None:
        _log.info("etcd-watch-ended", reason=str(error), limit_key="watch")
        self._short_watches += 1
        if self._short_watches >= _PATIENCE:
            self._report(
                EtcdUnavailable(
                    f"etcd can be read and not be watched: {error.message}",
                    hint="changes are seen late; a proxy in between must let gRPC streams pass",
                )
            )

    def _report(self, error: EtcdError | None) -> None:
        """Tell about a change of contact once."""
        reason = None if error is None else str(error)
        if reason == self._problem or self._stop.is_set():
            return
        before, self._problem = self._problem, reason
        if error is None:
            _log.info("etcd-contact" if before is _NEVER_REPORTED else "etcd-contact-regained")
        elif before in {None, _NEVER_REPORTED}:
            _log.warning("etcd-contact-lost", reason=reason, limit_key="lost")
        self._on_problem(error, self._last_contact_s)
