"""One watch as an object that can be waited on with a deadline, and that always ends.

gRPC's response iterator blocks without a deadline, so a thread of the stream's own moves
responses to a queue. Silence, cancellation, compaction and a broken connection all end in
an exception from :meth:`WatchStream.next`; the caller then takes a new snapshot.

**Several ranges on one stream.** etcd orders the events of one range. Those of two ranges it orders
only while it has caught up with both. It has not right after a range was created, and after the
client read too slowly: then it reads history for each range and sends that of one before that of
the other. So the *last* range decides how far the stream has come. Its events are given out at
once. Events of the other ranges wait until the last one has passed their revision: it has an event
of a later revision, or it was quiet for :data:`_QUIET_S` and etcd's answer to a progress request
says so. So no event of another range is seen before one of the last range that precedes it. The
opposite can happen: what the other ranges say may be older than the last revision.

A progress answer counts for all ranges since etcd 3.4.25 and 3.5.8 (etcd #15220). Earlier ones may
send it ahead of events that wait, but these follow within :data:`_QUIET_S`: etcd looks for ranges
that are behind every 0.1 s. Without an answer the events wait for :data:`_HELD_S`.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from agent.errors import EtcdAuthError, EtcdError, EtcdUnavailable
from agent.etcd.connections import Connection
from agent.etcd.errors import CompactedError, translate
from agent.etcd.etcd3_compat import grpc, rpc
from agent.etcd.kv import Event, Record

__all__ = ["WatchStream"]

_PROGRESS = rpc.WatchRequest.FromString(b"\x1a\x00")
"""``WatchRequest{progress_request: {}}``, field 3. etcd3's messages are older than the field
and keep it as an unknown one, which protobuf sends on (etcd >= 3.4 answers it)."""

_END: Any = None
_WAKE: Any = object()
_QUEUE_LENGTH = 1024
"""Responses waiting to be folded. When full, gRPC's flow control holds back the server."""

_QUIET_S = 0.25
_HELD_S = 1.0
_ASK_EVERY_S = 0.1


