"""Addresses of the agent's links, but for those that the kernel gives a link itself (fe80::)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from agent.kernel.netlink.links import RawLink
from agent.kernel.netlink.message import CREATE, REPLACE
from agent.kernel.netlink.neighbours import (
    RTM_DELADDR,
    RTM_GETADDR,
    RTM_NEWADDR,
    address_body,
    address_request,
    decode_address,
)
from agent.kernel.tables.own import is_own_link, own_link
from agent.kernel.tables.session import NetlinkSession
from agent.kernel.tables.table import Dump, NetlinkTable, Request
from agent.model import IPV4, Family, LinkAddress, family_of
from agent.reconcile.interfaces import Operation, OperationKind

__all__ = ["AddressTable", "decode_link_address"]

_SCOPE_LINK: Final = 253


class AddressTable(NetlinkTable[LinkAddress]):
    """The addresses of the agent's links in this network namespace."""

    noun = "address"
    plural = "addresses"

    def __init__(
        self, families: Sequence[Family] = (IPV4,), *, session: NetlinkSession | None = None
    ) -> None:
        super().__init__(session)
        self._families = families

    def dumps(self, links: Collection[RawLink]) -> Sequence[Dump]:
        """One question for each link of the agent's and each family."""
        return [
            Dump(
                kind=RTM_GETADDR,
                body=address_request(family, link.number),
                keep=lambda payload: payload,
            )
            for link in links
            if is_own_link(link)
            for family in self._families
        ]

    def decode(self, payload: bytes, name_of: Callable[[int], str]) -> LinkAddress | None:
        """Return the address."""
        return decode_link_address(payload, name_of)

    def encode(
        self, operation: Operation[LinkAddress], link_of: Callable[[str], RawLink]
    ) -> Sequence[Request]:
        """Add or delete."""
        value = operation.object
        index = own_link(link_of, value.link).number
        body = address_body(value.interface, index, family_of(value.interface))
        if operation.kind is OperationKind.DELETE:
            return (Request(RTM_DELADDR, 0, body),)
        return (Request(RTM_NEWADDR, CREATE | REPLACE, body),)


def decode_link_address(payload: bytes, name_of: Callable[[int], str]) -> LinkAddress | None:
    """Return the address in an ifaddrmsg; None for one that the kernel gave the link itself."""
    raw = decode_address(payload)
    if raw is None or (raw.interface.version != IPV4.version and raw.scope == _SCOPE_LINK):
        return None
    return LinkAddress(link=name_of(raw.link_index), interface=raw.interface)
