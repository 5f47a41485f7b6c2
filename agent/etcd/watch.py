"""One watch as an object that can be waited on with a deadline, and that always ends.

gRPC's response iterator blocks without a deadline, so a thread of the stream's own moves
responses to a queue. Silence, cancellation, compaction and a broken connection all end in
an exception from :meth:`WatchStream.next`; the caller then takes a new snapshot.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
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
_WAKE: Any = None
_QUEUE_LENGTH = 1024
"""Responses waiting to be folded. When full, gRPC's flow control holds back the server."""


class WatchStream:
    """A watch over [start, end) from one revision on.

    Args:
        connection: Where to watch.
        metadata: Token and hasleader.
        start: First key.
        end: First key after the range.
        revision: The first revision whose events are wanted.
        timeout_s: Deadline for etcd to confirm the watch.

    Raises:
        EtcdUnavailable, EtcdAuthError, CompactedError, EtcdError: It was not created.
    """

    def __init__(
        self,
        connection: Connection,
        metadata: tuple[tuple[str, str], ...],
        *,
        start: bytes,
        end: bytes,
        revision: int,
        timeout_s: float,
    ) -> None:
        self.connection = connection
        self.cluster_id = 0
        """etcd's cluster id, as the answer that confirmed the watch says it."""
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._responses: queue.Queue[Any] = queue.Queue(_QUEUE_LENGTH)
        self._closed = threading.Event()
        create = rpc.WatchCreateRequest(key=start, range_end=end, start_revision=revision)
        self._requests.put(rpc.WatchRequest(create_request=create))
        self._call = connection.watch.Watch(iter(self._requests.get, _END), metadata=metadata)
        self._reader = threading.Thread(target=self._read, name="etcd-watch-reader", daemon=True)
        self._reader.start()
        try:
            self._await_created(timeout_s)
        except BaseException:
            self.close()
            raise

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
        response = self._take(timeout_s)
        if response is None:
            return None
        self._check(response)
        return tuple(_events(response))

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

    def _await_created(self, timeout_s: float) -> None:
        response = self._take(timeout_s)
        if response is None:
            raise EtcdUnavailable(
                f"{self.connection.endpoint} did not confirm the watch within {timeout_s:g} s"
            )
        # A denied watch is "created" with id -1 and "canceled" at once: check both.
        self._check(response)
        if not response.created:
            raise EtcdError(f"{self.connection.endpoint} answered a watch with something else")
        self.cluster_id = response.header.cluster_id

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
