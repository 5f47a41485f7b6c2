"""Which cluster each endpoint belongs to, and which endpoint is left out because of it.

One endpoint of another cluster in the list would, after a fail-over, pass for news of this
mesh. So a member is asked for its cluster before it is used, and one that differs from the
mesh's is left out. When it is not a stray endpoint but the cluster itself that was replaced
(none of the mesh's is left, or most endpoints say the same other one), its answers are let
through: what they mean is judged by :mod:`agent.registry.trust`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

__all__ = ["ClusterIds"]


class ClusterIds:
    """The cluster id that each endpoint reported. Thread-safe, no I/O.

    Args:
        endpoints: As in settings.
    """

    def __init__(self, endpoints: Sequence[str]) -> None:
        self._endpoints = tuple(endpoints)
        self._lock = threading.Lock()
        self._pinned = 0
        self._seen: dict[str, int] = {}
        self._current: set[str] = set()
        self._tried: set[str] = set()

    def use(self, endpoints: Sequence[str]) -> None:
        """Judge these endpoints from now on, and forget the others."""
        with self._lock:
            self._endpoints = tuple(endpoints)
            for gone in self._tried - set(endpoints):
                self._seen.pop(gone, None)
                self._current.discard(gone)
            self._tried &= set(endpoints)

    def pin(self, cluster_id: int) -> None:
        """Say which cluster is the mesh's; until then it is that of the first answer."""
        with self._lock:
            self._pinned = cluster_id

    def known(self, endpoint: str) -> bool:
        """Whether the endpoint reported its cluster since it last failed."""
        with self._lock:
            return endpoint in self._current

    def saw(self, endpoint: str, cluster_id: int) -> None:
        """Remember the cluster id of an endpoint's answer."""
        if not cluster_id:
            return
        with self._lock:
            self._pinned = self._pinned or cluster_id
            self._seen[endpoint] = cluster_id
            self._current.add(endpoint)
            self._tried.add(endpoint)

    def failed(self, endpoint: str) -> None:
        """Remember that an endpoint did not answer: what comes back may be another."""
        with self._lock:
            self._current.discard(endpoint)
            self._tried.add(endpoint)

    def refuses(self, endpoint: str) -> bool:
        """Whether an endpoint is of another cluster and to be left out."""
        with self._lock:
            return self._refuses(endpoint)

    @property
    def foreign(self) -> tuple[tuple[str, int], ...]:
        """Endpoints that are left out, each with the cluster that it said, in order."""
        with self._lock:
            return tuple(
                (each, self._seen[each]) for each in self._endpoints if self._refuses(each)
            )

    @property
    def pinned(self) -> int:
        """The mesh's cluster id, 0 while nothing answered."""
        with self._lock:
            return self._pinned

    def _refuses(self, endpoint: str) -> bool:
        other = self._seen.get(endpoint, self._pinned)
        if other == self._pinned:
            return False
        if any(each not in self._tried for each in self._endpoints):
            return True
        said = [self._seen.get(each) for each in self._endpoints]
        replaced = said.count(other) * 2 > len(said)  # most say so
        return not replaced and self._pinned in said
