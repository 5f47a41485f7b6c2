"""Answer requests of the control socket about mesh networks and containers of all hosts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.daemon.api.connection import Paths
from agent.daemon.api.containers import containers_document, counts_by_network
from agent.daemon.api.names import names_document, read_snapshot
from agent.daemon.api.networks import networks_document
from agent.daemon.state.agent_state import StateCell
from agent.daemon.state.freshness import Freshness
from agent.dns.snapshot import names_folder
from agent.errors import CannotTell, EtcdError
from agent.model import View
from agent.model.endpoint import Endpoint

__all__ = ["MeshHandlers", "newest_view"]

Document = Mapping[str, Any]


def newest_view(cell: StateCell) -> View:
    """Return the newest view of etcd, an alarming one included. Raises CannotTell."""
    view = cell.now.mesh.newest
    if view is None:
        raise CannotTell(
            "no complete view of etcd yet and no copy of an earlier one",
            hint="see etcd in agentctl status",
        )
    return view


@dataclass(slots=True, kw_only=True)
class MeshHandlers:
    """The functions behind the paths. Runs in the control socket's threads.

    Args:
        freshness: How old the newest view is.
        read_endpoints: Reads every host's endpoints from etcd; the agent itself may follow none.
    """

    cell: StateCell
    freshness: Callable[[], Freshness]
    read_endpoints: Callable[[], tuple[Endpoint, ...]]

    def paths(self) -> Paths:
        """Return every path."""
        return Paths(
            read={
                "/v1/networks": self.networks,
                "/v1/containers": self.containers,
                "/v1/names": self.names,
            }
        )

    def names(self) -> Document:
        """``GET /v1/names``: as this host's name servers read them."""
        return names_document(read_snapshot(names_folder(self.cell.now.settings.agent.state_dir)))

    def networks(self) -> Document:
        """``GET /v1/networks``: of the newest view."""
        view, freshness = newest_view(self.cell), self.freshness()
        counts = None
        if not freshness.stale:
            with contextlib.suppress(EtcdError):
                counts = counts_by_network(view, self.read_endpoints())
        return networks_document(
            view,
            self.cell.now.mesh.host_id,
            time.time(),
            counts=counts,
            freshness=freshness,
        )

    def containers(self) -> Document:
        """``GET /v1/containers``: as etcd has them now, else as this agent last followed them."""
        mesh, freshness = self.cell.now.mesh, self.freshness()
        try:
            endpoints: Iterable[Endpoint] = self.read_endpoints()
        except EtcdError:
            followed = mesh.peer_endpoints.published
            if not followed.complete:
                raise
            endpoints, freshness = followed.endpoints.values(), replace(freshness, stale=True)
        return containers_document(
            newest_view(self.cell), endpoints, mesh.host_id, time.time(), freshness=freshness
        )
