"""The agent's links: vxlan, bridge and dummy devices.

A link is the agent's if its name has the agent's prefix and its alias (IFLA_IFALIAS) is the
owner mark; that also names what was left to the kernel, so that a list compares equal. Every
other link of such a name is another program's: it is listed as foreign and never touched.

MAC, MTU, up, the check of sources, and a vxlan device's own address, underlay and learning are
changed in place. Anything else means deleting and creating the link, which the log says.

The kernel takes no alias when it creates a link (rtnl_create_link), so that creation and alias are
two messages. They are sent in one call, so that no kill comes between; and the alias goes to an
index that was chosen beforehand, so that it misses a link that another program made.

Sources: linux/if_link.h, net/core/rtnetlink.c, drivers/net/vxlan/vxlan_core.c.
"""

from __future__ import annotations

import errno
import secrets
import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from agent.errors import KernelError
from agent.kernel.netlink import NetlinkError
from agent.kernel.netlink.encoders import encode
from agent.kernel.netlink.links import (
    IFF_UP,
    IFINFO,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    RawLink,
    decode_link,
    dump_links,
    link_request,
    rp_filter_attribute,
)
from agent.kernel.netlink.message import (
    CREATE,
    EXCLUSIVE,
    attribute,
    attributes,
    u32_of,
)
from agent.kernel.tables.own import chosen_by_kernel, is_own_link, mark_of, own_link
from agent.kernel.tables.session import NetlinkSession
from agent.kernel.tables.table import Dump, NetlinkTable, Request
from agent.kernel.tables.taken import why_refused
from agent.model import IPV4, IPV6, Family, LinkSpec, VxlanOptions, family_of
from agent.model.objects import LINK_OWNER, LINK_PREFIX, RP_FILTER_LOOSE
from agent.model.wireguard import WIREGUARD
from agent.reconcile.interfaces import Operation, OperationKind, Result

__all__ = ["LinkTable", "decode_link_spec"]

_log = structlog.get_logger(__name__)

_VXLAN: Final = "vxlan"
_TUNNELS: Final = frozenset({_VXLAN, WIREGUARD})
_KINDS: Final = {"tun": WIREGUARD}
"""A tun device of the agent's is wireguard-go's: the same to all who use it."""
_ID, _LINK, _LEARNING, _PORT = 1, 3, 7, 15
_LOCAL: Final = {IPV4: 4, IPV6: 17}
"""IFLA_VXLAN_ID, _LINK, _LEARNING, _PORT, and _LOCAL and _LOCAL6."""
_PORT_NUMBER: Final = struct.Struct("!H")
_FIRST_INDEX: Final = 1 << 29
"""Indices from here on are far above those that the kernel gives out itself."""


