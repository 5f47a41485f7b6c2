"""Take over this host's routes when ``routes.protocol`` is set to another number.

Only the number says that a route is the agent's. So the number in use is saved, and where the
settings name another one at the next start, routes of the previous one get the new number: each
stays installed, and those that are not desired go as any of an earlier run do.
"""

from __future__ import annotations

import structlog

from agent.daemon.store.state_file import StateFile
from agent.errors import KernelError
from agent.kernel.tables.routes import RouteTable
from agent.model.family import Network

__all__ = ["ProtocolMigration"]


class ProtocolMigration:
    """Keeps one protocol number on all routes of this host. For one thread at a time.

    Args:
        table: Writes routes with ``protocol``, the number in the settings.
    """

    def __init__(self, table: RouteTable, protocol: int, state: StateFile) -> None:
        self._table = table
        self._protocol = protocol
        self._state = state
        self._log = structlog.get_logger("agent.routes")

    @property
    def settled(self) -> bool:
        """Return whether no route of a previous number can be left."""
        return self._state.now.route_protocol == self._protocol

    @property
    def former(self) -> int | None:
        """Return the previous number of routes that are left; None when there is none."""
        return None if self.settled else self._state.now.route_protocol

    def settle(self, within: tuple[Network, ...], for_s: float) -> bool:
        """Take the routes of a previous number over; costs nothing when there is none.

        Args:
            within: The mesh's CIDRs: elsewhere a route of that number may be another program's.
            for_s: About how long it may take; what is left is for the next call.

        Returns:
            Whether routes were written.

        Raises:
            KernelError: Routes could not be listed, or some not replaced. Call again.
            StateError: The number could not be saved. Call again.
        """
        former = self.former
        if former is None:
            self._state.change(route_protocol=self._protocol)
            return False
        results, there = self._table.take_over(former, within, for_s=for_s)
        problems = [each.problem for each in results if not each.ok]
        if results:
            self._log.info(
                "routes-taken-over", previous=former, routes=len(results), failed=len(problems)
            )
        if problems:
            raise KernelError(
                f"{len(problems)} of {len(results)} routes of protocol {former}, which this host "
                f"used before, could not be taken over: {problems[0]}",
                hint=f"it is tried again; ip route show proto {former} lists them",
            )
        if len(results) == there:
            self._state.change(route_protocol=self._protocol)
        return bool(results)

    def forget(self) -> None:
        """Save that no route of this host is left. Raises StateError."""
        if self.settled:
            self._state.change(route_protocol=None)
