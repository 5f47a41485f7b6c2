"""Routes of either family to and from rtnetlink's bytes.

All of a message but its addresses is the same for many routes, so it is encoded once for each
such shape. Reading is direct: a comparison of all routes decodes thousands at a time.

IPv4 (fib_table_insert in net/ipv4/fib_trie.c): the key is (table, destination, TOS, metric);
NLM_F_REPLACE replaces the first route under it, of any writer; the kernel deletes routes
without a notification when their link goes down or their address goes (fib_flush).

IPv6 (fib6_add_rt2node in net/ipv6/ip6_fib.c, inet6_rtm_newroute in net/ipv6/route.c): there is no
TOS, the key is (table, destination, metric). A metric of 0 is stored as 1024 and in a deletion
matches any: Route never has 0. NLM_F_EXCL refuses a second route under the key; without it a
second next hop joins the first as a multipath route. NLM_F_REPLACE replaces the first route of the
metric that has a gateway as the new one has or has not, all its next hops with it; if none is
alike, the first one of the metric. A refusal (unreachable, …) is listed with the link lo, which is
read as no link. Deletions are announced when a link goes down (unless
net.ipv6.route.skip_notify_on_dev_down is set).

Sources: rtnetlink(7), linux/rtnetlink.h.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from agent.kernel.netlink.encoders import encode
from agent.kernel.netlink.message import (
    attribute,
    attributes,
    u32,
    u32_of,
)
from agent.model import FAMILIES, IPV4, Address, Family, Network, Route, family_of

__all__ = [
    "PROTOCOL_AT",
    "RTM_DELROUTE",
    "RTM_GETROUTE",
    "RTM_NEWROUTE",
    "decode_route",
    "meets",
    "route_body",
    "route_dump_request",
    "route_lookup_request",
]

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

_KINDS: Final = (
    "unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole",
    "unreachable", "prohibit", "throw", "nat", "xresolve",
)  # fmt: skip
_BY_AF: Final = {family.af: family for family in FAMILIES}
_SCOPE_ANY: Final = 255
"""RT_SCOPE_NOWHERE: in a deletion it matches every scope (fib_table_delete)."""
_FLAG_ONLINK: Final = 4
_FLAG_FIB_MATCH: Final = 0x2000  # RTM_F_FIB_MATCH
_BYTE_MAX: Final = 255
_TABLE_COMPAT: Final = 252
"""RT_TABLE_COMPAT: the header's byte has it for a table above 255, which RTA_TABLE names."""

_RTMSG: Final = struct.Struct("=BBBBBBBBI")
PROTOCOL_AT: Final = 5
"""offsetof(struct rtmsg, rtm_protocol)."""

_DST, _SRC, _IIF, _OIF, _GATEWAY, _PRIORITY, _PREFSRC = 1, 2, 3, 4, 5, 6, 7
_METRICS, _MULTIPATH = 8, 9
_CACHEINFO, _TABLE, _PREF = 12, 15, 20
_MTU: Final = 2  # RTAX_MTU
_PLAIN: Final = frozenset(
    {_DST, _OIF, _GATEWAY, _PRIORITY, _PREFSRC, _METRICS, _CACHEINFO, _TABLE, _PREF}
)
_ODD_NAMES: Final = {
    _SRC: "from", _IIF: "iif", _MULTIPATH: "multipath", 11: "realm", 16: "mark", 18: "via6",
    22: "encap", 30: "nhid",
}  # fmt: skip
_REFUSALS: Final = frozenset({"blackhole", "unreachable", "prohibit", "throw"})
_LOOPBACK: Final = "lo"


def decode_route(payload: bytes, name_of: Callable[[int], str]) -> Route | None:
    """Return the route in an rtmsg, None when it is of another family (a multicast one's).

    A route that carries what Hostmesh never writes (several next hops, a metric beside the MTU, …)
    has that appended to its kind, as in ``unicast+metrics``. So it never equals a desired one,
    and counts as modified.

    Args:
        payload: The message behind its netlink header.
        name_of: The name of the link that has an index.
    """
    af, dst_len, _, tos, table, protocol, scope, kind, flags = _RTMSG.unpack_from(payload)
    family = _BY_AF.get(af)
    if family is None:
        return None
    found: dict[int, bytes] = {}
    odd: list[str] = []
    for name, value in attributes(payload, _RTMSG.size):
        if name in _PLAIN:
            found[name] = value
        else:
            odd.append(_ODD_NAMES.get(name, f"attribute{name}"))
    metrics = dict(attributes(found.get(_METRICS, b"")))
    if metrics.keys() - {_MTU}:
        odd.append("metrics")
    mtu = u32_of(metrics[_MTU]) if metrics.keys() == {_MTU} else 0
    kind_name = _KINDS[kind] if kind < len(_KINDS) else f"type{kind}"
    gateway, prefsrc, metric = found.get(_GATEWAY), found.get(_PREFSRC), found.get(_PRIORITY)
    return Route(
        destination=family.network((int.from_bytes(found.get(_DST, b"\0")), dst_len)),
        kind="+".join((kind_name, *odd)) if odd else kind_name,
        gateway=None if gateway is None else family.address(gateway),
        link=_link_of(found.get(_OIF), kind_name, family, name_of),
        prefsrc=None if prefsrc is None else family.address(prefsrc),
        protocol=protocol,
        table=u32_of(found[_TABLE]) if _TABLE in found else table,
        metric=0 if metric is None else u32_of(metric),
        tos=tos,
        scope=scope,
        onlink=bool(flags & _FLAG_ONLINK),
        mtu=mtu,
    )


