"""Fold netlink's notifications into one event: links that changed, and changes by kind.

An event names the links that changed, so that every object that names one is listed again: the
kernel removes IPv4 routes without a message when their link goes down or an address goes (fib_flush
in net/ipv4/fib_frontend.c). Changes of single objects are reported for routes in the mesh's range,
and for the agent's own links with all that is on them.

A neighbour table is never quiet: every entry in use is confirmed again each half minute. Of other
links' tables only this is reported: a watched neighbour does not answer, or answers again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeVar

from agent.kernel.netlink import messages
from agent.kernel.netlink.links import RTM_DELLINK, RTM_NEWLINK, LinkNames, link_index
from agent.kernel.netlink.message import REPLACE
from agent.kernel.netlink.neighbours import (
    AF_BRIDGE,
    RTM_DELADDR,
    RTM_DELNEIGH,
    RTM_NEWADDR,
    RTM_NEWNEIGH,
    decode_neighbour,
)
from agent.kernel.netlink.routes import RTM_DELROUTE, RTM_NEWROUTE, decode_route
from agent.kernel.tables.addresses import decode_link_address
from agent.kernel.tables.links import decode_link_spec
from agent.kernel.tables.neighbours import entry_of
from agent.kernel.tables.own import is_own_link
from agent.model import Route
from agent.model.family import Address, Network
from agent.reconcile.interfaces import Change

__all__ = ["Collector", "KernelEvent", "NeighbourChange", "NeighbourWatch", "RouteFilter"]

_CHANGES_IN_EVENT: Final = 1000
"""More changes than this in one event become ``resync``: a full pass is cheaper."""
_LOCAL_TABLE: Final = 255
_SCOPE_LINK: Final = 253
_GONE: Final = frozenset({RTM_DELROUTE, RTM_DELLINK, RTM_DELADDR, RTM_DELNEIGH})

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class NeighbourChange:
    """The kernel found that a neighbour does not answer (``failed``), or answers again."""

    address: Address
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelEvent:
    """The changes since the last event.

    Attributes:
        resync: Messages may have been lost, or too many came: look at everything.
        links, addresses: Names of the links of which something of that kind changed. A link with
            a new name is there under both.
        ways: A route changed by which the uplink is chosen (a default one, or one that leads to
            etcd), or one that says which range is on a link. The uplink, or its range, may be
            another now.
        changes: Changes of routes that matter to the agent, and of its links with their addresses,
            neighbours and forwarding entries, in order.
        neighbours: Changes of neighbours asked for with :meth:`Monitor.watch_neighbours`.
    """

    resync: bool = False
    links: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    ways: bool = False
    changes: tuple[Change[Any], ...] = ()
    neighbours: tuple[NeighbourChange, ...] = ()

    def of(self, kind: type[_T]) -> tuple[Change[_T], ...]:  # type: ignore[type-var]
        """Return the changes of one type of object."""
        return tuple(each for each in self.changes if isinstance(each.object, kind))

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
        """Return one event for ``earlier`` and this one, of objects and what the host has."""
        changes = earlier.changes + self.changes
        resync = earlier.resync or self.resync or len(changes) > _CHANGES_IN_EVENT
        return KernelEvent(
            resync=resync,
            links=earlier.links | self.links,
            addresses=earlier.addresses | self.addresses,
            ways=earlier.ways or self.ways,
            changes=() if resync else changes,
        )

    @property
    def concerns_host(self) -> bool:
        """Whether links, addresses and the choice of the uplink should be looked at again."""
        return self.resync or bool(self.links) or bool(self.addresses) or self.ways

    @property
    def concerns_objects(self) -> bool:
        """Whether there is anything to do for the agent's objects; neighbours alone are not."""
        return self.concerns_host or bool(self.changes)


@dataclass(frozen=True, slots=True)
class RouteFilter:
    """Which route changes matter; without a range all do."""

    cidrs: tuple[Network, ...] | None = None
    protocol: int = -1
    way_to: Address | None = None

    def is_way(self, route: Route) -> bool:
        """Whether the uplink, or the range on its link, may depend on this foreign route."""
        if route.protocol == self.protocol or route.table == _LOCAL_TABLE:
            return False
        destination = route.destination
        return (
            destination.prefixlen == 0
            or (route.scope == _SCOPE_LINK and route.gateway is None)
            or (self.way_to is not None and self.way_to in destination)
        )

    def matters(self, route: Route) -> bool:
        """Whether the agent's routes may be affected by this one."""
        return (
            self.cidrs is None
            or route.protocol == self.protocol
            or route.destination.prefixlen == 0
            or any(route.destination.overlaps(each) for each in self.cidrs)
        )


