"""Tell this host's previous boot from a clone of its machine-id."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from agent.daemon.state.agent_state import StateCell
from agent.daemon.state.mesh_state import MeshState
from agent.model import HostFacts, Uplink
from agent.model.family import Address

__all__ = ["PreviousBoot"]

_log = structlog.get_logger()


class PreviousBoot:
    """Answers the keeper's question about an address that another boot of this host published.

    Args:
        cell: The agent's state.
        is_silent: Returns whether no host answers at an address by an uplink; takes
            seconds.
    """

    def __init__(
        self,
        cell: StateCell,
        is_silent: Callable[[Address, Uplink], bool],
    ) -> None:
        self._cell = cell
        self._nobody_answers = is_silent

    def __call__(self, address: Address, beating: bool) -> bool:  # noqa: FBT001 # a callback
        """Return whether no clone runs at ``address``. Called on the keeper's thread.

        A live heartbeat is stronger evidence than silence from beyond a router, where a firewall
        may drop the probe: then the keeper waits for its end. On the link ARP probes.
        """
        mesh = self._cell.now.mesh
        if mesh.uplink is None or mesh.host is None:
            return False
        if _is_here(mesh.host, address) or _is_another_hosts(mesh, address):
            return True
        if beating and address not in mesh.uplink.on_link:
            return False
        silent = self._nobody_answers(address, mesh.uplink)
        _log.info("previous-boot-probed", address=str(address), answers=not silent)
        return silent


def _is_here(host: HostFacts, address: Address) -> bool:
    return any(address == each.ip for link in host.links for each in link.addresses)


def _is_another_hosts(mesh: MeshState, address: Address) -> bool:
    """Return whether another host of the mesh has that address now, and would answer."""
    view = mesh.newest
    if view is None or view.cached:
        return False
    return any(
        lease.node_address == address and lease.host_id != mesh.host_id for lease in view.leases
    )