class LinkTable(NetlinkTable[LinkSpec]):
    """The agent's links in this network namespace.

    Args:
        session: May be shared with other tables.
        start_wireguard: Starts wireguard-go where the kernel has no wireguard, and returns what
            became of that.
    """

    noun = "link"
    plural = "links"

    def __init__(
        self,
        session: NetlinkSession | None = None,
        *,
        start_wireguard: Callable[[], str] | None = None,
    ) -> None:
        super().__init__(session)
        self._start_wireguard = start_wireguard

    def dumps(self, links: Collection[RawLink]) -> Sequence[Dump]:
        """All links; those of the agent's names matter."""
        del links
        return (Dump(kind=RTM_GETLINK, body=link_request(), keep=_named),)

    def decode(self, payload: bytes, name_of: Callable[[int], str]) -> LinkSpec | None:
        """Return the link as it would be asked for."""
        return decode_link_spec(decode_link(payload), name_of)

    def is_own(self, value: LinkSpec) -> bool:
        """Whether it bears the owner mark."""
        return value.owner == LINK_OWNER

    def encode(
        self, operation: Operation[LinkSpec], link_of: Callable[[str], RawLink]
    ) -> Sequence[Request]:
        """Create with the owner mark; or change in place, if that is possible; or delete."""
        wanted, actual = operation.object, operation.actual
        if operation.kind is OperationKind.DELETE:
            return (_deletion(own_link(link_of, wanted.name)),)
        if actual is None:
            return _creation(wanted, link_of)
        link = own_link(link_of, wanted.name)
        if _can_become(actual, wanted):
            return (_change(wanted, actual, link, link_of),)
        _log.warning("link-recreated", link=wanted.name, was=str(actual), wanted=str(wanted))
        return (_deletion(link), *_creation(wanted, link_of))

    def apply(
        self, operations: Sequence[Operation[LinkSpec]], *, for_s: float | None = None
    ) -> tuple[Result[LinkSpec], ...]:
        """Carry out operations as :meth:`NetlinkTable.apply`; a tunnel brings no IPv6 router."""
        results = super().apply(operations, for_s=for_s)
        for each in results:
            link = each.operation.object
            if each.ok and each.operation.kind is OperationKind.REPLACE and link.kind in _TUNNELS:
                _refuse_routers(link.name)
        return results

    def _explained(self, operation: Operation[LinkSpec], refused: NetlinkError) -> NetlinkError:
        """Name the program that is in the way of a device, or start the one that makes it."""
        kernel_lacks = refused.errno == errno.EOPNOTSUPP and operation.object.kind == WIREGUARD
        if kernel_lacks and self._start_wireguard is not None:
            detail = f"the kernel has no wireguard; {self._start_wireguard()}"
            return NetlinkError(f"link replace {operation.object}", refused.errno, detail)
        try:
            return why_refused(operation.object, refused, dump_links(self.session.open()))
        except KernelError:
            return refused


def _refuse_routers(name: str) -> None:
    """Keep a packet in a tunnel from giving this host an IPv6 router."""
    try:
        Path(f"/proc/sys/net/ipv6/conf/{name}/accept_ra").write_text("0", encoding="ascii")
    except FileNotFoundError:
        return  # a kernel without IPv6
    except OSError as error:
        _log.warning("ipv6-routers-not-refused", link=name, reason=error.strerror)


def decode_link_spec(link: RawLink, name_of: Callable[[int], str]) -> LinkSpec | None:
    """Return a link as it would be asked for; None without a name of the agent's."""
    if not link.name.startswith(LINK_PREFIX):
        return None
    auto = chosen_by_kernel(link.alias)
    return LinkSpec(
        name=link.name,
        kind=_KINDS.get(link.kind, link.kind),
        mac="" if "mac" in auto else link.mac,
        mtu=0 if "mtu" in auto else link.mtu,
        up=link.up,
        options=_vxlan_options(link.data, name_of) if link.kind == _VXLAN else None,
        rp_filter=RP_FILTER_LOOSE if link.rp_filter is None else link.rp_filter,
        owner=LINK_OWNER if is_own_link(link) else link.alias,
    )


def _named(payload: bytes) -> bytes | None:
    """Return the payload of a link with one of the agent's names, which the kernel lists first."""
    found = (value for number, value in attributes(payload, IFINFO.size) if number == IFLA_IFNAME)
    return payload if next(found, b"").startswith(LINK_PREFIX.encode()) else None


def _vxlan_options(data: bytes, name_of: Callable[[int], str]) -> VxlanOptions:
    found = dict(attributes(data))
    local = next(
        (family.address(found[number]) for family, number in _LOCAL.items() if number in found),
        None,
    )
    return VxlanOptions(
        vni=u32_of(found[_ID]),
        port=_PORT_NUMBER.unpack(found[_PORT])[0],
        local=local,
        underlay=name_of(u32_of(found[_LINK])) if _LINK in found else None,
        learning=bool(found.get(_LEARNING, b"\0")[0]),
    )


def _creation(wanted: LinkSpec, link_of: Callable[[str], RawLink]) -> Sequence[Request]:
    index = _FIRST_INDEX + secrets.randbelow(_FIRST_INDEX)
    info: list[tuple[str, object]] = [("IFLA_INFO_KIND", wanted.kind)]
    if wanted.options is not None:
        info.append(("IFLA_INFO_DATA", {"attrs": _vxlan_data(wanted.options, link_of)}))
    made = (("IFLA_IFNAME", wanted.name), *_given(wanted), ("IFLA_LINKINFO", {"attrs": info}))
    return (
        Request(RTM_NEWLINK, CREATE | EXCLUSIVE, _message(index, made, up=wanted.up)),
        Request(RTM_NEWLINK, 0, IFINFO.pack(0, 0, 0, index, 0, 0) + _mark(wanted)),
    )


