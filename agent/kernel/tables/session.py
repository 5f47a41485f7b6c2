"""A netlink socket and the names of links, shared by tables that are compared together."""

from __future__ import annotations

import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from agent.kernel.netlink import NetlinkSocket
from agent.kernel.netlink.links import LinkNames, RawLink, dump_links

__all__ = ["NetlinkSession"]


class NetlinkSession:
    """One part of the kernel: a socket to it, made anew after an error, and names of links.

    Tables that are compared together share one, so that links are listed once for all of them.
    May be used from several threads; who uses it holds ``lock``.

    Args:
        family: Which part (netlink(7)).
        timeout_s: Longest wait for one answer.
    """

    def __init__(self, *, family: int = socket.NETLINK_ROUTE, timeout_s: float = 10.0) -> None:
        self.lock = threading.RLock()
        self.names = LinkNames(lambda: dump_links(self.open()))
        self.version = 0
        """Raised when a name that was given out belongs to another link, or to none."""
        self._family = family
        self._timeout_s = timeout_s
        self._socket: NetlinkSocket | None = None
        self._given: dict[int, str] = {}
        self._keeps_list = self._has_list = False

    def open(self) -> NetlinkSocket:
        """Return the socket."""
        if self._socket is None:
            self._socket = NetlinkSocket(family=self._family, timeout_s=self._timeout_s)
        return self._socket

    def close(self) -> None:
        """Close the socket; the next use opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def port_ids(self) -> frozenset[int]:
        """Netlink ports this writes from: a notification that bears one echoes the agent."""
        current = self._socket
        return frozenset() if current is None else frozenset({current.port_id})

    @contextmanager
    def links_listed_once(self) -> Iterator[None]:
        """List links for the first table within this only, and again after something was written.

        Elsewhere they are listed for every list of objects.
        """
        self._keeps_list, self._has_list = True, False
        try:
            yield
        finally:
            self._keeps_list = False

    def written(self) -> None:
        """Follow that links may have been written."""
        self._has_list = False

    def list_links(self) -> Collection[RawLink]:
        """Return every link.

        Raises:
            KernelError: The list could not be had completely.
        """
        if not (self._keeps_list and self._has_list):
            self.names.refresh()
            self._has_list = True
            given = self._given.items()
            changed = [index for index, name in given if self.names.of_known(index) != name]
            for index in changed:
                del self._given[index]
            self.version += bool(changed)
        return self.names.links

    def name_of(self, index: int) -> str:
        """Return the name of a link.

        Raises:
            KernelError: The list that an unknown index needs could not be had.
        """
        name = self._given[index] = self.names.of(index)
        return name
