"""Sets of ours in the kernel: what keeps the number of rules free of what there is many of."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final, Generic, TypeVar

from pyroute2 import IPSet
from pyroute2.netlink import NLA_F_NET_BYTEORDER, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR
from pyroute2.netlink.exceptions import NetlinkError as LibraryError
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_IPSET
from pyroute2.netlink.nfnetlink.ipset import IPSET_CMD_ADD, IPSET_CMD_DEL, ipset_msg

from agent.errors import FirewallError, KernelError, NotRoot
from agent.kernel.ipsetlist import dump_set, listing_of
from agent.kernel.netlink import NetlinkError
from agent.mesh.firewall import PEERS_SET, PUBLISHED_SET, SENDERS_SET, PublishedPort, Sender
from agent.model.family import Address

__all__ = ["KernelSet", "SetChange", "SetKind", "peer_set", "published_set", "sender_set"]

Member = TypeVar("Member")

_MAX_MEMBERS: Final = 65536
"""The kernel's default maxelem, and as many /16s as IPv4 has."""
_MAX_PORTS: Final = 1 << 18
"""More than a host has ports, by three protocols."""
_PROTOCOL: Final = 6
"""The oldest version of the ipset protocol that kernels still take (IPSET_PROTOCOL_MIN)."""
_BATCH: Final = 500
_DENIED: Final = frozenset({errno.EPERM, errno.EACCES})
_BUSY: Final = 4100
"""IPSET_ERR_BUSY of linux/netfilter/ipset/ip_set.h: destroying a set that a rule names."""
_ADDRESS: Final = 4
"""Bytes of an IPv4 address."""
_NUMBERS: Final = {"tcp": 6, "udp": 17, "sctp": 132}
_NAMES: Final = {number: name for name, number in _NUMBERS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetKind(Generic[Member]):
    """What a set holds.

    Attributes:
        name: The kernel's, such as "hash:ip".
        most: How many members it may have.
        packed: A member as :class:`~agent.kernel.ipsetlist.SetListing` has it.
        unpacked: The other way round.
        behind: Attributes behind the address, of a packed member, as the kernel takes them.
    """

    name: str
    most: int
    packed: Callable[[Member], bytes]
    unpacked: Callable[[bytes], Member]
    behind: Callable[[bytes], list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetChange:
    """How a set differs from what is wanted, or how it was changed.

    Attributes:
        missing: The set itself is not there.
        added, removed: Members as the kernel tells them, in order.
    """

    missing: bool = False
    added: tuple[bytes, ...] = ()
    removed: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return self.missing or bool(self.added or self.removed)


class KernelSet(Generic[Member]):
    """One ipset of ours, in the network namespace of the calling thread.

    Every method is idempotent and opens its own socket.
    """

    def __init__(self, name: str, kind: SetKind[Member]) -> None:
        self.name = name
        self._kind = kind
        # A pass asks for the same again: 10,000 members are packed once.
        self._wanted: frozenset[Member] | None = None
        self._wanted_packed: frozenset[bytes] = frozenset()
        # And is told the same: 10,000 members are compared as bytes, not one by one.
        self._as_wanted: list[bytes] = []

    def members(self) -> frozenset[Member] | None:
        """All members, None when there is no such set.

        Raises:
            FirewallError: The kernel refused, or a set of that name has another type.
        """
        packed = self._packed(self._dump())
        return None if packed is None else frozenset(map(self._kind.unpacked, packed))

    def difference(self, wanted: frozenset[Member]) -> SetChange:
        """What :meth:`sync` would change.

        Raises:
            FirewallError: As :meth:`members`.
        """
        payloads = self._dump()
        if wanted is not self._wanted:
            self._wanted, self._wanted_packed = wanted, frozenset(map(self._kind.packed, wanted))
        elif payloads and payloads == self._as_wanted:
            return SetChange()
        change = _difference(self._packed(payloads), self._wanted_packed)
        self._as_wanted = [] if change else payloads
        return change

    def sync(self, wanted: frozenset[Member]) -> SetChange:
        """Make the set hold exactly ``wanted``, adding before deleting, and say what changed.

        Members that stay are never away, not for a moment.

        Raises:
            FirewallError: As :meth:`members`, or there are more members than a set holds.
        """
        with _opened(f"ipset {self.name} cannot be written") as ipset:
            change = self.difference(wanted)
            if change.missing:
                kind = self._kind
                ipset.create(self.name, stype=kind.name, exclusive=False, maxelem=kind.most)
            self._change(ipset, IPSET_CMD_ADD, change.added)
            self._change(ipset, IPSET_CMD_DEL, change.removed)
            return change

    def remove(self) -> bool:
        """Destroy the set, and say whether there was one. Rules that name it go first.

        Raises:
            FirewallError: A rule still names it.
        """
        with _opened(f"ipset {self.name} cannot be removed") as ipset:
            try:
                ipset.destroy(self.name)
            except LibraryError as error:
                if error.code == errno.ENOENT:
                    return False
                raise
            return True

    def _change(
        self,
        ipset: Any,  # noqa: ANN401
        command: int,
        members: tuple[bytes, ...],
    ) -> None:
        """Add or delete many members a message: 10,000 take 1.3 s, one by one they take 5 s."""
        for start in range(0, len(members), _BATCH):
            batch = members[start : start + _BATCH]
            message = ipset_msg()
            message["nfgen_family"] = socket.AF_INET
            message["attrs"] = [
                ["IPSET_ATTR_PROTOCOL", _PROTOCOL],
                ["IPSET_ATTR_SETNAME", self.name],
                ["IPSET_ATTR_LINENO", 0],
                ["IPSET_ATTR_ADT", {"attrs": [self._member(each) for each in batch]}],
            ]
            answers = ipset.nlm_request(
                message,
                msg_type=command | NFNL_SUBSYS_IPSET << 8,
                msg_flags=NLM_F_REQUEST | NLM_F_ACK,
                terminate=lambda answer: answer["header"]["type"] == NLMSG_ERROR,
            )
            # The library sends only when its answers are asked for.
            tuple(answers)

    def _dump(self) -> list[bytes]:
        try:
            return dump_set(self.name)
        except KernelError as error:
            problem = f"ipset {self.name} cannot be read: {error.message}"
            if isinstance(error, NetlinkError) and error.errno in _DENIED:
                raise NotRoot(problem, hint="run it as root") from error
            raise FirewallError(problem, hint=error.hint) from error

    def _packed(self, payloads: list[bytes]) -> frozenset[bytes] | None:
        found = listing_of(payloads)
        if found is not None and found.kind != self._kind.name:
            raise FirewallError(
                f"ipset {self.name} is a {found.kind}, not a {self._kind.name}: it is not ours",
                hint=f"remove it: ipset destroy {self.name}",
            )
        return None if found is None else found.members

    def _member(self, packed: bytes) -> list[Any]:
        """One member as the kernel takes it (IPSET_ATTR_DATA of linux/netfilter/ipset/ip_set.h)."""
        text = str(IPv4Address(packed[:_ADDRESS]))
        ip = ["IPSET_ATTR_IPADDR_IPV4", text, NLA_F_NET_BYTEORDER]
        attributes = [["IPSET_ATTR_IP", {"attrs": [ip]}], *self._kind.behind(packed[_ADDRESS:])]
        return ["IPSET_ATTR_DATA", {"attrs": [*attributes, ["IPSET_ATTR_CADT_LINENO", 0]]}]


def _difference(actual: frozenset[bytes] | None, wanted: frozenset[bytes]) -> SetChange:
    if actual == wanted:
        return SetChange()
    held = actual or frozenset()
    return SetChange(
        missing=actual is None,
        added=tuple(sorted(wanted - held)),
        removed=tuple(sorted(held - wanted)),
    )


@contextmanager
def _opened(doing: str) -> Iterator[Any]:
    """A socket to the kernel's ipset, its refusals turned into ours."""
    try:
        with IPSet() as ipset:
            yield ipset
    except LibraryError as error:
        if error.code in _DENIED:
            raise NotRoot(f"{doing}: it needs root", hint="run it as root") from error
        if error.code == _BUSY:
            raise FirewallError(
                f"{doing}: a rule still names it, an operator's or one of ours that cannot be seen",
                hint="take out what iptables-nft-save and iptables-legacy-save show of it",
            ) from error
        raise FirewallError(f"{doing}: {error}") from error
    except OSError as error:
        raise FirewallError(f"{doing}: {error}") from error


def peer_set() -> KernelSet[Address]:
    """The set of peers' node addresses."""
    return KernelSet(
        PEERS_SET,
        SetKind(
            name="hash:ip",
            most=_MAX_MEMBERS,
            packed=lambda address: address.packed,
            unpacked=lambda packed: IPv4Address(packed[:_ADDRESS]),
            behind=lambda _: [],
        ),
    )


def published_set() -> KernelSet[PublishedPort]:
    """The set of ports that containers publish."""
    return KernelSet(
        PUBLISHED_SET,
        SetKind(
            name="hash:ip,port",
            most=_MAX_PORTS,
            packed=lambda each: (
                each.address.packed
                + bytes([_NUMBERS[each.protocol]])
                + each.port.to_bytes(2, "big")
            ),
            unpacked=_published_port,
            behind=lambda rest: [
                ["IPSET_ATTR_PORT", int.from_bytes(rest[1:]), NLA_F_NET_BYTEORDER],
                ["IPSET_ATTR_PROTO", rest[0]],
            ],
        ),
    )


def _published_port(packed: bytes) -> PublishedPort:
    address, number, port = packed[:_ADDRESS], packed[_ADDRESS], packed[_ADDRESS + 1 :]
    name = _NAMES.get(number, str(number))
    return PublishedPort(IPv4Address(address), name, int.from_bytes(port))


def sender_set() -> KernelSet[Sender]:
    """The set of addresses that may come from another bridge than their own."""
    return KernelSet(
        SENDERS_SET,
        SetKind(
            name="hash:net,iface",
            most=_MAX_PORTS,
            packed=lambda each: each.address.packed + b"\x20" + each.bridge.encode(),
            unpacked=lambda packed: Sender(
                IPv4Address(packed[:_ADDRESS]),
                packed[_ADDRESS + 1 :].decode("ascii", "replace"),
            ),
            behind=lambda rest: [
                ["IPSET_ATTR_CIDR", rest[0]],
                ["IPSET_ATTR_IFACE", rest[1:].decode("ascii", "replace")],
            ],
        ),
    )
