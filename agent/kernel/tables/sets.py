"""ipsets in the network namespace of the calling thread: their members, and the sets themselves.

Members are keyed objects (:class:`agent.model.objects.SetMember`). A set is made before its first
member, or by name where it shall be empty. Sources: linux/netfilter/ipset/ip_set.h,
net/netfilter/ipset/ip_set_core.c, ip_set_hash_gen.h.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple

from agent.errors import FirewallError, HostmeshError, KernelError, NotRoot
from agent.kernel.netlink import NetlinkError, NetlinkSocket, attribute, attributes
from agent.kernel.netlink.links import RawLink
from agent.kernel.netlink.message import ACK, EXCLUSIVE, NESTED, NET_BYTEORDER, nested, text_of
from agent.kernel.netlink.netfilter import BODY_AT, NETFILTER, about
from agent.kernel.tables.session import NetlinkSession
from agent.kernel.tables.table import Dump, NetlinkTable, Request
from agent.model.family import FAMILIES, Family
from agent.model.objects import SetMember
from agent.reconcile.interfaces import NONE_KNOWN, Listing, Operation, OperationKind, Result

__all__ = ["SetKind", "SetTable"]

_SUBSYSTEM: Final = 6 << 8
_CREATE, _DESTROY, _LIST, _ADD, _DEL, _TYPE = (_SUBSYSTEM | each for each in (2, 3, 7, 9, 10, 13))
_A_PROTOCOL, _A_SETNAME, _A_TYPENAME, _A_REVISION = 1, 2, 3, 4
_A_FAMILY, _A_FLAGS, _A_DATA, _A_ADT = 5, 6, 7, 8
_A_IP, _A_CIDR, _A_PORT, _A_PROTO, _A_CADT_FLAGS, _A_MAXELEM, _A_IFACE = 1, 3, 4, 7, 8, 19, 23
_ADDRESS: Final = {family.af: number for number, family in enumerate(FAMILIES, 1)}
"""IPSET_ATTR_IPADDR_IPV4 and _IPV6, by the family's AF_ number."""
_HEADERS_ONLY: Final = 1 << 2
"""IPSET_FLAG_LIST_HEADER."""
_PROTOCOL: Final = attribute(_A_PROTOCOL, bytes([6]))
"""The oldest version that kernels still take (IPSET_PROTOCOL_MIN)."""
_WORDS: Final = {
    4100: "a rule still names it, which the agent may not see",
    4352: "it is full",
}
"""IPSET_ERR_BUSY and IPSET_ERR_HASH_FULL."""
_NOMATCH: Final = 1 << 2
"""IPSET_FLAG_NOMATCH: an exception from a wider member."""


class SetKind(NamedTuple):
    """Kind of a set: the kernel's name for it, such as "hash:net", and its addresses' family."""

    type: str
    family: Family