class NeighbourWatch:
    """Picks the few changes that matter from the many that do not.

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


class Collector:
    """Folds messages into one event.

    Args:
        own_ports: Netlink ports the agent writes from: echoes of its changes are left out.
    """

    def __init__(
        self,
        wanted: RouteFilter,
        own_ports: frozenset[int],
        names: LinkNames,
        neighbours: NeighbourWatch,
    ) -> None:
        self._wanted = wanted
        self._own_ports = own_ports - {0}
        self._names = names
        self._neighbours = neighbours
        self._links: set[str] = set()
        self._addresses: set[str] = set()
        self._ways = False
        self._resync = False
        self._changes: list[Change[Any]] = []

    def take(self, data: bytes) -> None:
        """Take every message of a datagram."""
        for kind, flags, _, port, payload in messages(data):
            echo = port in self._own_ports
            if kind in {RTM_NEWROUTE, RTM_DELROUTE}:
                if not echo:
                    self._take_route(kind, flags, payload)
            elif kind in {RTM_NEWLINK, RTM_DELLINK}:
                self._take_link(kind, payload, echo=echo)
            elif kind in {RTM_NEWADDR, RTM_DELADDR}:
                self._take_address(kind, payload, echo=echo)
            elif kind in {RTM_NEWNEIGH, RTM_DELNEIGH}:
                if kind == RTM_NEWNEIGH:
                    self._neighbours.take(payload)
                if not echo and self._is_on_own_link(payload):
                    self._take_entry(kind, payload)

    def _take_route(self, kind: int, flags: int, payload: bytes) -> None:
        if self._resync:
            return
        route = decode_route(payload, self._names.of)
        if route is None:
            return
        self._ways = self._ways or self._wanted.is_way(route)
        if self._wanted.matters(route):
            self._add(kind, route, replaced=bool(flags & REPLACE))

    def _take_link(self, kind: int, payload: bytes, *, echo: bool) -> None:
        before = self._names.link(link_index(payload))
        link = self._names.follow(kind, payload)
        self._links.update(each.name for each in (before, link) if each is not None and each.name)
        if payload[0] != AF_BRIDGE and not echo:
            spec = decode_link_spec(link, self._names.of)
            if spec is not None:
                self._add(kind, spec)

    def _take_address(self, kind: int, payload: bytes, *, echo: bool) -> None:
        self._addresses.add(self._names.of(link_index(payload)))
        if not echo and self._is_on_own_link(payload):
            address = decode_link_address(payload, self._names.of)
            if address is not None:
                self._add(kind, address)

    def _take_entry(self, kind: int, payload: bytes) -> None:
        raw = decode_neighbour(payload)
        entry = entry_of(raw, self._names.of)
        if entry is not None:
            # One that is permanent no longer is the kernel's now, as if it were gone.
            self._add(kind if raw.permanent else RTM_DELNEIGH, entry)

    def _is_on_own_link(self, payload: bytes) -> bool:
        link = self._names.link(link_index(payload))
        return link is not None and is_own_link(link)

    def _add(self, kind: int, value: Any, *, replaced: bool = True) -> None:  # noqa: ANN401
        """Add a change; the kernel keeps one object under each key, but for IPv4 routes."""
        if self._resync:
            return
        self._changes.append(Change(object=value, gone=kind in _GONE, replaced=replaced))
        if len(self._changes) > _CHANGES_IN_EVENT:
            self._resync = True
            self._changes.clear()

    def event(self) -> KernelEvent | None:
        """Return the event; None when nothing of it matters."""
        event = KernelEvent(
            resync=self._resync,
            links=frozenset(self._links),
            addresses=frozenset(self._addresses),
            ways=self._ways,
            changes=tuple(self._changes),
            neighbours=tuple(self._neighbours.changes),
        )
        return None if event == _NOTHING else event


_NOTHING: Final = KernelEvent()
