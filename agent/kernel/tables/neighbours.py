"""Permanent entries of the agent's links: neighbours, and forwarding entries of vxlan devices.

The kernel keeps one neighbour for each address of a link, and replaces one of any writer. A vxlan
device keeps one destination for each MAC, which NLM_F_REPLACE replaces; of the all-zero MAC it
keeps many, which can be appended and deleted only (vxlan_fdb_update in vxlan_core.c). Entries that
the kernel learned are none of the agent's; they give way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from agent.kernel.netlink.links import RawLink
from agent.kernel.netlink.message import APPEND, CREATE, REPLACE
from agent.kernel.netlink.neighbours import (
    AF_BRIDGE,
    NUD_NOARP,
    NUD_PERMANENT,
    RTM_DELNEIGH,
    RTM_GETNEIGH,
    RTM_NEWNEIGH,
    RawNeighbour,
    decode_neighbour,
    neighbour_body,
    neighbour_request,
    permanent_part,
)
from agent.kernel.tables.own import is_own_link, own_link
from agent.kernel.tables.session import NetlinkSession
from agent.kernel.tables.table import Dump, NetlinkTable, Request
from agent.model import IPV4, Family, FdbEntry, Neighbour, family_of
from agent.model.objects import NO_MAC
from agent.reconcile.interfaces import Operation, OperationKind

__all__ = ["FdbTable", "NeighbourTable", "entry_of"]

_NTF_SELF: Final = 0x02
"""The entry is the device's own, not its bridge's (NTF_MASTER)."""
_VXLAN: Final = "vxlan"


class NeighbourTable(NetlinkTable[Neighbour]):
    """The permanent neighbours of the agent's links in this network namespace."""

    noun = "neighbour"
    plural = "neighbours"

    def __init__(
        self, families: Sequence[Family] = (IPV4,), *, session: NetlinkSession | None = None
    ) -> None:
        super().__init__(session)
        self._families = families

    def dumps(self, links: Collection[RawLink]) -> Sequence[Dump]:
        """One question for each link of the agent's and each family."""
        return [
            _dump(family.af, link)
            for link in links
            if is_own_link(link)
            for family in self._families
        ]

    def decode(self, payload: bytes, name_of: Callable[[int], str]) -> Neighbour | None:
        """Return the neighbour."""
        found = entry_of(decode_neighbour(payload), name_of)
        return found if isinstance(found, Neighbour) else None

    def encode(
        self, operation: Operation[Neighbour], link_of: Callable[[str], RawLink]
    ) -> Sequence[Request]:
        """Replace or delete."""
        value = operation.object
        index = own_link(link_of, value.link).number
        af = family_of(value.address).af
        return (
            _request(
                operation.kind,
                RawNeighbour(af, index, value.address, value.mac, NUD_PERMANENT, 0),
                CREATE | REPLACE,
            ),
        )


class FdbTable(NetlinkTable[FdbEntry]):
    """The permanent forwarding entries of the agent's vxlan devices."""

    noun = "FDB entry"
    plural = "FDB entries"

    def dumps(self, links: Collection[RawLink]) -> Sequence[Dump]:
        """One question for each vxlan device of the agent's."""
        return [
            _dump(AF_BRIDGE, link) for link in links if is_own_link(link) and link.kind == _VXLAN
        ]

    def decode(self, payload: bytes, name_of: Callable[[int], str]) -> FdbEntry | None:
        """Return the entry."""
        found = entry_of(decode_neighbour(payload), name_of)
        return found if isinstance(found, FdbEntry) else None

    def encode(
        self, operation: Operation[FdbEntry], link_of: Callable[[str], RawLink]
    ) -> Sequence[Request]:
        """Replace, append or delete."""
        value = operation.object
        index = own_link(link_of, value.link).number
        state = NUD_PERMANENT | NUD_NOARP
        return (
            _request(
                operation.kind,
                RawNeighbour(AF_BRIDGE, index, value.destination, value.mac, state, _NTF_SELF),
                CREATE | (APPEND if value.mac == NO_MAC else REPLACE),
            ),
        )


def entry_of(raw: RawNeighbour, name_of: Callable[[int], str]) -> Neighbour | FdbEntry | None:
    """Return the object of an entry of any writer; None for one of another table."""
    if raw.address is None:
        return None
    link = name_of(raw.link_index)
    if raw.af == AF_BRIDGE:
        own = bool(raw.flags & _NTF_SELF)
        return FdbEntry(link=link, mac=raw.mac, destination=raw.address) if own else None
    return Neighbour(link=link, address=raw.address, mac=raw.mac)


def _dump(af: int, link: RawLink) -> Dump:
    def keep(payload: bytes) -> bytes | None:
        return permanent_part(payload, link.number)

    return Dump(kind=RTM_GETNEIGH, body=neighbour_request(af, link.number), keep=keep)


def _request(kind: OperationKind, entry: RawNeighbour, how: int) -> Request:
    if kind is OperationKind.DELETE:
        return Request(RTM_DELNEIGH, 0, neighbour_body(entry))
    return Request(RTM_NEWNEIGH, how, neighbour_body(entry))