def _link_of(
    index: bytes | None, kind: str, family: Family, name_of: Callable[[int], str]
) -> str | None:
    if index is None:
        return None
    name = name_of(u32_of(index))
    by_none = family is not IPV4 and kind in _REFUSALS and name == _LOOPBACK
    return None if by_none else name


class _Shape(NamedTuple):
    """All of a message's body but the destination and the gateway."""

    af: int
    prefixlen: int
    kind: str
    protocol: int
    table: int
    metric: int
    tos: int
    scope: int
    link_index: int | None
    prefsrc: Address | None
    onlink: bool
    mtu: int


@functools.lru_cache(maxsize=256)
def _encoded(shape: _Shape) -> bytes:
    attrs: list[tuple[str, object]] = [("RTA_TABLE", shape.table)]
    if shape.link_index is not None:
        attrs.append(("RTA_OIF", shape.link_index))
    if shape.prefsrc is not None:
        attrs.append(("RTA_PREFSRC", str(shape.prefsrc)))
    if shape.metric:
        attrs.append(("RTA_PRIORITY", shape.metric))
    if shape.mtu:
        attrs.append(("RTA_METRICS", {"attrs": [("RTAX_MTU", shape.mtu)]}))
    fields = {
        "family": shape.af,
        "dst_len": shape.prefixlen,
        "tos": shape.tos,
        "table": shape.table if shape.table <= _BYTE_MAX else _TABLE_COMPAT,
        "proto": shape.protocol,
        "scope": shape.scope,
        "type": _KINDS.index(shape.kind),
        "flags": _FLAG_ONLINK if shape.onlink else 0,
    }
    return encode("rtmsg", fields, attrs)


def route_body(route: Route, link_index: int | None, *, deleting: bool = False) -> bytes:
    """Body of RTM_NEWROUTE and RTM_DELROUTE for ``route``, its link resolved.

    A deletion names what the kernel compares (fib_table_delete, ip6_route_del), protocol included,
    so that it can never hit another writer's route. Its scope is any, and what was read as odd is
    left out.
    """
    family = family_of(route.destination)
    shape = _Shape(
        family.af,
        route.destination.prefixlen,
        route.kind.partition("+")[0],
        route.protocol,
        route.table,
        route.metric,
        route.tos,
        _SCOPE_ANY if deleting and family is IPV4 else route.scope,
        link_index,
        route.prefsrc,
        route.onlink,
        route.mtu,
    )
    body = _encoded(shape)
    if route.destination.prefixlen:
        body += attribute(_DST, route.destination.network_address.packed)
    if route.gateway is not None:
        body += attribute(_GATEWAY, route.gateway.packed)
    return body


def route_dump_request(family: Family = IPV4, *, protocol: int = 0, table: int = 0) -> bytes:
    """Body of a strict dump request: the kernel sends only this protocol's, this table's routes.

    0 means any. See ip_valid_fib_dump_req in net/ipv4/fib_frontend.c (Linux 4.20 and later).
    """
    body = _RTMSG.pack(family.af, 0, 0, 0, 0, protocol, 0, 0, 0)
    return body + u32(_TABLE, table) if table else body


def route_lookup_request(
    address: Address, *, source: Address | None = None, in_link: int = 0, entry: bool = False
) -> bytes:
    """Body of RTM_GETROUTE, which asks the way a packet to ``address`` would go.

    Args:
        address: Where to.
        source: The packet's source address; None leaves it to the kernel.
        in_link: Index of the link it came in by; 0 for a packet of this host's own.
        entry: Answer with the routing table's entry instead of the way (RTM_F_FIB_MATCH).
    """
    family = family_of(address)
    flags = _FLAG_FIB_MATCH if entry else 0
    body = _RTMSG.pack(family.af, family.bits, family.bits if source else 0, 0, 0, 0, 0, 0, flags)
    body += attribute(_DST, address.packed)
    if source is not None:
        body += attribute(_SRC, source.packed)
    if in_link:
        body += u32(_IIF, in_link)
    return body


def meets(payload: bytes, networks: tuple[Network, ...]) -> bool:
    """Whether the destination of an rtmsg overlaps one of these. Of a router's many few do."""
    prefixlen = payload[1]
    found = (value for name, value in attributes(payload, _RTMSG.size) if name == _DST)
    first = int.from_bytes(next(found, b""))
    for each in networks:
        family = family_of(each)
        shift = family.bits - min(prefixlen, each.prefixlen)
        if family.af == payload[0] and (first ^ int(each.network_address)) >> shift == 0:
            return True
    return False
