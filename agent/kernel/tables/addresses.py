"""Addresses of the agent's links, but for those that the kernel gives a link itself (fe80::).

Beside them the addresses of the name servers on ``lo``, while these are wanted. The agent brings
them back and never deletes them: containers ask there as long as they run, whether their host still
has names of the mesh or not. Other addresses of ``lo`` are not looked at.
"""

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
from agent.model.names import LOOPBACK, NAME_SERVERS
from agent.reconcile.interfaces import Operation, OperationKind

__all__ = ["AddressTable", "decode_link_address"]

_SCOPE_LINK: Final = 253


class AddressTable(NetlinkTable[LinkAddress]):
    """The addresses of the agent's links in this network namespace.

    Attributes:
        of_servers: Whether the addresses of the name servers are listed as well.
    """

    noun = "address"
    plural = "addresses"

    def __init__(
        self, families: Sequence[Family] = (IPV4,), *, session: NetlinkSession | None = None
    ) -> None:
        super().__init__(session)
        self._families = families
        self.of_servers = False

    def dumps(self, links: Collection[RawLink]) -> Sequence[Dump]:
        """One question for each link of the agent's and each family."""
        loopback = (link for link in links if link.name == LOOPBACK and self.of_servers)
        servers = [
            Dump(
                kind=RTM_GETADDR,
                body=address_request(family, link.number),
                keep=_keep_servers,
            )
            for link in loopback
            for family in self._families
        ]
        return servers + [
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
        link = link_of(LOOPBACK) if _is_server(value) else own_link(link_of, value.link)
        index = link.number
        body = address_body(value.interface, index, family_of(value.interface))
        if operation.kind is OperationKind.DELETE:
            return (Request(RTM_DELADDR, 0, body),)
        return (Request(RTM_NEWADDR, CREATE | REPLACE, body),)


def _is_server(value: LinkAddress) -> bool:
    return value.link == LOOPBACK and value.interface.ip in NAME_SERVERS


def _keep_servers(payload: bytes) -> bytes | None:
    raw = decode_address(payload)
    return payload if raw is not None and raw.interface.ip in NAME_SERVERS else None


def decode_link_address(payload: bytes, name_of: Callable[[int], str]) -> LinkAddress | None:
    """Return the address in an ifaddrmsg; None for one that the kernel gave the link itself."""
    raw = decode_address(payload)
    if raw is None or (raw.interface.version != IPV4.version and raw.scope == _SCOPE_LINK):
        return None
    return LinkAddress(link=name_of(raw.link_index), interface=raw.interface)
