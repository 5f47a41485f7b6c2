"""Names of links and their indices: the kernel's messages have indices, all else has names.

An index may belong to another link tomorrow, and a link may have another name. So a name is
looked up when a message is encoded, and an index that was never seen makes one fresh list.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from agent.kernel.codec import (
    RTM_DELLINK,
    RTM_GETLINK,
    link_by_name_request,
    link_index,
    link_name,
    link_request,
)
from agent.kernel.netlink import NetlinkError, NetlinkSocket

__all__ = ["LinkNames", "dump_link_names", "index_of"]


class LinkNames:
    """The name of each link by its index, as far as is known.

    Args:
        dump: Every name by its index, now. May raise KernelError.
    """

    def __init__(self, dump: Callable[[], dict[int, str]]) -> None:
        self._dump = dump
        self._names: dict[int, str] = {}
        self._given: dict[int, str] = {}
        self._may_dump = True

    def refresh(self) -> bool:
        """List all, and return whether a name that was given out is another now.

        Raises:
            KernelError: The list could not be had completely.
        """
        self._names = self._dump()
        self._may_dump = True
        changed = {each for each, name in self._given.items() if self._names.get(each) != name}
        for each in changed:
            del self._given[each]
        return bool(changed)

    def of(self, index: int) -> str:
        """Return the name, "#7" for an index that no link has.

        Raises:
            KernelError: The list that an unknown index needs could not be had.
        """
        if index not in self._names and self._may_dump:
            self._names = self._dump()
            self._may_dump = False
        name = self._names.get(index, f"#{index}")
        self._given[index] = name
        return name

    def follow(self, kind: int, payload: bytes) -> frozenset[str]:
        """Follow a notification and return the names that the link had and has.

        A bridge announces the ports that it loses as links that go (AF_BRIDGE): those stay.
        """
        index, name = link_index(payload), link_name(payload)
        before = self._names.get(index)
        if kind == RTM_DELLINK and payload[0] == 0:
            self._names.pop(index, None)
        elif name:
            self._names[index] = name
        self._may_dump = True
        return frozenset(filter(None, (before, name)))


def dump_link_names(connection: NetlinkSocket) -> dict[int, str]:
    """Return every link's name by its index.

    Raises:
        KernelError: The list could not be had completely.
    """
    payloads = connection.dump(RTM_GETLINK, link_request(), "listing links")
    return {link_index(each): link_name(each) for each in payloads}


def index_of(connection: NetlinkSocket, name: str) -> int | None:
    """Return the index of the link that has this name now, None when there is none.

    Raises:
        KernelError: No answer.
    """
    try:
        payload = connection.request(
            RTM_GETLINK, link_by_name_request(name), f"looking up the link {name}"
        )
    except NetlinkError as error:
        if error.errno in {errno.ENODEV, errno.EINVAL, errno.ERANGE}:
            return None
        raise
    return link_index(payload)
