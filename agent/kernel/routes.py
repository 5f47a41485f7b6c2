"""The kernel's routes: list all that are ours and all that may meet them, apply a plan.

The only writer of routes. Three rules keep it harmless (promises 4 to 6): a list is complete
or an error; a missing route is added exclusively, so that one which somebody else added in the
meantime is never overwritten; a deletion names our protocol.
"""

from __future__ import annotations

import errno
import math
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from agent.errors import KernelError
from agent.kernel.codec import (
    PROTOCOL_AT,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    decode_route,
    encode_route,
    route_dump_request,
)
from agent.kernel.linknames import LinkNames, dump_link_names, index_of
from agent.kernel.netlink import NetlinkError, NetlinkSocket
from agent.mesh.world import MAIN_TABLE, ROUTE_PROTOCOL
from agent.model import Route, RouteKey
from agent.model.family import Network, within
from agent.reconcile.objects import Listing, Operation, OperationKind, Reason, Result

__all__ = ["RouteTable"]

_log = structlog.get_logger(__name__)

_BATCH: Final = 500
"""Requests in one send: 40 kB, well under the default send buffer of 208 kB; were all of them
refused, the answers (about 1 kB each in the kernel) fit the receive buffer four times."""

_REQUEST: Final = 0x1
_ACK: Final = 0x4
_NLM_F_REPLACE: Final = 0x100
_NLM_F_EXCL: Final = 0x200
_NLM_F_CREATE: Final = 0x400
_GONE: Final = frozenset({errno.ESRCH, errno.ENOENT, errno.ENODEV})
_NO_LINK: Final = (errno.ENODEV, "")


@dataclass(frozen=True, slots=True)
class _Listed:
    """The kernel's answer, kept for comparing: one text takes half of what its parts would."""

    text: bytes = b""
    lengths: array[int] = field(default_factory=lambda: array("H"))

    @classmethod
    def of(cls, payloads: Sequence[bytes]) -> _Listed:
        return cls(b"".join(payloads), array("H", map(len, payloads)))

    def payloads(self) -> Iterator[bytes]:
        at = 0
        for length in self.lengths:
            yield self.text[at : at + length]
            at += length


