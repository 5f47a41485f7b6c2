"""The set of peers' node addresses: what keeps the number of rules free of the number of peers."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

from pyroute2 import IPSet
from pyroute2.netlink import NLA_F_NET_BYTEORDER, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR
from pyroute2.netlink.exceptions import NetlinkError as LibraryError
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_IPSET
from pyroute2.netlink.nfnetlink.ipset import IPSET_CMD_ADD, IPSET_CMD_DEL, ipset_msg

from agent.errors import FirewallError, KernelError, NotRoot
from agent.kernel.ipsetlist import dump_set, listing_of
from agent.kernel.netlink import NetlinkError
from agent.mesh.firewall import PEERS_SET

__all__ = ["PeerSet", "SetChange"]

_TYPE: Final = "hash:ip"
_MAX_MEMBERS: Final = 65536
"""The kernel's default maxelem, and as many /16s as IPv4 has."""
_PROTOCOL: Final = 6
"""The oldest version of the ipset protocol that kernels still take (IPSET_PROTOCOL_MIN)."""
_BATCH: Final = 500
_DENIED: Final = frozenset({errno.EPERM, errno.EACCES})
_BUSY: Final = 4100
"""IPSET_ERR_BUSY of linux/netfilter/ipset/ip_set.h: destroying a set that a rule names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetChange:
    """How the set differs from what is wanted, or how it was changed.

    Attributes:
        missing: The set itself is not there.
        added, removed: Members, in order.
    """

    missing: bool = False
    added: tuple[IPv4Address, ...] = ()
    removed: tuple[IPv4Address, ...] = ()

    def __bool__(self) -> bool:
        return self.missing or bool(self.added or self.removed)


class PeerSet:
    """One ipset of node addresses, in the network namespace of the calling thread.

    Every method is idempotent and opens its own socket.
    """

    def __init__(self, name: str = PEERS_SET) -> None:
        self._name = name
        # A pass asks for the same again: 10,000 addresses are packed once.
        self._wanted: frozenset[IPv4Address] | None = None
        self._wanted_packed: frozenset[bytes] = frozenset()
        # And is told the same: 10,000 members are compared as bytes, not one by one.
        self._as_wanted: list[bytes] = []

    def members(self) -> frozenset[IPv4Address] | None:
        """All members, None when there is no such set.

        Raises:
            FirewallError: The kernel refused, or a set of that name has another type.
        """
        packed = self._packed(self._dump())
        return None if packed is None else frozenset(map(IPv4Address, packed))

    def difference(self, wanted: frozenset[IPv4Address]) -> SetChange:
        """What :meth:`sync` would change.

        Raises:
            FirewallError: As :meth:`members`.
        """
        payloads = self._dump()
        if wanted is not self._wanted:
            self._wanted, self._wanted_packed = wanted, frozenset(each.packed for each in wanted)
        elif payloads and payloads == self._as_wanted:
            return SetChange()
        change = _difference(self._packed(payloads), self._wanted_packed)
        self._as_wanted = [] if change else payloads
        return change

    def sync(self, wanted: frozenset[IPv4Address]) -> SetChange:
        """Make the set hold exactly ``wanted``, adding before deleting, and say what changed.

        Members that stay are never away, not for a moment.

        Raises:
            FirewallError: As :meth:`members`, or there are more than 65,536 peers.
        """
        with _opened(f"ipset {self._name} cannot be written") as ipset:
            change = self.difference(wanted)
            if change.missing:
                ipset.create(self._name, stype=_TYPE, exclusive=False, maxelem=_MAX_MEMBERS)
            self._change(ipset, IPSET_CMD_ADD, change.added)
            self._change(ipset, IPSET_CMD_DEL, change.removed)
            return change

    def remove(self) -> bool:
        """Destroy the set, and say whether there was one. Rules that name it go first.

        Raises:
            FirewallError: A rule still names it.
        """
        with _opened(f"ipset {self._name} cannot be removed") as ipset:
            try:
                ipset.destroy(self._name)
            except LibraryError as error:
                if error.code == errno.ENOENT:
                    return False
                raise
            return True

    def _change(
        self,
        ipset: Any,  # noqa: ANN401
        command: int,
        addresses: tuple[IPv4Address, ...],
    ) -> None:
        """Add or delete many members a message: 10,000 take 1.3 s, one by one they take 5 s."""
        for start in range(0, len(addresses), _BATCH):
            batch = addresses[start : start + _BATCH]
            message = ipset_msg()
            message["nfgen_family"] = socket.AF_INET
            message["attrs"] = [
                ["IPSET_ATTR_PROTOCOL", _PROTOCOL],
                ["IPSET_ATTR_SETNAME", self._name],
                ["IPSET_ATTR_LINENO", 0],
                ["IPSET_ATTR_ADT", {"attrs": [_member(address) for address in batch]}],
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
            return dump_set(self._name)
        except KernelError as error:
            problem = f"ipset {self._name} cannot be read: {error.message}"
            if isinstance(error, NetlinkError) and error.errno in _DENIED:
                raise NotRoot(problem, hint="run it as root") from error
            raise FirewallError(problem, hint=error.hint) from error

    def _packed(self, payloads: list[bytes]) -> frozenset[bytes] | None:
        found = listing_of(payloads)
        if found is not None and found.kind != _TYPE:
            raise FirewallError(
                f"ipset {self._name} is a {found.kind}, not a {_TYPE}: it is not ours",
                hint=f"remove it: ipset destroy {self._name}",
            )
        return None if found is None else found.members


def _member(address: IPv4Address) -> list[Any]:
    """One member as the kernel takes it (IPSET_ATTR_DATA of linux/netfilter/ipset/ip_set.h)."""
    ip = ["IPSET_ATTR_IPADDR_IPV4", str(address), NLA_F_NET_BYTEORDER]
    attributes = [["IPSET_ATTR_IP", {"attrs": [ip]}], ["IPSET_ATTR_CADT_LINENO", 0]]
    return ["IPSET_ATTR_DATA", {"attrs": attributes}]


def _difference(actual: frozenset[bytes] | None, wanted: frozenset[bytes]) -> SetChange:
    if actual == wanted:
        return SetChange()
    held = actual or frozenset()
    return SetChange(
        missing=actual is None,
        added=tuple(map(IPv4Address, sorted(wanted - held))),
        removed=tuple(map(IPv4Address, sorted(held - wanted))),
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
