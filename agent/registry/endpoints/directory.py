"""Follow the endpoints of all hosts, in a stream of their own, while they are needed."""

from __future__ import annotations

from collections.abc import Callable

from agent.errors import EtcdError
from agent.model import Condition
from agent.model.endpoint import EndpointView
from agent.registry.endpoints.reading import read_store
from agent.registry.follower import Follower, Records
from agent.registry.records import ENDPOINTS
from agent.registry.registry import Registry

__all__ = ["EndpointDirectory"]


class EndpointDirectory(Follower[EndpointView]):
    """A thread that calls back with every new view of endpoints, from :meth:`follow` on.

    Args:
        registry: To read from and watch.
        on_view: Called with a complete view after each batch of changes.
        on_conditions: Called with all conditions when they change.
    """

    def __init__(
        self,
        registry: Registry,
        on_view: Callable[[EndpointView], None],
        on_conditions: Callable[[tuple[Condition, ...]], None],
    ) -> None:
        super().__init__(
            "endpoint-directory",
            registry.client,
            [registry.keys.range(ENDPOINTS)],
            on_view,
            lambda problem, _: on_conditions(_conditions(problem)),
        )
        self._registry = registry
        self._on_conditions = on_conditions
        self.follow(wanted=False)

    def read(self) -> Records[EndpointView]:
        """Take a complete snapshot."""
        return read_store(self._registry.client, self._registry.keys)

    def rest(self) -> None:
        """Report no problem of a watch that is not needed."""
        self._on_conditions(())


def _conditions(problem: EtcdError | None) -> tuple[Condition, ...]:
    if problem is None:
        return ()
    return (
        Condition(
            name="endpoints-not-followed",
            cause=f"the containers of other hosts are known as they were: {problem.message}",
            hint=problem.hint or "names of containers that changed since are stale; see etcd",
        ),
    )
