"""DNS messages as bytes: read a query, pack an answer (RFC 1035, RFC 6891).

Only what a server of addresses needs is read; every other part of a forwarded message stays
untouched. tests/property/dns compares both directions with dnspython.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = [
    "AAAA",
    "ANY",
    "HEADER",
    "IN",
    "LARGEST_UDP",
    "NS",
    "PTR",
    "SOA",
    "A",
    "BadQuery",
    "Query",
    "Rcode",
    "pack_name",
    "pack_record",
    "pack_reply",
    "question_of",
    "read_query",
]

HEADER: Final = struct.Struct("!6H")
A, NS, SOA, PTR, AAAA, OPT, ANY = 1, 2, 6, 12, 28, 41, 255
IN: Final = 1
LARGEST_UDP: Final = 1232
"""Octets of a datagram that no path breaks up (DNS flag day 2020)."""
_PLAIN_UDP: Final = 512
_LONGEST_LABEL: Final = 63
_LONGEST_NAME: Final = 255
_QR, _AA, _TC, _RD, _RA, _CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0010
_OPCODE: Final = 0x7800
_DO: Final = 0x8000
_OPT: Final = struct.Struct("!HHBBHH")
_RECORD: Final = struct.Struct("!HHIH")
_CLIENT_SUBNET: Final = 8
_ADDRESS_SIZES: Final = (4, 16)
_OWNER_IS_QUESTION: Final = b"\xc0\x0c"


class Rcode(enum.IntEnum):
    """Response codes; BADVERS needs EDNS (RFC 6891, 6.1.3)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Query(NamedTuple):
    """A query of one question.

    Attributes:
        name: In wire form and lower case, with the root's label.
        labels: Where each label of ``name`` begins in it, the root's left out.
        end: Where the question ends in the message.
        udp_size: The datagram that the asker can take by EDNS; 0 without EDNS.
        version: Of EDNS.
        subnet: The address in a client subnet option (RFC 7871) if it is whole, or None.
        odd: There is more behind the question than an OPT record.
    """

    identity: int
    flags: int
    name: bytes
    labels: tuple[int, ...]
    kind: int
    rdclass: int
    end: int
    udp_size: int = 0
    version: int = 0
    wants_dnssec: bool = False
    subnet: bytes | None = None
    odd: bool = False


class BadQuery(Exception):
    """The message cannot be answered as a query; ``rcode`` refuses it."""

    def __init__(self, rcode: Rcode) -> None:
        super().__init__(rcode.name)
        self.rcode = rcode


def read_query(data: bytes) -> Query | None:
    """Read a query; None for bytes that deserve no reply: too short, or a reply itself.

    Raises:
        BadQuery: It has no single question, or another opcode.
    """
    if len(data) < HEADER.size:
        return None
    identity, flags, questions, answers, authorities, additional = HEADER.unpack_from(data)
    if flags & _QR:
        return None
    if flags & _OPCODE:
        raise BadQuery(Rcode.NOTIMP)
    if questions != 1 or answers or authorities:
        raise BadQuery(Rcode.FORMERR)
    end, labels = _read_labels(data)
    name = data[HEADER.size : end].lower()  # a label's length is below any letter
    if len(data) < end + 4:
        raise BadQuery(Rcode.FORMERR)
    kind = data[end] << 8 | data[end + 1]
    rdclass = data[end + 2] << 8 | data[end + 3]
    end += 4
    query = Query(identity, flags, name, labels, kind, rdclass, end)
    if end == len(data) and not additional:
        return query
    return _with_edns(query, data, additional)


def _read_labels(data: bytes) -> tuple[int, tuple[int, ...]]:
    found: list[int] = []
    at, size = HEADER.size, len(data)
    while True:
        if at >= size:
            raise BadQuery(Rcode.FORMERR)
        length = data[at]
        if not length:
            return at + 1, tuple(found)
        if length > _LONGEST_LABEL or at + length + 2 - HEADER.size > _LONGEST_NAME:
            raise BadQuery(Rcode.FORMERR)
        found.append(at - HEADER.size)
        at += length + 1


