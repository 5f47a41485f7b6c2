"""Asks every endpoint now and then which cluster it belongs to, not only the one in use.

An endpoint of another cluster, or one that nothing answers at, does no harm until the one in
use fails. Then it is too late to correct a settings file.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.errors import EtcdError
from agent.etcd.client import EtcdClient
from agent.model import Condition
from agent.retry import jittered
from agent.threads import Jobs

__all__ = ["EndpointCheck"]

_EVERY_S = 60.0
_FIRST_S = 5.0


class EndpointCheck:
    """Calls back when other endpoints than before are left out.

    Args:
        client: Whose endpoints.
        on_change: Called on the jobs' thread with a condition for each endpoint that is left out.
        jobs: Runs it; None: jobs of its own.
        every_s: Seconds between two rounds.
    """

    name = "etcd-survey"

    def __init__(
        self,
        client: EtcdClient,
        on_change: Callable[[tuple[Condition, ...]], None],
        *,
        jobs: Jobs | None = None,
        every_s: float = _EVERY_S,
    ) -> None:
        self._client = client
        self._on_change = on_change
        self._every_s = every_s
        self._jobs = jobs or Jobs()
        self._told: tuple[Condition, ...] = ()

    def start(self) -> None:
        """Start asking."""
        self._jobs.add(self, min(_FIRST_S, self._every_s))

    def stop(self) -> None:
        """Ask no more; a question under way is not waited for."""
        self._jobs.remove(self)

    def run(self) -> float:
        """Ask every endpoint once; return the seconds until the next round."""
        self._round()
        return jittered(self._every_s, shorter=0.1, longer=0.0)

    def _round(self) -> None:
        endpoints = self._client.endpoints
        # A single one is never left out, and need not be asked.
        for endpoint in endpoints if len(endpoints) > 1 else ():
            try:
                self._client.ask_cluster(endpoint)
            except EtcdError:  # the directory reports what is out of reach
                continue
        found = tuple(
            _condition(endpoint, cluster_id, self._client.clusters.pinned)
            for endpoint, cluster_id in self._client.clusters.foreign
        )
        if found != self._told:
            self._told = found
            self._on_change(found)


def _condition(endpoint: str, cluster_id: int, pinned: int) -> Condition:
    return Condition(
        name="etcd-endpoint-foreign",
        subject=endpoint,
        cause=f"{endpoint} is of etcd cluster {cluster_id:x}, the mesh is in {pinned:x}: it is"
        " left out",
        hint="correct etcd.endpoints in agent.toml and restart the agent",
    )