class SetTable(NetlinkTable[SetMember]):
    """Members of some sets, and the sets themselves.

    Args:
        kind: What a set of that name should hold; None for one that is not in this table.
        most: How many members a set may have.
    """

    noun = "ipset member"
    plural = "ipset members"

    def __init__(self, kind: Callable[[str], SetKind | None], most: int) -> None:
        super().__init__(NetlinkSession(family=NETFILTER))
        self._kind = kind
        self._most = most

    def sets(self) -> Mapping[str, SetKind]:
        """Return the sets that exist, and what each holds.

        Raises:
            FirewallError, NotRoot: The kernel refused, or a set of that name holds something else.
        """
        with self._opened("ipsets cannot be read") as connection:
            return self._sets(connection)

    def _sets(self, connection: NetlinkSocket) -> dict[str, SetKind]:
        found: dict[str, SetKind] = {}
        body = _body(_A_FLAGS, _HEADERS_ONLY.to_bytes(4))
        for payload in connection.dump(_LIST, body, "listing ipsets"):
            said = dict(attributes(payload, BODY_AT))
            name, kind = text_of(said[_A_SETNAME]), text_of(said[_A_TYPENAME])
            wanted = self._kind(name)
            if wanted is None:
                continue
            if (kind, said[_A_FAMILY][0]) != (wanted.type, wanted.family.af):
                raise FirewallError(
                    f"ipset {name} is a {kind}, not a {wanted.type} of {wanted.family.name}: it is"
                    " another program's",
                    hint=f"remove it: ipset destroy {name}",
                )
            found[name] = wanted
        return found

    def list_all(self, known: Mapping[Any, SetMember] = NONE_KNOWN) -> Listing[SetMember]:
        """Return every member; the very same listing while nothing has changed.

        Args:
            known: As for :meth:`agent.reconcile.interfaces.Table.list_all`.

        Raises:
            FirewallError, NotRoot: The kernel refused, or a set has another type.
        """
        with self._opened("ipsets cannot be read"):
            return super().list_all(known)

    def _dumps(self) -> Sequence[Dump]:
        return self.dumps(())

    def ensure(self, names: Iterable[str]) -> None:
        """Make the sets that are missing, empty.

        Raises:
            FirewallError, NotRoot: The kernel refused.
        """
        with self._opened("an ipset cannot be made") as connection:
            there = self._sets(connection)
            for name in dict.fromkeys(names):
                kind = self._kind(name)
                if name not in there and kind is not None:
                    _create(connection, name, kind, self._most)

    def destroy(self, name: str) -> bool:
        """Destroy a set, and return whether there was one.

        Raises:
            FirewallError, NotRoot: The kernel refused: a rule still names it, for example.
        """
        with self._opened(f"ipset {name} cannot be removed") as connection:
            try:
                body = _body(_A_SETNAME, _terminated(name))
                # Without EXCLUSIVE the kernel does not say that there was nothing to destroy.
                connection.request(_DESTROY, body, "destroying", flags=ACK | EXCLUSIVE)
            except NetlinkError as error:
                if error.errno == errno.ENOENT:
                    return False
                raise
            return True

    def apply(
        self, operations: Sequence[Operation[SetMember]], *, for_s: float | None = None
    ) -> tuple[Result[SetMember], ...]:
        """Add and delete members; as :meth:`agent.reconcile.interfaces.Table.apply`."""
        adding = [each.object.set for each in operations if each.kind is OperationKind.REPLACE]
        try:
            if adding:
                self.ensure(adding)
        except HostmeshError as error:
            return tuple(Result(each, error) for each in operations)
        return super().apply(operations, for_s=for_s)

    def _explained(self, operation: Operation[SetMember], refused: NetlinkError) -> NetlinkError:
        what = f"changing ipset {operation.object.set}"
        return NetlinkError(what, refused.errno, _WORDS.get(refused.errno, refused.detail))

    def dumps(self, links: Collection[RawLink]) -> Sequence[Dump]:
        """One question for each set that exists."""
        del links
        return [
            Dump(kind=_LIST, body=_body(_A_SETNAME, _terminated(name)), parts=partial(_parts, name))
            for name in self._sets(self.session.open())
        ]

    def decode(self, payload: bytes, name_of: Callable[[int], str]) -> SetMember:
        """Return the member."""
        del name_of
        name, _, member = payload.partition(b"\0")
        return SetMember(sys.intern(name.decode()), member)

    def encode(
        self, operation: Operation[SetMember], link_of: Callable[[str], RawLink]
    ) -> Sequence[Request]:
        """Add or delete."""
        del link_of
        changed = operation.object
        kind = self._kind(changed.set)
        if kind is None:
            raise NetlinkError("changing ipsets", errno.EINVAL, f"{changed.set} is another's")
        size = kind.family.bits // 8
        address, rest = changed.member[:size], changed.member[size:]
        data = attribute(
            _A_IP | NESTED, attribute(_ADDRESS[kind.family.af] | NET_BYTEORDER, address)
        )
        if kind.type == "hash:ip,port":
            data += attribute(_A_PROTO, rest[:1]) + attribute(_A_PORT | NET_BYTEORDER, rest[1:])
        else:
            data += attribute(_A_CIDR, rest[:1])
        if kind.type == "hash:net,iface":
            data += attribute(_A_IFACE, rest[1:] + b"\0")
        body = _body(_A_SETNAME, _terminated(changed.set)) + nested(_A_DATA, data)
        return (Request(_DEL if operation.kind is OperationKind.DELETE else _ADD, 0, body),)

    @contextmanager
    def _opened(self, doing: str) -> Iterator[NetlinkSocket]:
        """Turn refusals into errors of the firewall."""
        try:
            with self.session.lock:
                yield self.session.open()
        except NetlinkError as error:
            if error.errno in {errno.EPERM, errno.EACCES}:
                raise NotRoot(f"{doing}: it needs root", hint="run it as root") from error
            words = _WORDS.get(error.errno, error.message)
            raise FirewallError(f"{doing}: {words}", hint=error.hint) from error
        except FirewallError:
            raise
        except KernelError as error:
            self.session.close()
            raise FirewallError(f"{doing}: {error.message}", hint=error.hint) from error


