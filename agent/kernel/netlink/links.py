"""Links: what a list has of them, and their names by index.

The kernel's messages have indices, all else has names. An index may belong to another link
tomorrow, and a link may have another name. So a name is looked up when a message is encoded, and
an index that was never seen makes one fresh list.

Sources: rtnetlink(7), linux/if_link.h.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple

from agent.kernel.netlink.message import attribute, attributes, nested, text_of, u32, u32_of
from agent.kernel.netlink.socket import NetlinkError, NetlinkSocket

__all__ = [
    "IFF_UP",
    "IFINFO",
    "IFLA_ADDRESS",
    "IFLA_AF_SPEC",
    "IFLA_IFALIAS",
    "IFLA_IFNAME",
    "IFLA_LINKINFO",
    "IFLA_MTU",
    "INFO_DATA",
    "INFO_KIND",
    "RTM_DELLINK",
    "RTM_GETLINK",
    "RTM_NEWLINK",
    "LinkMissing",
    "LinkNames",
    "RawLink",
    "decode_link",
    "dump_links",
    "find_link",
    "link_index",
    "link_request",
    "rp_filter_attribute",
]

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18

IFINFO: Final = struct.Struct("=BBHiII")
"""struct ifinfomsg: family, padding, type, index, flags, changed flags."""
IFF_UP, _IFF_RUNNING = 0x1, 0x40
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_IFALIAS = 1, 3, 4, 18, 20
IFLA_AF_SPEC, _EXT_MASK = 26, 29
INFO_KIND, INFO_DATA = 1, 2
_AF_INET, _INET_CONF, _RP_FILTER = 2, 1, 8
"""AF_INET, IFLA_INET_CONF, IPV4_DEVCONF_RP_FILTER."""
_SKIP_STATISTICS: Final = 8  # RTEXT_FILTER_SKIP_STATS


class RawLink(NamedTuple):
    """A link without its addresses.

    Attributes:
        number: Its index.
        running: IFF_RUNNING: there is a carrier.
        alias: IFLA_IFALIAS, "" without one.
        data: IFLAINFO_DATA: attributes that depend on the kind.
        rp_filter: None where the kernel does not say.
    """

    number: int
    name: str
    kind: str
    up: bool
    running: bool
    mtu: int
    mac: str
    alias: str = ""
    data: bytes = b""
    rp_filter: int | None = None


class LinkMissing(NetlinkError):
    """No link has that name now."""

    def __init__(self, name: str) -> None:
        super().__init__("looking up a link", errno.ENODEV, f"this host has no link {name}")


def link_request(name: str = "") -> bytes:
    """Body of RTM_GETLINK, without counters: for the one link of this name, or for a dump."""
    body = IFINFO.pack(0, 0, 0, 0, 0, 0) + u32(_EXT_MASK, _SKIP_STATISTICS)
    return body + attribute(IFLA_IFNAME, name.encode() + b"\0") if name else body


def link_index(payload: bytes) -> int:
    """Return the link that an ifinfomsg or an ifaddrmsg is about."""
    return int.from_bytes(payload[4:8], sys.byteorder)


def decode_link(payload: bytes) -> RawLink:
    """Return the link in an ifinfomsg."""
    _, _, _, index, flags, _ = IFINFO.unpack_from(payload)
    found = dict(attributes(payload, IFINFO.size))
    info = dict(attributes(found.get(IFLA_LINKINFO, b"")))
    return RawLink(
        number=index,
        name=text_of(found.get(IFLA_IFNAME, b"")),
        kind=text_of(info.get(INFO_KIND, b"")),
        up=bool(flags & IFF_UP),
        running=bool(flags & _IFF_RUNNING),
        mtu=u32_of(found[IFLA_MTU]) if IFLA_MTU in found else 0,
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        alias=text_of(found.get(IFLA_IFALIAS, b"")),
        data=info.get(INFO_DATA, b""),
        rp_filter=_rp_filter(found.get(IFLA_AF_SPEC, b"")),
    )


def rp_filter_attribute(value: int) -> bytes:
    """Return the attribute that sets a link's net.ipv4.conf.NAME.rp_filter (inet_set_link_af)."""
    return nested(IFLA_AF_SPEC, nested(_AF_INET, nested(_INET_CONF, u32(_RP_FILTER, value))))


def _rp_filter(by_family: bytes) -> int | None:
    """Read it from what the kernel lists: all values of that kind in a row, from 1 on."""
    of_ipv4 = dict(attributes(dict(attributes(by_family)).get(_AF_INET, b"")))
    values = of_ipv4.get(_INET_CONF, b"")[4 * (_RP_FILTER - 1) :]
    return u32_of(values) if values else None


def dump_links(connection: NetlinkSocket) -> list[RawLink]:
    """Return every link.

    Raises:
        KernelError: The list could not be had completely.
    """
    return list(map(decode_link, connection.dump(RTM_GETLINK, link_request(), "listing links")))


def find_link(connection: NetlinkSocket, name: str) -> RawLink:
    """Return the link that has this name now.

    Raises:
        LinkMissing: There is none.
        KernelError: No answer.
    """
    try:
        found = connection.request(RTM_GETLINK, link_request(name), f"looking up the link {name}")
    except NetlinkError as error:
        if error.errno in {errno.ENODEV, errno.EINVAL, errno.ERANGE}:
            raise LinkMissing(name) from error
        raise
    return decode_link(found)


class LinkNames:
    """The name of each link by its index, as far as is known.

    Args:
        dump: Every link, now. May raise KernelError.
        known: An earlier list.
    """

    def __init__(
        self, dump: Callable[[], Iterable[RawLink]], known: Iterable[RawLink] = ()
    ) -> None:
        self._dump = dump
        self._links = {each.number: each for each in known}
        self._may_dump = True

    def refresh(self) -> None:
        """List all.

        Raises:
            KernelError: The list could not be had completely.
        """
        self._links = {each.number: each for each in self._dump()}
        self._may_dump = True

    def of(self, index: int) -> str:
        """Return the name, "#7" for an index that no link has.

        Raises:
            KernelError: The list that an unknown index needs could not be had.
        """
        if index not in self._links and self._may_dump:
            self._links = {each.number: each for each in self._dump()}
            self._may_dump = False
        return self.of_known(index)

    def of_known(self, index: int) -> str:
        """Return the name as far as is known, without a list."""
        found = self._links.get(index)
        return f"#{index}" if found is None else found.name

    def link(self, index: int) -> RawLink | None:
        """Return the link as far as is known, without a list."""
        return self._links.get(index)

    @property
    def links(self) -> Collection[RawLink]:
        """Every link of the last list."""
        return self._links.values()

    def follow(self, kind: int, payload: bytes) -> RawLink:
        """Follow a notification and return the link, under its new name.

        A bridge announces the ports that it loses as links that go (AF_BRIDGE): those stay.
        """
        link = decode_link(payload)
        if kind == RTM_DELLINK and payload[0] == 0:
            self._links.pop(link.number, None)
        elif payload[0] == 0:
            self._links[link.number] = link
        self._may_dump = True
        return link
