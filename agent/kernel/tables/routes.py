"""The kernel's routes: all that bear the agent's protocol, and others in the mesh's range."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from agent.errors import KernelError
from agent.kernel.netlink.links import RawLink
from agent.kernel.netlink.message import CREATE, EXCLUSIVE, REPLACE
from agent.kernel.netlink.routes import (
    PROTOCOL_AT,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    decode_route,
    meets,
    route_body,
    route_dump_request,
)
from agent.kernel.tables.session import NetlinkSession
from agent.kernel.tables.table import Dump, NetlinkTable, Request
from agent.mesh.world import MAIN_TABLE, ROUTE_PROTOCOL
from agent.model import IPV4, Family, Network, Route, RouteKey, within
from agent.reconcile.interfaces import Operation, OperationKind, Reason, Result

__all__ = ["RouteTable"]

_NO_TABLE: Final = frozenset({errno.ENOENT})
"""Nothing was written to this table yet (inet_dump_fib: "FIB table does not exist")."""


class RouteTable(NetlinkTable[Route]):
    """The routes of one protocol number in one table of this network namespace.

    See :mod:`agent.kernel.netlink.routes` for what the kernel makes of them.

    Args:
        protocol: rtm_protocol of the agent's routes.
        table: Table they live in.
        timeout_s: Longest wait for one answer of the kernel.
    """

    noun = "route"
    plural = "routes"
    exclusive = True

    def __init__(
        self,
        protocol: int = ROUTE_PROTOCOL,
        table: int = MAIN_TABLE,
        *,
        family: Family = IPV4,
        timeout_s: float = 10.0,
    ) -> None:
        super().__init__(NetlinkSession(timeout_s=timeout_s))
        self._protocol = protocol
        self._table = table
        self._family = family
        self._cidrs: tuple[Network, ...] | None = None

    def dumps(self, links: Collection[RawLink]) -> Sequence[Dump]:
        """Ask for the agent's routes, and for foreign ones in the agent's table.

        The agent's are asked for in every table: an earlier run may have used another. The kernel
        filters; one before Linux 4.20 does not.
        """
        del links
        return (
            Dump(
                kind=RTM_GETROUTE,
                body=route_dump_request(self._family, protocol=self._protocol),
                keep=self._with_protocol,
            ),
            Dump(
                kind=RTM_GETROUTE,
                body=route_dump_request(self._family, table=self._table),
                keep=self._meeting,
                nothing=_NO_TABLE,
            ),
        )

    def _with_protocol(self, payload: bytes) -> bytes | None:
        return payload if payload[PROTOCOL_AT] == self._protocol else None

    def _meeting(self, payload: bytes) -> bytes | None:
        foreign = payload[PROTOCOL_AT] != self._protocol
        return payload if foreign and (not self._cidrs or meets(payload, self._cidrs)) else None

    def decode(self, payload: bytes, name_of: Callable[[int], str]) -> Route | None:
        """Return the route; None for another program's in another table."""
        route = decode_route(payload, name_of)
        if route is None or (route.table != self._table and not self.is_own(route)):
            return None
        return route

    def is_own(self, value: Route) -> bool:
        """Whether it bears the agent's protocol."""
        return value.protocol == self._protocol

    def encode(
        self, operation: Operation[Route], link_of: Callable[[str], RawLink]
    ) -> Sequence[Request]:
        """Add exclusively, replace, or delete by protocol."""
        route = operation.object
        index = None if route.link is None else link_of(route.link).number
        if operation.kind is OperationKind.DELETE:
            return (Request(RTM_DELROUTE, 0, route_body(route, index, deleting=True)),)
        how = EXCLUSIVE if operation.reason is Reason.MISSING else REPLACE
        return (Request(RTM_NEWROUTE, CREATE | how, route_body(route, index)),)

    def limit_foreign(self, cidrs: tuple[Network, ...] | None) -> bool:
        """Leave foreign routes that overlap none of ``cidrs`` out of every list from now on.

        Returns:
            Whether the limit changed, so that an earlier list may lack a route.
        """
        changed, self._cidrs = cidrs != self._cidrs, cidrs
        return changed

    def take_over(
        self, former: int, cidrs: tuple[Network, ...], *, for_s: float | None = None
    ) -> tuple[tuple[Result[Route], ...], int]:
        """Give routes of another protocol the agent's, each in force all the while.

        For routes that this host wrote while its protocol number was another. A route that
        shares its key with another one, or that has what Hostmesh never writes, stays foreign:
        a replacement might hit the other, or change what the route does.

        Args:
            former: Their rtm_protocol.
            cidrs: Only those whose destinations lie in one of these.
            for_s: As for :meth:`apply`.

        Returns:
            The results, and how many routes there were.

        Raises:
            KernelError: The list could not be had completely; nothing was changed.
        """
        by_key: dict[RouteKey, list[Route]] = {}
        for route in self._list_everything():
            by_key.setdefault(route.key, []).append(route)
        change = partial(Operation, OperationKind.REPLACE, reason=Reason.MODIFIED)
        operations = tuple(
            change(object=replace(route, protocol=self._protocol), actual=route)
            for route, *others in by_key.values()
            if not others
            and route.protocol == former
            and "+" not in route.kind
            and any(within(route.destination, each) for each in cidrs)
        )
        return self.apply(operations, for_s=for_s), len(operations)

    def _list_everything(self) -> list[Route]:
        """Return every route of every table and program."""
        with self.session.lock:
            try:
                self.session.list_links()
                body = route_dump_request(self._family)
                payloads = self.session.open().dump(RTM_GETROUTE, body, "listing routes")
                routes = [decode_route(each, self.session.name_of) for each in payloads]
            except KernelError:
                self.session.close()
                raise
        return [each for each in routes if each is not None]
