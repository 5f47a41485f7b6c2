"""Choose the container that this host's heartbeat names, so that peers can test the path to it.

A ping to docker0 ends in INPUT; only one to a container passes this host's FORWARD.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from agent.daemon.state.mesh_state import MeshState
from agent.mesh.firewall import is_closed
from agent.model import Access
from agent.model.family import Address, within

__all__ = ["NamedContainer"]

_CALM_S: Final = 30.0
"""Name a container this long after the last change at the earliest. Containers that end and start
all the time must not cost etcd, and with it every host, a write each time."""


class NamedContainer:
    """Chooses one address, and stays with it as long as that container runs.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._named: Address | None = None
        self._changed_s: float | None = None

    def choose(self, mesh: MeshState, limit: Access) -> Address | None:
        """Return the address of a container that peers may ping, None when there is none.

        Args:
            limit: No network of this host is open wider than this.
        """
        found = tuple(_pingable(mesh, limit))
        if self._named in found:
            return self._named
        calm = self._changed_s is None or self._clock() - self._changed_s >= _CALM_S
        chosen = next(iter(found), None) if calm else None
        if chosen != self._named:
            self._named, self._changed_s = chosen, self._clock()
        return chosen


def _pingable(mesh: MeshState, limit: Access) -> Iterator[Address]:
    """Yield addresses of running containers in the lease and in networks open to pings."""
    if mesh.own is None or mesh.config is None or not mesh.docker.reachable:
        return
    default = mesh.config.access
    records = mesh.believed.networks if mesh.believed else {}
    networks = [
        each.subnet
        for each in mesh.docker.networks
        if within(each.subnet, mesh.own.subnet) and not is_closed(each, default, limit, records)
    ]
    for address in mesh.docker.addresses:
        if any(address in network for network in networks):
            yield address
