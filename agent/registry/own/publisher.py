"""Publishes what this host says of itself beside its lease: slices and endpoints.

One thread. It keeps the newest wish and no queue: after an outage it writes the difference. All
records hang on the etcd lease of the host's lease, so that they end with it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from agent import threads
from agent.errors import EtcdAuthError, EtcdUnavailable, HostmeshError
from agent.etcd.errors import CertificateRefusedError, EtcdLeaseGoneError
from agent.model import Condition, HostId
from agent.model.endpoint import ENDPOINTS_MOST, Endpoint
from agent.model.network import NetworkSlice
from agent.registry.own.own_records import Holding, NotHeldError, OwnRecords
from agent.registry.records import ENDPOINTS, SLICES, endpoint_key
from agent.registry.registry import Registry
from agent.retry import Backoff, jittered

__all__ = ["Publication", "Publisher"]

_log = structlog.get_logger()

_SLICES_MOST: Final = 1024
_EVERY_S: Final = 0.2
_BURST: Final = 3
"""So many transactions at once, then one every :data:`_EVERY_S`."""
_READ_AGAIN_S: Final = 600.0
_FIRST_RETRY_S: Final = 0.2
_LONGEST_RETRY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Publication:
    """All that a host publishes beside its lease.

    Attributes:
        holding: The lease under which it does.
        slices, endpoints: None: not known yet, leave what is there.
    """

    holding: Holding
    slices: tuple[NetworkSlice, ...] | None = None
    endpoints: tuple[Endpoint, ...] | None = None


@dataclass(slots=True)
class _Work:
    """The records of one kind, with what is wished and what was seen of them."""

    records: OwnRecords[Any]
    wished: Callable[[Publication], Sequence[Any] | None]
    backoff: Backoff = field(default_factory=lambda: Backoff(_FIRST_RETRY_S, _LONGEST_RETRY_S))
    repairs: Backoff = field(default_factory=lambda: Backoff(_FIRST_RETRY_S, _LONGEST_RETRY_S))
    repaired_s: float = -math.inf
    due_s: float = 0.0
    read_again_s: float = 0.0
    seen: tuple[int, Mapping[Any, Any]] | None = None
    problem: Condition | None = None


class Publisher:
    """A thread that keeps this host's slices and endpoints in etcd as they are wished.

    Args:
        registry: To write to.
        host_id: This host.
        on_conditions: Called on the publisher's thread with all conditions when they change.
        clock: Monotonic seconds.
        wall_clock: Unix seconds, for the date of a slice.
    """

    def __init__(
        self,
        registry: Registry,
        host_id: HostId,
        on_conditions: Callable[[tuple[Condition, ...]], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._on_conditions = on_conditions
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._busy = threading.Lock()  # held by the thread while it may write
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._newest: Publication | None = None
        self._held: Holding | None = None
        self._next_s = 0.0
        self._reported: tuple[Condition, ...] = ()
        # In the order in which they are written: slices open networks.
        self._slices = _Work(
            OwnRecords(registry, host_id, SLICES, _slice_key, _SLICES_MOST, self._dated),
            lambda wish: wish.slices,
        )
        self._endpoints = _Work(
            OwnRecords(registry, host_id, ENDPOINTS, endpoint_key, ENDPOINTS_MOST),
            lambda wish: wish.endpoints,
        )
        self._all = (self._slices, self._endpoints)

    # --- called from other threads --------------------------------------------------------

    def start(self) -> None:
        """Start publishing; nothing is written before the first :meth:`publish`."""
        self._thread = threads.start_thread("publisher", self._run)

    def stop(self) -> None:
        """Stop within 2 s. What is published stays in etcd (promise 3)."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2.0)

    def publish(self, wish: Publication | None) -> None:
        """Say what is to be in etcd from now on; None: write nothing."""
        with self._lock:
            self._newest = wish
        self._wake.set()

    def pause(self, timeout_s: float = 5.0) -> bool:
        """Write nothing more until the next :meth:`publish`: the host leaves.

        Returns:
            False when a write is still under way after ``timeout_s``.
        """
        self.publish(None)
        idle = self._busy.acquire(timeout=timeout_s)
        if idle:
            self._busy.release()
        return idle

    def notice_slices(
        self, revision: int, slices: Mapping[tuple[HostId, str], NetworkSlice]
    ) -> None:
        """Look at a view: what is missing there or was changed by another is written again."""
        self._notice(self._slices, revision, slices)

    def notice_endpoints(
        self, revision: int, endpoints: Mapping[tuple[HostId, str], Endpoint]
    ) -> None:
        """As :meth:`notice_slices`, of a view of endpoints."""
        self._notice(self._endpoints, revision, endpoints)

    def _notice(self, work: _Work, revision: int, seen: Mapping[Any, Any]) -> None:
        with self._lock:
            known = work.seen
            work.seen = revision, seen
        if known is None or known[1] is not seen:
            self._wake.set()

    # --- the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                with self._busy:
                    wait_s = self._step()
            except Exception as error:  # noqa: BLE001  # the top of a thread
                threads.report_error(error)
                wait_s = _LONGEST_RETRY_S
            self._wake.wait(wait_s)

    def _step(self) -> float:
        """Do what is due; return seconds until something is due again."""
        with self._lock:
            wish = self._newest
        if wish is None:
            for work in self._all:
                work.records.doubt()
                work.problem = None
            self._report(known=False)
            return _READ_AGAIN_S
        if wish.holding != self._held:  # the lease was claimed anew: what hung on the last is gone
            self._held = wish.holding
            for work in self._all:
                work.records.doubt()
                work.due_s = 0.0
        wait_s = min(self._follow(work, wish) for work in self._all)
        self._report(known=True)
        return wait_s

    def _follow(self, work: _Work, wish: Publication) -> float:
        """Write what differs, at most one transaction; return seconds until more is due."""
        wished, now_s = work.wished(wish), self._clock()
        if wished is None:
            return _READ_AGAIN_S
        self._look(work, now_s)
        pause_s = max(work.due_s, self._next_s - (_BURST - 1) * _EVERY_S) - now_s
        if pause_s > 0:
            return pause_s
        try:
            wrote = work.records.step(wished, wish.holding)
        except HostmeshError as error:
            work.problem = self._problem(work, error)
            work.due_s = now_s + work.backoff.next_s()
            return work.due_s - now_s
        work.backoff.reset()
        work.problem = None
        if not wrote:
            return work.read_again_s - now_s
        self._next_s = max(self._next_s, now_s) + _EVERY_S
        return 0.0

    def _look(self, work: _Work, now_s: float) -> None:
        """Doubt what is in etcd if a view shows something else, and now and then.

        Another program that goes on to change it must not make this host write without end.
        """
        with self._lock:
            seen = work.seen
        if seen is not None and work.records.notice(*seen):
            if now_s - work.repaired_s > 2 * _LONGEST_RETRY_S:
                work.repairs.reset()
            work.repaired_s = now_s
            work.due_s = max(work.due_s, now_s + work.repairs.next_s())
        if now_s >= work.read_again_s:
            work.read_again_s = now_s + jittered(_READ_AGAIN_S)
            work.records.doubt()

    def _problem(self, work: _Work, error: HostmeshError) -> Condition | None:
        if isinstance(error, EtcdUnavailable | CertificateRefusedError | EtcdLeaseGoneError):
            _log.info("not-published", kind=work.records.kind.name, reason=error.message)
            return work.problem  # the directory and the keeper report it
        if isinstance(error, NotHeldError):
            return None
        refused = "give each host an account that may write there: deploy/etcd/hosts.sh add HOST"
        hint = refused if isinstance(error, EtcdAuthError) else error.hint
        return work.records.condition(error.message, hint or "it is tried again")

    def _report(self, *, known: bool) -> None:
        found: tuple[Condition, ...] = ()
        if known:
            of_each = ((work.problem, work.records.left_out) for work in self._all)
            found = tuple(first for each in of_each if (first := next(filter(None, each), None)))
        if found != self._reported:
            self._reported = found
            self._on_conditions(found)

    def _dated(self, wished: NetworkSlice, there: NetworkSlice | None) -> NetworkSlice:
        """Keep since when a slice has its subnet."""
        if there is not None and there.subnet == wished.subnet and there.since_s is not None:
            return replace(wished, since_s=there.since_s)
        return replace(wished, since_s=round(self._wall_clock(), 3))


def _slice_key(found: NetworkSlice) -> tuple[HostId, str]:
    return found.host_id, found.network