def _message(index: int, attributes: Sequence[tuple[str, object]], *, up: bool) -> bytes:
    fields = {"index": index, "flags": IFF_UP if up else 0, "change": IFF_UP}
    return encode("ifinfmsg", fields, attributes)


def _vxlan_data(
    options: VxlanOptions, link_of: Callable[[str], RawLink], *, changes: bool = False
) -> list[tuple[str, object]]:
    """Return what makes a device; or what changes one, which takes no port, its own neither.

    Outer packets have a checksum. Linux before 5.7 writes a wrong one into a packet without one
    when NAT meets checksum offload (commit ea64d8d6c675); nothing has to be switched off then.
    """
    data: list[tuple[str, object]] = [
        ("IFLA_VXLAN_ID", options.vni),
        *([] if changes else [("IFLA_VXLAN_PORT", options.port), ("IFLA_VXLAN_UDP_CSUM", 1)]),
        ("IFLA_VXLAN_LEARNING", int(options.learning)),
    ]
    if options.local is not None:
        name = "IFLA_VXLAN_LOCAL" if family_of(options.local) is IPV4 else "IFLA_VXLAN_LOCAL6"
        data.append((name, str(options.local)))
    if options.underlay is not None:
        data.append(("IFLA_VXLAN_LINK", link_of(options.underlay).number))
    return data


def _can_become(actual: LinkSpec, wanted: LinkSpec) -> bool:
    """Whether the link can be changed in place (vxlan_changelink takes no other VNI or port)."""
    options, old = wanted.options, actual.options
    if options and old and _given_parts(options) == _given_parts(old):
        options = replace(old, local=options.local, underlay=options.underlay,
                          learning=options.learning)  # fmt: skip
    return replace(actual, mac=wanted.mac, mtu=wanted.mtu, up=wanted.up,
                   rp_filter=wanted.rp_filter, options=options) == wanted  # fmt: skip


def _given_parts(options: VxlanOptions) -> tuple[Family | None, bool]:
    """Return what of a device is given: an attribute that is left out changes nothing."""
    local = None if options.local is None else family_of(options.local)
    return local, options.underlay is not None


def _change(
    wanted: LinkSpec, actual: LinkSpec, link: RawLink, link_of: Callable[[str], RawLink]
) -> Request:
    """Set what differs. A MAC that is set again, if the same, flushes the link's neighbours."""
    differing = replace(
        wanted,
        mac="" if wanted.mac == actual.mac else wanted.mac,
        mtu=0 if wanted.mtu == actual.mtu else wanted.mtu,
    )
    given = _given(differing)
    if wanted.options is not None and wanted.options != actual.options:
        data = _vxlan_data(wanted.options, link_of, changes=True)
        info = [("IFLA_INFO_KIND", wanted.kind), ("IFLA_INFO_DATA", {"attrs": data})]
        given.append(("IFLA_LINKINFO", {"attrs": info}))
    body = _message(link.number, given, up=wanted.up)
    return Request(RTM_NEWLINK, 0, body + _mark(wanted))


def _deletion(link: RawLink) -> Request:
    return Request(RTM_DELLINK, 0, IFINFO.pack(0, 0, 0, link.number, 0, 0))


def _given(wanted: LinkSpec) -> list[tuple[str, object]]:
    """Return the attributes of the MAC and the MTU, as far as they are given."""
    given: list[tuple[str, object]] = [("IFLA_ADDRESS", wanted.mac)] if wanted.mac else []
    return [*given, ("IFLA_MTU", wanted.mtu)] if wanted.mtu else given


def _mark(wanted: LinkSpec) -> bytes:
    alias = attribute(IFLA_IFALIAS, mark_of(mac=wanted.mac, mtu=wanted.mtu).encode())
    return alias + rp_filter_attribute(wanted.rp_filter)