class WatchStream:
    """A watch over ranges of keys, for events after one revision.

    Args:
        connection: Where to watch.
        metadata: Token and hasleader.
        ranges: Each [start, end); the last one decides how far the stream has come.
        after: Events of later revisions are wanted.
        timeout_s: Deadline for etcd to confirm the watch.

    Raises:
        EtcdUnavailable, EtcdAuthError, CompactedError, EtcdError: It was not created.
    """

    def __init__(
        self,
        connection: Connection,
        metadata: tuple[tuple[str, str], ...],
        *,
        ranges: Sequence[tuple[bytes, bytes]],
        after: int,
        timeout_s: float,
    ) -> None:
        self.connection = connection
        self.cluster_id = 0
        """etcd's cluster id, as the answer that confirmed the watch says it."""
        self._after = after
        self._last_range = 0
        self._held: list[Event] = []
        self._quiet_from_s = 0.0
        self._answered = 0
        self._early: deque[Any] = deque()
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._responses: queue.Queue[Any] = queue.Queue(_QUEUE_LENGTH)
        self._closed = threading.Event()
        for start, end in ranges:
            # From ``after`` on, since etcd answers no progress request while a range starts in the
            # future (since 3.4.38, 3.5.22 and 3.6.2); a mesh where nothing changes would look dead.
            create = rpc.WatchCreateRequest(key=start, range_end=end, start_revision=after)
            self._requests.put(rpc.WatchRequest(create_request=create))
        self._call = connection.watch.Watch(iter(self._requests.get, _END), metadata=metadata)
        self._reader = threading.Thread(target=self._read, name="etcd-watch-reader", daemon=True)
        self._reader.start()
        try:
            self._await_created(len(ranges), timeout_s)
        except BaseException:
            self.close()
            raise

    @property
    def waiting(self) -> int:
        """How many responses are already here."""
        return self._responses.qsize()

    def request_progress(self) -> None:
        """Ask etcd to answer with its revision, to tell a quiet watch from a dead one."""
        self._requests.put(_PROGRESS)

    def next(self, timeout_s: float) -> tuple[Event, ...] | None:
        """Wait for the next response.

        Returns:
            Its events, () for a progress answer, None when nothing came in ``timeout_s`` or
            before :meth:`wake`.

        Raises:
            CompactedError, EtcdUnavailable, EtcdAuthError, EtcdError: The watch has ended.
        """
        until_s = time.monotonic() + timeout_s
        while True:
            if ripe := self._ripe():
                return ripe
            left_s = until_s - time.monotonic()
            wait_s = min(left_s, _ASK_EVERY_S) if self._held else left_s
            response = self._early.popleft() if self._early else self._take(wait_s)
            if response is _WAKE:
                return None
            if response is None:
                if time.monotonic() >= until_s:
                    return None
                self.request_progress()  # etcd gives no answer while it catches up
                continue
            self._check(response)
            events = tuple(each for each in _events(response) if each.revision > self._after)
            if events or not response.events:  # else they are in the snapshot
                return self._in_order(response, events)

    def _in_order(
        self,
        response: Any,  # noqa: ANN401 - generated message
        events: tuple[Event, ...],
    ) -> tuple[Event, ...]:
        """Return the events of a response that may be seen now, and those that waited for them."""
        if not events:
            self._answered = max(self._answered, response.header.revision)
            return ()
        if response.watch_id == self._last_range:
            self._quiet_from_s = time.monotonic()
            return self._release(max(each.revision for each in events), events)
        if not self._held:
            self._quiet_from_s = time.monotonic()
            self.request_progress()
        self._held += events
        return ()

    def _ripe(self) -> tuple[Event, ...]:
        """Return events that have waited for long enough; not while the client is behind."""
        quiet_s = time.monotonic() - self._quiet_from_s
        if not self._held or quiet_s < _QUIET_S or not self._responses.empty():
            return ()
        newest = max(each.revision for each in self._held)
        return self._release(newest if quiet_s >= _HELD_S else self._answered)

    def _release(self, passed: int, events: tuple[Event, ...] = ()) -> tuple[Event, ...]:
        """Return events with the held ones up to a revision, in order."""
        ready = [each for each in self._held if each.revision <= passed]
        if not ready:
            return events
        self._held = [each for each in self._held if each.revision > passed]
        return tuple(sorted((*ready, *events), key=lambda each: each.revision))

    def wake(self) -> None:
        """End a wait in :meth:`next`, as if its time were over. Any thread; never blocks."""
        with contextlib.suppress(queue.Full):  # then no thread waits
            self._responses.put_nowait(_WAKE)

    def close(self) -> None:
        """End the stream; never blocks."""
        self._closed.set()
        self._requests.put(_END)
        self._call.cancel()

    def _read(self) -> None:
        """Thread: move responses, then the error that ended them, to the queue."""
        try:
            for response in self._call:
                self._hand_over(response)
            ended: EtcdError = EtcdUnavailable(f"{self.connection.endpoint} ended the watch")
        except grpc.RpcError as error:
            ended = translate(error, self.connection.endpoint, "watch")
        self._hand_over(ended)

    def _hand_over(self, item: Any) -> None:  # noqa: ANN401 - message or error
        while not self._closed.is_set():
            try:
                self._responses.put(item, timeout=0.5)
            except queue.Full:
                continue
            return

    def _take(self, timeout_s: float) -> Any:  # noqa: ANN401 - generated message
        try:
            item = self._responses.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None
        if isinstance(item, EtcdError):
            raise item
        return item

    def _await_created(self, count: int, timeout_s: float) -> None:
        """Wait until etcd has confirmed each range, which it does in the order of the requests."""
        until_s = time.monotonic() + timeout_s
        for _ in range(count):
            response = self._await_answer(until_s, timeout_s)
            # A denied watch is "created" with id -1 and "canceled" at once: check both.
            self._check(response)
            if not response.created:
                raise EtcdError(f"{self.connection.endpoint} answered a watch with something else")
            self.cluster_id = response.header.cluster_id
            self._last_range = response.watch_id

    def _await_answer(self, until_s: float, timeout_s: float) -> Any:  # noqa: ANN401 - generated message
        """Return the next response that is no event of a range that was confirmed already."""
        while True:
            response = self._take(until_s - time.monotonic())
            if response is None:
                raise EtcdUnavailable(
                    f"{self.connection.endpoint} did not confirm the watch within {timeout_s:g} s"
                )
            if not response.events:
                return response
            self._early.append(response)

    def _check(self, response: Any) -> None:  # noqa: ANN401 - generated message
        endpoint = self.connection.endpoint
        if response.compact_revision:
            raise CompactedError(f"{endpoint} compacted past revision {response.compact_revision}")
        if response.canceled:
            reason = response.cancel_reason or "no reason given"
            if "permission denied" in reason or "auth" in reason:
                raise EtcdAuthError(
                    f"{endpoint} refused the watch: {reason}",
                    hint="the etcd role needs read on the whole prefix",
                )
            raise EtcdUnavailable(f"{endpoint} cancelled the watch: {reason}")


def _events(response: Any) -> Iterator[Event]:  # noqa: ANN401 - generated message
    for event in response.events:
        deleted = event.type == type(event).DELETE
        # Of a deletion, mod_revision is the deletion's.
        record = None if deleted else Record.of(event.kv)
        yield Event(event.kv.key, record, event.kv.mod_revision)
