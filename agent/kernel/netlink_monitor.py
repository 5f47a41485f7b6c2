"""Tells the daemon that routes, links, addresses or neighbours changed.

What it posts is small and coalesced; what to do about it is the daemon's. Losing messages is
normal under load (ENOBUFS): then it opens a new socket and says ``resync``, which means "look
at everything again". :mod:`agent.kernel.notifications` reads the messages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from agent.errors import KernelError
from agent.kernel.listener import Listener, Listening
from agent.kernel.netlink import (
    GROUP_ADDRESSES,
    GROUP_LINKS,
    GROUP_NEIGHBOURS,
    GROUP_ROUTES,
    NetlinkSocket,
)
from agent.kernel.netlink.links import LinkNames, RawLink, dump_links
from agent.kernel.notifications import (
    Collector,
    KernelEvent,
    NeighbourChange,
    NeighbourWatch,
    RouteFilter,
)
from agent.model.family import Address, Network
from agent.threads import Poller

__all__ = ["KernelEvent", "Monitor", "NeighbourChange"]

_RECEIVE_BYTES: Final = 16 << 20
_DATAGRAMS_IN_EVENT: Final = 20_000


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
        self._filter = RouteFilter()
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
        self._filter = RouteFilter(cidrs, protocol, way_to)

    def watch_neighbours(self, addresses: frozenset[Address], link_index: int) -> None:
        """Report when one of these on this link fails to answer, and when it answers again.

        An address that failed before it was asked for here is reported when it fails again.
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
        """Return everything queued as one event; None when nothing of it matters."""
        watched, link_index = self._neighbours
        self._failed &= watched
        collected = Collector(
            self._filter,
            self._own_ports(),
            self._names,
            NeighbourWatch(watched, link_index, self._failed),
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


def _list_links() -> list[RawLink]:
    with NetlinkSocket() as connection:
        return dump_links(connection)