class RouteTable:
    """The routes of one protocol number in one table of this network namespace.

    May be used from several threads; calls wait for each other.

    Args:
        protocol: rtm_protocol that marks our routes.
        table: Table they live in.
        timeout_s: Longest wait for one answer of the kernel.
    """

    def __init__(
        self, protocol: int = ROUTE_PROTOCOL, table: int = MAIN_TABLE, *, timeout_s: float = 10.0
    ) -> None:
        self._protocol = protocol
        self._table = table
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._socket: NetlinkSocket | None = None
        self._cidrs: tuple[Network, ...] | None = None
        self._names = LinkNames(lambda: dump_link_names(self._open()))
        self._listed = _Listed()
        self._ours: tuple[Route, ...] = ()
        self._foreign_payloads: list[bytes] = []
        self._within: tuple[Network, ...] | None = None
        self._foreign: tuple[Route, ...] = ()

    @property
    def port_ids(self) -> frozenset[int]:
        """Netlink ports we write from: a notification that bears one is our own change's echo."""
        current = self._socket
        return frozenset() if current is None else frozenset({current.port_id})

    def close(self) -> None:
        """Close the socket; the next call opens another."""
        with self._lock:
            self._drop_socket()

    def limit_foreign(self, cidrs: tuple[Network, ...] | None) -> bool:
        """Leave foreign routes that overlap none of ``cidrs`` out of every list from now on.

        Returns:
            Whether the limit changed, so that an earlier list may lack a route.
        """
        changed, self._cidrs = cidrs != self._cidrs, cidrs
        return changed

    def list_all(self) -> Listing[Route]:
        """Return the agent's routes, in any table, and foreign ones in the agent's table.

        An earlier run may have used another table.

        Raises:
            KernelError: The list could not be had completely. Never an empty list instead.
        """
        with self._lock:
            try:
                self._follow_links()
                return Listing(self._list_ours(), self._list_foreign(self._cidrs))
            except KernelError:
                self._drop_socket()
                raise

    def list_ours(self) -> tuple[Route, ...]:
        """Every route with our protocol; the kernel filters. Same errors as :meth:`list_all`."""
        with self._lock:
            try:
                self._follow_links()
                return self._list_ours()
            except KernelError:
                self._drop_socket()
                raise

    def _follow_links(self) -> None:
        """Forget what was decoded with names that links no longer have."""
        if self._names.refresh():
            self._listed, self._ours, self._within = _Listed(), (), None
            self._foreign_payloads, self._foreign = [], ()

    def _list_ours(self) -> tuple[Route, ...]:
        payloads = self._open().dump(
            RTM_GETROUTE, route_dump_request(protocol=self._protocol), "listing routes"
        )
        payloads = [each for each in payloads if each[PROTOCOL_AT] == self._protocol]
        # Between two lists most routes stay as they are, byte for byte: those are not decoded
        # again, and when all stay, the very tuple of the last time says so to the caller.
        listed = _Listed.of(payloads)
        if listed == self._listed:
            return self._ours
        before = dict(zip(self._listed.payloads(), self._ours, strict=True))
        self._ours = tuple(before.get(each) or self._route(each) for each in payloads)
        self._listed = listed
        return self._ours

    def _list_foreign(self, within: tuple[Network, ...] | None) -> tuple[Route, ...]:
        try:
            payloads = self._open().dump(
                RTM_GETROUTE, route_dump_request(table=self._table), "listing routes"
            )
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            # Not an error but the answer: nobody has written to this table yet
            # (inet_dump_fib: "FIB table does not exist"). Our first route makes it.
            payloads = []
        ours = self._protocol
        payloads = [payload for payload in payloads if payload[PROTOCOL_AT] != ours]
        if payloads == self._foreign_payloads and within == self._within:
            return self._foreign
        found: list[Route] = []
        for payload in payloads:
            route = decode_route(payload, self._names.of)
            if (
                route is not None
                and route.table == self._table
                and (within is None or any(route.destination.overlaps(each) for each in within))
            ):
                found.append(route)
        self._foreign_payloads, self._within = payloads, within
        self._foreign = tuple(found)
        return self._foreign

    def take_over(
        self, former: int, cidrs: tuple[Network, ...], *, for_s: float | None = None
    ) -> tuple[tuple[Result[Route], ...], int]:
        """Mark the routes of another protocol as ours, each in force all the while.

        For those that this host wrote while its protocol number was another. A route that
        shares its key with another one, or that has what Hostmesh never writes, stays foreign:
        a replacement might hit the other, or change what the route does.

        Args:
            former: Their rtm_protocol.
            cidrs: Only those whose destinations lie in one of these.
            for_s: As for :meth:`apply`.

        Returns:
            What was done, and how many there were to do.

        Raises:
            KernelError: The list could not be had completely; nothing was changed.
        """
        with self._lock:
            try:
                self._follow_links()
                payloads = self._open().dump(RTM_GETROUTE, route_dump_request(), "listing routes")
                routes = [decode_route(each, self._names.of) for each in payloads]
            except KernelError:
                self._drop_socket()
                raise
        by_key: dict[RouteKey, list[Route]] = {}
        for route in filter(None, routes):
            by_key.setdefault(route.key, []).append(route)
        alone = (routes[0] for routes in by_key.values() if len(routes) == 1)
        operations = tuple(
            Operation(
                OperationKind.REPLACE,
                replace(route, protocol=self._protocol),
                Reason.MODIFIED,
                route,
            )
            for route in alone
            if route.protocol == former
            and "+" not in route.kind
            and any(within(route.destination, each) for each in cidrs)
        )
        return self.apply(operations, for_s=for_s), len(operations)

    def apply(
        self, operations: Sequence[Operation[Route]], *, for_s: float | None = None
    ) -> tuple[Result[Route], ...]:
        """Carry out operations in order; one that fails does not stop the rest.

        Never raises: what could not even be sent has a result that says so. A failed operation
        is to be planned again from a new list.

        Args:
            for_s: No further batch is begun after so many seconds; None for no such limit.

        Returns:
            A result for each operation that was tried: the first so many of them.
        """
        results: list[Result[Route]] = []
        until_s = math.inf if for_s is None else time.monotonic() + for_s
        with self._lock:
            indices: dict[str | None, int | None] = {None: None}
            for start in range(0, len(operations), _BATCH):
                batch = operations[start : start + _BATCH]
                results.extend(self._apply_batch(batch, indices))
                if time.monotonic() >= until_s:
                    break
        failed = [each.error for each in results if each.error is not None and not each.outrun]
        if failed:
            _log.warning(
                "routes-refused",
                failed=len(failed),
                of=len(results),
                first=failed[0].message,
            )
        return tuple(results)

    def _apply_batch(
        self, operations: Sequence[Operation[Route]], indices: dict[str | None, int | None]
    ) -> list[Result[Route]]:
        """Apply them; ``indices`` collects what each link's name stands for."""
        try:
            connection = self._open()
            for name in {each.object.link for each in operations} - indices.keys():
                indices[name] = index_of(connection, str(name))
            able = [each for each in operations if _resolved(each, indices)]
            failed = self._send(connection, able, indices)
        except KernelError as error:
            self._drop_socket()
            return [Result(each, error) for each in operations]
        numbers = iter(range(len(able)))
        return [
            _result(each, failed.get(next(numbers)) if _resolved(each, indices) else _NO_LINK)
            for each in operations
        ]

    def _send(
        self,
        connection: NetlinkSocket,
        operations: Sequence[Operation[Route]],
        indices: dict[str | None, int | None],
    ) -> dict[int, tuple[int, str]]:
        """Send all in one call and return what failed, by its place in ``operations``."""
        if not operations:
            return {}
        first = connection.next_sequences(len(operations))
        last = first + len(operations) - 1
        frames = [
            _encode(each, indices[each.object.link], sequence, acknowledge=sequence == last)
            for sequence, each in enumerate(operations, first)
        ]
        failed = connection.batch(frames, "writing routes")
        return {sequence - first: failure for sequence, failure in failed.items()}

    def _route(self, payload: bytes) -> Route:
        """The route in what a dump of IPv4 routes had.

        Raises:
            KernelError: It is none.
        """
        found = decode_route(payload, self._names.of)
        if found is None:
            raise KernelError("the kernel listed a route that is not IPv4's among those that are")
        return found

    def _open(self) -> NetlinkSocket:
        if self._socket is None:
            self._socket = NetlinkSocket(timeout_s=self._timeout_s)
        return self._socket

    def _drop_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _resolved(operation: Operation[Route], indices: dict[str | None, int | None]) -> bool:
    """Whether the link that an operation names, if it names one, is there."""
    return operation.object.link is None or indices[operation.object.link] is not None


def _encode(
    operation: Operation[Route], link_index: int | None, sequence: int, *, acknowledge: bool
) -> bytearray:
    flags = _REQUEST | (_ACK if acknowledge else 0)
    if operation.kind is OperationKind.DELETE:
        return encode_route(operation.object, link_index, RTM_DELROUTE, flags, sequence)
    if operation.reason is Reason.MISSING:
        flags |= _NLM_F_CREATE | _NLM_F_EXCL
    else:
        flags |= _NLM_F_CREATE | _NLM_F_REPLACE
    return encode_route(operation.object, link_index, RTM_NEWROUTE, flags, sequence)


def _result(operation: Operation[Route], failure: tuple[int, str] | None) -> Result[Route]:
    if failure is None:
        return Result(operation)
    number, words = failure
    if number in _GONE and operation.kind is OperationKind.DELETE:
        return Result(operation)  # gone already
    what = f"route {operation.kind} {operation.object}"
    outrun = number == errno.EEXIST and operation.reason is Reason.MISSING
    if outrun:
        words = "another route to this destination appeared meanwhile; it is left alone"
    if failure is _NO_LINK:
        words = f"this host has no link {operation.object.link}"
    return Result(operation, NetlinkError(what, number, words), outrun)
