"""Follow the mesh: everything under the prefix but the kinds that are followed apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from agent.errors import EtcdError
from agent.etcd.kv import Event
from agent.model import View
from agent.registry.follower import Follower, Records
from agent.registry.records import LEASES, OWNERS
from agent.registry.registry import Registry

__all__ = ["Directory"]


class Directory(Follower[View]):
    """A thread that calls back with every new view of the mesh.

    Args:
        registry: To read from and watch.
        on_view, on_problem: See :class:`Follower`.
        last_view: From the host's copy. Leases are judged by its config while the one in etcd
            is unusable, and taken from it where a record in etcd cannot be read.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        registry: Registry,
        on_view: Callable[[View], None],
        on_problem: Callable[[EtcdError | None, float], None],
        *,
        last_view: View | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            "etcd-directory",
            registry.client,
            registry.keys.followed,
            on_view,
            on_problem,
            clock=clock,
        )
        self._registry = registry
        self._last_view = last_view
        self._last_config = last_view.config if last_view else None

    def read(self) -> Records[View]:
        """Take a complete snapshot, with what was last known of records that cannot be read."""
        return self._registry.records(self._last_config, self._last_view)

    def is_urgent(self, events: Sequence[Event]) -> bool:
        """Return whether a lease is gone.

        It is seen gone even if its holder is back already: trust.py judges by how many went at
        once.
        """
        split = self._registry.keys.split
        return any(
            each.record is None and split(each.key)[0] in (LEASES, OWNERS) for each in events
        )

    def publish(self, records: Records[View]) -> View:
        """Call back with a view, and remember it."""
        view = super().publish(records)
        self._last_view, self._last_config = view, view.config or self._last_config
        return view