def _create(connection: NetlinkSocket, name: str, kind: SetKind, most: int) -> None:
    words = [(_A_TYPENAME, _terminated(kind.type)), (_A_FAMILY, bytes([kind.family.af]))]
    asked = _body(*words[0]) + attribute(*words[1])
    answer = connection.request(_TYPE, asked, f"asking for {kind.type}")
    newest = dict(attributes(answer, BODY_AT))[_A_REVISION]
    body = _body(_A_SETNAME, _terminated(name))
    body += b"".join(attribute(*each) for each in words)
    body += attribute(_A_REVISION, newest)
    body += nested(_A_DATA, attribute(_A_MAXELEM | NET_BYTEORDER, most.to_bytes(4)))
    connection.request(_CREATE, body, f"making ipset {name}", flags=ACK)


def _parts(name: str, payload: bytes) -> Iterator[bytes]:
    """Yield the members in one message of a dump, each behind the set's name."""
    head = _terminated(name)
    for number, value in attributes(payload, BODY_AT):
        if number == _A_ADT:
            for member in _members(value):
                yield head + member


def _plain_nets(size: int, number: int) -> tuple[struct.Struct, frozenset[bytes]]:
    """Return the layout of a hash:net's members without extensions, and their first bytes."""
    heads = (
        struct.pack(
            "=HHHHHH",
            *(20 + size, _A_DATA | NESTED, 8 + size, _A_IP | NESTED, 4 + size, number | flag),
        )
        for flag in (0, NET_BYTEORDER)
    )
    return struct.Struct(f"=12s{size}sIB3x"), frozenset(heads)


_PLAIN_NETS: Final = tuple(_plain_nets(each.bits // 8, _ADDRESS[each.af]) for each in FAMILIES)
_CIDR_HEAD: Final = int.from_bytes(struct.pack("=HH", 5, _A_CIDR), sys.byteorder)


def _members(entries: bytes) -> Iterator[bytes]:
    """Members as :class:`SetMember` has them. Of a plain hash:net 20,000 in a few milliseconds."""
    for plain, heads in _PLAIN_NETS:
        if len(entries) % plain.size == 0:
            found = tuple(plain.iter_unpack(entries))
            if all(head in heads and length == _CIDR_HEAD for head, _, length, _ in found):
                return (address + bytes([bits]) for _, address, _, bits in found)
    return _odd_members(entries)


def _odd_members(entries: bytes) -> Iterator[bytes]:
    """Members of other types, or with extensions (counters, …), which are left out.

    An exception (nomatch) is another member than the one that it would hide.
    """
    for number, entry in attributes(entries, 0):
        if number == _A_DATA:
            found = dict(attributes(entry, 0))
            ((_, address),) = attributes(found[_A_IP], 0)
            if _A_PORT in found:
                yield address + found[_A_PROTO] + found[_A_PORT]
            else:
                flags = int.from_bytes(found.get(_A_CADT_FLAGS, b""))
                yield (
                    address
                    + found[_A_CIDR]
                    + found.get(_A_IFACE, b"").rstrip(b"\0")
                    + (b"!" if flags & _NOMATCH else b"")
                )


def _body(number: int, value: bytes) -> bytes:
    """A message about all families that begins with one attribute."""
    return about() + _PROTOCOL + attribute(number, value)


def _terminated(text: str) -> bytes:
    return text.encode() + b"\0"