def _with_edns(query: Query, data: bytes, additional: int) -> Query:
    at = query.end
    if additional != 1 or len(data) < at + 1 + _OPT.size or data[at]:
        return query._replace(odd=True)
    kind, size, _, version, flags, length = _OPT.unpack_from(data, at + 1)
    options = data[at + 1 + _OPT.size :]
    if kind != OPT or length != len(options):
        return query._replace(odd=True)
    return query._replace(
        udp_size=max(size, _PLAIN_UDP),
        version=version,
        wants_dnssec=bool(flags & _DO),
        subnet=_client_subnet(options) if options else None,
    )


def _client_subnet(options: bytes) -> bytes | None:
    at = 0
    while at + 4 <= len(options):
        code, length = struct.unpack_from("!HH", options, at)
        value = options[at + 4 : at + 4 + length]
        at += 4 + length
        address = value[4:]
        if code == _CLIENT_SUBNET and len(address) in _ADDRESS_SIZES:
            return address
    return None


def question_of(data: bytes) -> bytes | None:
    """Return the question of a message as it is there; None if it has not one."""
    if len(data) < HEADER.size or HEADER.unpack_from(data)[2] != 1:
        return None
    try:
        end, _ = _read_labels(data)
    except BadQuery:
        return None
    return data[HEADER.size : end + 4] if len(data) >= end + 4 else None


def pack_name(labels: Sequence[str]) -> bytes:
    """Return a name in wire form.

    Args:
        labels: ASCII, each of 1 to 63 characters.
    """
    return b"".join(bytes([len(each)]) + each.encode("ascii") for each in labels) + b"\0"


def pack_record(kind: int, ttl_s: int, data: bytes, owner: bytes = _OWNER_IS_QUESTION) -> bytes:
    """Return a record of class IN; its owner is the question's name unless another is given."""
    return owner + _RECORD.pack(kind, IN, ttl_s, len(data)) + data


def pack_reply(
    data: bytes,
    query: Query | None,
    rcode: Rcode,
    answers: Sequence[bytes] = (),
    authorities: Sequence[bytes] = (),
    *,
    authoritative: bool = False,
    largest: int | None = None,
) -> bytes:
    """Return a reply to a message.

    Args:
        data: The message; its id and its question go into the reply as they are.
        query: What was read of it; None if it was not a query of one question.
        authoritative: The reply comes from the mesh's own domain.
        largest: Octets that fit: by TCP; None for what the asker takes by UDP. A reply that is
            larger is truncated, with the answers that fit: resolvers without TCP use these (musl
            before 1.2.4).
    """
    asked = data[2] << 8 | data[3]
    flags = _QR | _RA | asked & (_OPCODE | _RD | _CD) | rcode & 15
    if authoritative:
        flags |= _AA
    question = data[HEADER.size : query.end] if query else b""
    edns = _edns(query, rcode) if query and query.udp_size else b""
    if largest is None:
        largest = min(query.udp_size, LARGEST_UDP) if query and query.udp_size else _PLAIN_UDP
    size = HEADER.size + len(question) + sum(map(len, answers)) + sum(map(len, authorities))
    if size + len(edns) > largest:
        left = largest - HEADER.size - len(question) - len(edns)
        fitting = [each for each in answers if (left := left - len(each)) >= 0]
        flags, answers, authorities = flags | _TC, fitting, ()
    counts = (1 if query else 0, len(answers), len(authorities), 1 if edns else 0)
    head = HEADER.pack(data[0] << 8 | data[1], flags, *counts)
    return b"".join((head, question, *answers, *authorities, edns))


def _edns(query: Query, rcode: Rcode) -> bytes:
    flags = _DO if query.wants_dnssec else 0
    return b"\0" + _OPT.pack(OPT, LARGEST_UDP, rcode >> 4, 0, flags, 0)
