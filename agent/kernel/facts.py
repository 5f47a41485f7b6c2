"""Facts that the kernel has about this host. Reading only; nothing is cached."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.kernel.netlink import NetlinkSocket
from agent.kernel.netlink.links import LinkNames, RawLink, dump_links
from agent.kernel.netlink.neighbours import (
    RTM_GETADDR,
    RawAddress,
    address_request,
    decode_address,
)
from agent.kernel.netlink.routes import (
    PROTOCOL_AT,
    RTM_GETROUTE,
    decode_route,
    route_dump_request,
)
from agent.kernel.tables.own import is_own_link
from agent.mesh.world import ROUTE_PROTOCOL
from agent.model import HostFacts, Link, Route

__all__ = ["read_host_facts"]

_LOCAL_TABLE: Final = 255


def read_host_facts(protocol: int = ROUTE_PROTOCOL, known: HostFacts | None = None) -> HostFacts:
    """Return links with their IPv4 addresses, and every route that is not of ``protocol``.

    Routes of the table ``local`` are left out: they repeat the addresses. The agent's own routes
    are left out, because they would look like an overlap with the mesh.

    Args:
        protocol: Of the agent's own routes.
        known: Earlier facts whose routes are still right: they are not listed again.

    Raises:
        KernelError: Any of the three lists could not be had completely.
    """
    with NetlinkSocket() as connection:
        links = dump_links(connection)
        addresses = connection.dump(RTM_GETADDR, address_request(), "listing addresses")
        if known is None:
            routes = connection.dump(RTM_GETROUTE, route_dump_request(), "listing routes")
            names = LinkNames(lambda: dump_links(connection), links)
            foreign = tuple(_foreign(routes, protocol, names))
        else:
            foreign = known.foreign_routes
    by_link: dict[int, list[RawAddress]] = {}
    for payload in addresses:
        address = decode_address(payload)
        if address is not None:
            by_link.setdefault(address.link_index, []).append(address)
    return HostFacts(
        links=tuple(_link(each, by_link) for each in links),
        foreign_routes=foreign,
    )


def _link(raw: RawLink, addresses: dict[int, list[RawAddress]]) -> Link:
    own = sorted(addresses.get(raw.number, ()), key=lambda address: address.secondary)
    return Link(
        index=raw.number,
        name=raw.name,
        kind=raw.kind,
        up=raw.up,
        mtu=raw.mtu,
        mac=raw.mac,
        addresses=tuple(address.interface for address in own),
        own=is_own_link(raw),
    )


def _foreign(payloads: Iterable[bytes], protocol: int, names: LinkNames) -> Iterable[Route]:
    for payload in payloads:
        if payload[PROTOCOL_AT] == protocol:
            continue  # in a large mesh nearly all of them: not even decoded
        route = decode_route(payload, names.of)
        if route is not None and route.table != _LOCAL_TABLE:
            yield route
