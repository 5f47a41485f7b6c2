"""Tells the daemon that routes, links, addresses or neighbours changed.

What it posts is small and coalesced; what to do about it is the daemon's. Losing messages is
normal under load (ENOBUFS): then it opens a new socket and says ``resync``, which means "look
at everything again". The kernel removes IPv4 routes without a message when their link goes down
or an address goes (fib_flush in net/ipv4/fib_frontend.c): see :meth:`KernelEvent.may_have_taken`.

A neighbour table is never quiet: every entry in use is confirmed again each half minute. So of
it only this is told: a neighbour that was asked for is found not to answer, or to answer again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.errors import KernelError
from agent.kernel.listener import Listener, Listening
from agent.kernel.netlink import (
    GROUP_ADDRESSES,
    GROUP_LINKS,
    GROUP_NEIGHBOURS,
    GROUP_ROUTES,
    NetlinkSocket,
    messages,
)
from agent.kernel.netlink.links import (
    RTM_DELLINK,
    RTM_NEWLINK,
    LinkNames,
    RawLink,
    dump_links,
    link_index,
)
from agent.kernel.netlink.message import REPLACE
from agent.kernel.netlink.neighbours import (
    AF_BRIDGE,
    RTM_DELADDR,
    RTM_NEWADDR,
    RTM_NEWNEIGH,
    decode_neighbour,
)
from agent.kernel.netlink.routes import RTM_DELROUTE, RTM_NEWROUTE, decode_route
from agent.model import Route
from agent.model.family import Address, Network
from agent.reconcile.objects import Change
from agent.threads import Poller

__all__ = ["KernelEvent", "Monitor", "NeighbourChange"]

_RECEIVE_BYTES: Final = 16 << 20
_ROUTES_IN_EVENT: Final = 1000
"""More changes than this in one event are told as ``resync``: a full pass is cheaper."""
_DATAGRAMS_IN_EVENT: Final = 20_000
_LOCAL_TABLE: Final = 255
_SCOPE_LINK: Final = 253
_ROUTE_TYPES: Final = frozenset({RTM_NEWROUTE, RTM_DELROUTE})
_LINK_TYPES: Final = frozenset({RTM_NEWLINK, RTM_DELLINK})
_ADDRESS_TYPES: Final = frozenset({RTM_NEWADDR, RTM_DELADDR})


@dataclass(frozen=True, slots=True)
class NeighbourChange:
    """The kernel found that a neighbour does not answer (``failed``), or answers again."""

    address: Address
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelEvent:
    """What changed since the last event.

    Attributes:
        resync: Messages may have been lost, or too many came: look at everything.
        links, addresses: Names of the links of which something of that kind changed. A link with
            a new name is there under both.
        ways: A route by which the uplink is chosen changed (a default one, or one that leads to
            etcd), or one that says what is on a link. The uplink, or its range, may be another now.
        routes: Changes of routes that matter to us, in order.
        neighbours: What became of neighbours asked for with :meth:`Monitor.watch_neighbours`.
    """

    resync: bool = False
    links: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    ways: bool = False
    routes: tuple[Change[Route], ...] = ()
    neighbours: tuple[NeighbourChange, ...] = ()

    def touches(self, links: frozenset[str]) -> bool:
        """Whether one of these links changed, or its addresses."""
        return not links.isdisjoint(self.links | self.addresses)

    def may_have_taken(self, links: frozenset[str], *, by_address: bool = True) -> bool:
        """Whether routes by these links may have gone without a message (see the module's text).

        A list of all routes is called for then. A container that starts changes links, too, and
        none of these; so does a Docker network that is made, with its address.

        Args:
            by_address: Some of the routes have a source address, which may be another link's.
        """
        return self.resync or (by_address and bool(self.addresses)) or self.touches(links)

    def after(self, earlier: KernelEvent) -> KernelEvent:
        """Return one event for ``earlier`` and this one, of routes and what the host has."""
        routes = earlier.routes + self.routes
        resync = earlier.resync or self.resync or len(routes) > _ROUTES_IN_EVENT
        return KernelEvent(
            resync=resync,
            links=earlier.links | self.links,
            addresses=earlier.addresses | self.addresses,
            ways=earlier.ways or self.ways,
            routes=() if resync else routes,
        )

    @property
    def concerns_host(self) -> bool:
        """Whether links, addresses and the choice of the uplink should be looked at again."""
        return self.resync or bool(self.links) or bool(self.addresses) or self.ways

    @property
    def concerns_routes(self) -> bool:
        """Whether there is anything to do for the routes; neighbours alone are not."""
        return self.concerns_host or bool(self.routes)


class Monitor:
    """Watches the network namespace of the thread that calls :meth:`start`.

    Args:
        on_event: Called on the poller's thread; must be quick and must not raise, for example
            a queue's put.
        own_ports: The netlink ports we write from (``RouteTable.port_ids``): the echoes of our
            own changes are not reported.
        coalesce_s: Shortest time between two events.
        receive_bytes: Receive buffer of the socket.
        poller: Shared with other sources; None: one of its own.
    """

    def __init__(
        self,
        on_event: Callable[[KernelEvent], None],
        *,
        own_ports: Callable[[], frozenset[int]] = frozenset,
        coalesce_s: float = 0.01,
        receive_bytes: int = _RECEIVE_BYTES,
        poller: Poller | None = None,
    ) -> None:
        self._own_ports = own_ports
        self._receive_bytes = receive_bytes
        self._filter = _Filter()
        self._names = LinkNames(_list_links)
        self._neighbours: tuple[frozenset[Address], int] = (frozenset(), 0)
        self._failed: set[Address] = set()
        self._listener = Listener(
            Listening(
                name="netlink-monitor",
                open=self._open,
                drain=self._drain,
                lost=KernelEvent(resync=True),
                on_event=on_event,
                coalesce_s=coalesce_s,
            ),
            poller,
        )

    def watch_range(
        self,
        cidrs: tuple[Network, ...] | None,
        protocol: int,
        way_to: Address | None = None,
    ) -> None:
        """Report only route changes that meet ``cidrs`` or bear ``protocol``, and ways out.

        A router with a full table may see thousands of changes a second that mean nothing here.

        Args:
            cidrs: The mesh's; None: not known yet, everything is reported.
            protocol: Of our own routes.
            way_to: Routes to this address and default routes are reported as ``ways``.
        """
        self._filter = _Filter(cidrs, protocol, way_to)

    def watch_neighbours(self, addresses: frozenset[Address], link_index: int) -> None:
        """Report when one of these on this link fails to answer, and when it answers again.

        An address that failed before it was asked for here is told when it fails again.
        """
        self._neighbours = (addresses, link_index)

    def start(self) -> None:
        """Subscribe, then listen: what is listed after this is never stale unnoticed.

        Raises:
            KernelError: No socket could be had.
        """
        self._listener.start()

    def stop(self) -> None:
        """Listen no more; returns within two seconds. Harmless when it does not run."""
        self._listener.stop()

    def _open(self) -> NetlinkSocket:
        found = NetlinkSocket(
            groups=GROUP_LINKS | GROUP_ADDRESSES | GROUP_ROUTES | GROUP_NEIGHBOURS,
            receive_bytes=self._receive_bytes,
        )
        try:
            self._names.refresh()
        except KernelError:
            found.close()
            raise
        return found

    def _drain(self, current: NetlinkSocket) -> KernelEvent | None:
        """Everything queued, as one event; None when nothing of it matters."""
        watched, link_index = self._neighbours
        self._failed &= watched
        collected = _Collector(
            self._filter,
            self._own_ports(),
            self._names,
            _NeighbourWatch(watched, link_index, self._failed),
        )
        until_s = time.monotonic() + 1.0
        for _ in range(_DATAGRAMS_IN_EVENT):
            try:
                data = current.receive_now()
            except BlockingIOError:
                break
            collected.take(data)
            if time.monotonic() > until_s:
                break
        return collected.event()


@dataclass(frozen=True, slots=True)
class _Filter:
    """Which route changes matter; without a range all do."""

    cidrs: tuple[Network, ...] | None = None
    protocol: int = -1
    way_to: Address | None = None

    def is_way(self, route: Route) -> bool:
        """Whether the uplink, or who is on its link, may depend on this foreign route."""
        if route.protocol == self.protocol or route.table == _LOCAL_TABLE:
            return False
        destination = route.destination
        return (
            destination.prefixlen == 0
            or (route.scope == _SCOPE_LINK and route.gateway is None)
            or (self.way_to is not None and self.way_to in destination)
        )

    def matters(self, route: Route) -> bool:
        """Whether our own routes may be touched by this one."""
        return (
            self.cidrs is None
            or route.protocol == self.protocol
            or route.destination.prefixlen == 0
            or any(route.destination.overlaps(each) for each in self.cidrs)
        )


class _NeighbourWatch:
    """Tells the few changes that matter from the many that do not.

    Args:
        failed: Those known to have failed; kept from one event to the next.
    """

    def __init__(self, watched: frozenset[Address], link_index: int, failed: set[Address]) -> None:
        self._watched = watched
        self._link_index = link_index
        self._failed = failed
        self.changes: list[NeighbourChange] = []

    def take(self, payload: bytes) -> None:
        """Look at one RTM_NEWNEIGH."""
        if not self._watched:
            return
        entry = decode_neighbour(payload)
        address = entry.address
        if entry.link_index != self._link_index or address is None or entry.af == AF_BRIDGE:
            return
        if address not in self._watched:
            return
        if entry.failed and address not in self._failed:
            self._failed.add(address)
        elif entry.valid and address in self._failed:
            self._failed.discard(address)
        else:
            return
        self.changes.append(NeighbourChange(address, entry.failed))


class _Collector:
    """Folds messages into one event."""

    def __init__(
        self,
        wanted: _Filter,
        own_ports: frozenset[int],
        names: LinkNames,
        neighbours: _NeighbourWatch,
    ) -> None:
        self._wanted = wanted
        self._own_ports = own_ports
        self._names = names
        self._neighbours = neighbours
        self._links: set[str] = set()
        self._addresses: set[str] = set()
        self._ways = False
        self._resync = False
        self._routes: list[Change[Route]] = []

    def take(self, data: bytes) -> None:
        for kind, flags, _, port, payload in messages(data):
            if kind in _ROUTE_TYPES:
                if port not in self._own_ports or port == 0:
                    self._take_route(kind, flags, payload)
            elif kind in _LINK_TYPES:
                before = self._names.known(link_index(payload))
                link = self._names.follow(kind, payload)
                self._links.update(filter(None, (before, link.name)))
            elif kind in _ADDRESS_TYPES:
                self._addresses.add(self._names.of(link_index(payload)))
            elif kind == RTM_NEWNEIGH:
                self._neighbours.take(payload)

    def _take_route(self, kind: int, flags: int, payload: bytes) -> None:
        if self._resync:
            return
        route = decode_route(payload, self._names.of)
        if route is None:
            return
        self._ways = self._ways or self._wanted.is_way(route)
        if not self._wanted.matters(route):
            return
        self._routes.append(
            Change(
                object=route,
                gone=kind == RTM_DELROUTE,
                replaced=bool(flags & REPLACE),
            )
        )
        if len(self._routes) > _ROUTES_IN_EVENT:
            self._resync = True
            self._routes.clear()

    def event(self) -> KernelEvent | None:
        event = KernelEvent(
            resync=self._resync,
            links=frozenset(self._links),
            addresses=frozenset(self._addresses),
            ways=self._ways,
            routes=tuple(self._routes),
            neighbours=tuple(self._neighbours.changes),
        )
        return None if event == _NOTHING else event


def _list_links() -> list[RawLink]:
    with NetlinkSocket() as connection:
        return dump_links(connection)


_NOTHING: Final = KernelEvent()
