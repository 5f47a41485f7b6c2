"""How long flannel's leases last, by few requests and only on request.

Our own records say when they were renewed and for how long; flannel's say neither, and a list
of keys does not tell what their etcd leases have left. Asking costs one request per lease. So:
only flannel's are asked for, at most so many at a time and for so long, what was learned is
counted down, and asked again only when the record was renewed (flannel takes a new etcd lease
then) or after a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog

from agent.errors import EtcdError
from agent.model import Lease
from agent.model.family import Network

__all__ = ["FlannelTtls"]

_log = structlog.get_logger()

_MOST = 64
_BUDGET_S = 2.0
_FRESH_S = 600.0


@dataclass(frozen=True, slots=True)
class _Learned:
    """An answer: the etcd lease ends at ``ends_s``, by what it said at ``asked_s``."""

    etcd_lease_id: int
    asked_s: float
    ends_s: float


class FlannelTtls:
    """Remembers what etcd said about flannel's leases. Thread-safe.

    Args:
        ask: What an etcd lease has left in seconds, None when it is gone; raises EtcdError.
        clock: Monotonic seconds.
        most: Requests per look.
        budget_s: No request is begun when a look has taken that long.
        fresh_s: After that time an answer is asked for again.
    """

    def __init__(
        self,
        ask: Callable[[int], int | None],
        clock: Callable[[], float] = time.monotonic,
        *,
        most: int = _MOST,
        budget_s: float = _BUDGET_S,
        fresh_s: float = _FRESH_S,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._most = most
        self._budget_s = budget_s
        self._fresh_s = fresh_s
        self._lock = threading.Lock()
        self._learned: dict[Network, _Learned] = {}

    def of(self, leases: Iterable[Lease], *, may_ask: bool = True) -> Mapping[Network, float]:
        """Seconds left of flannel's leases, as far as they are known by now.

        Args:
            leases: All of a view; those that say themselves, or have no end, are left out.
            may_ask: False: etcd is away, only what is known counts.
        """
        flannel = [each for each in leases if each.ttl_s is None and each.etcd_lease_id]
        with self._lock:
            now = {each.subnet: each.etcd_lease_id for each in flannel}
            self._learned = {
                subnet: known
                for subnet, known in self._learned.items()
                if now.get(subnet) == known.etcd_lease_id
            }
            if may_ask:
                self._learn(flannel)
            at_s = self._clock()
            return {
                subnet: max(0.0, known.ends_s - at_s) for subnet, known in self._learned.items()
            }

    def _learn(self, flannel: list[Lease]) -> None:
        """Ask for those not known yet, then for those asked longest ago."""
        started_s = self._clock()
        asked_s = {each.subnet: self._asked_s(each.subnet) for each in flannel}
        flannel.sort(key=lambda each: asked_s[each.subnet])
        for lease in flannel[: self._most]:
            now_s = self._clock()
            fresh = now_s - asked_s[lease.subnet] < self._fresh_s
            if fresh or now_s - started_s > self._budget_s:
                return
            try:
                left_s = self._ask(lease.etcd_lease_id)
            except EtcdError as error:
                _log.debug("time-left-not-known", reason=error.message)
                return
            if left_s is not None:
                ends_s = now_s + left_s
                self._learned[lease.subnet] = _Learned(lease.etcd_lease_id, now_s, ends_s)

    def _asked_s(self, subnet: Network) -> float:
        known = self._learned.get(subnet)
        return known.asked_s if known else float("-inf")
