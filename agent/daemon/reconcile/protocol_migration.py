"""Routes stay this host's own when ``routes.protocol`` is set to another number.

The number is all that says a route is ours. So the one in use is written down, and where the
settings name another at the next start, the routes of the former one are marked anew: each
stays in force, and what of them is not wanted any more goes as any of an earlier life does.
"""

from __future__ import annotations

import structlog

from agent.daemon.store.state_file import StateFile
from agent.errors import KernelError
from agent.kernel.tables.routes import RouteTable
from agent.model.family import Network

__all__ = ["ProtocolMigration"]


class ProtocolMigration:
    """Sees to it that all routes of this host bear one mark. For one thread at a time.

    Args:
        table: Writes routes with the mark that the settings name, ``protocol``.
    """

    def __init__(self, table: RouteTable, protocol: int, state: StateFile) -> None:
        self._table = table
        self._protocol = protocol
        self._state = state
        self._log = structlog.get_logger("agent.routes")

    @property
    def settled(self) -> bool:
        """Whether no route of a former mark can be there any more."""
        return self._state.now.route_protocol == self._protocol

    @property
    def former(self) -> int | None:
        """The mark that routes of this host bear still; None when there is no other."""
        return None if self.settled else self._state.now.route_protocol

    def settle(self, within: tuple[Network, ...], for_s: float) -> bool:
        """Take the routes of a former mark over; costs nothing when there is none.

        Args:
            within: The mesh's CIDRs: elsewhere a route of that mark may be another program's,
                which may be why it was changed.
            for_s: About how long it may take; what is left is for the next call.

        Returns:
            Whether routes were written.

        Raises:
            KernelError: Routes could not be listed, or some not marked. Call again.
            StateError: The mark could not be written down. Call again.
        """
        former = self.former
        if former is None:
            self._state.change(route_protocol=self._protocol)
            return False
        results, there = self._table.take_over(former, within, for_s=for_s)
        problems = [each.problem for each in results if not each.ok]
        if results:
            self._log.info(
                "routes-marked-anew", former=former, routes=len(results), failed=len(problems)
            )
        if problems:
            raise KernelError(
                f"{len(problems)} of {len(results)} routes of protocol {former}, which this host "
                f"used before, could not be marked as ours: {problems[0]}",
                hint=f"it is tried again; ip route show proto {former} lists them",
            )
        if len(results) == there:
            self._state.change(route_protocol=self._protocol)
        return bool(results)

    def forget(self) -> None:
        """No route of this host is left, so none has to be found again; StateError as above."""
        if self.settled:
            self._state.change(route_protocol=None)
