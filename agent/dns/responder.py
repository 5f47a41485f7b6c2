"""Answer queries for the mesh's domain and its reverse zones; send the others on.

NXDOMAIN is final for resolvers, so it is given only where absence is proven. A name that may exist
gets SERVFAIL, after which a resolver asks again.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from agent.dns.wire import (
    AAAA,
    ANY,
    IN,
    NS,
    PTR,
    SOA,
    A,
    BadQuery,
    Query,
    Rcode,
    pack_name,
    pack_record,
    pack_reply,
    read_query,
)
from agent.dns.zone import TTL_S, AskerView, Zone
from agent.model.domain import DEFAULT_DOMAIN
from agent.model.family import Address, Network, read_network, within
from agent.model.names import NAME_SERVERS, LocalNames

__all__ = ["FORWARD", "Forward", "Responder"]

_VERSION_OF: Final = {A: 4, AAAA: 6}
_REFRESH_S, _RETRY_S, _EXPIRE_S = 60, 10, 86400
_REVERSE: Final = pack_name(("in-addr", "arpa"))
_OCTETS: Final = 4
_LARGEST_OCTET: Final = 255
_SHOWN_OCTETS: Final = 2
_TYPES_OF_QUERIES_ONLY: Final = range(249, 255)
"""TKEY, TSIG, IXFR, AXFR, MAILB, MAILA: not for this server."""


@dataclass(frozen=True, slots=True)
class Forward:
    """The query belongs to the host's own upstreams."""


FORWARD: Final = Forward()


@dataclass(frozen=True, slots=True)
class _Domain:
    """A domain in wire form, and the records that it has itself."""

    name: bytes
    soa: bytes
    ns: bytes
    addresses: tuple[bytes, ...]

    @classmethod
    def of(cls, text: str, serial: int) -> _Domain:
        name = pack_name(text.split("."))
        times = struct.pack("!4I", _REFRESH_S, _RETRY_S, _EXPIRE_S, TTL_S)
        mailbox = pack_name(("hostmaster",))[:-1] + name
        return cls(
            name=name,
            soa=b"".join((name, mailbox, serial.to_bytes(8, "big")[4:], times)),
            ns=name,
            addresses=tuple(pack_record(A, TTL_S, each.packed) for each in NAME_SERVERS),
        )


class Responder:
    """Answers what belongs to the mesh.

    Args:
        zone: The names.
        is_fresh: Whether the snapshot is whole, of this boot, and confirmed lately.
    """

    def __init__(self, zone: Zone, is_fresh: Callable[[], bool]) -> None:
        self._zone = zone
        self._is_fresh = is_fresh
        self._facts: LocalNames | None = None
        self._domain = _Domain.of(DEFAULT_DOMAIN, 0)

    def respond(
        self, data: bytes, asker: Address | None, *, largest: int | None = None
    ) -> bytes | Forward:
        """Return the reply to a message, b"" for none, or FORWARD.

        Args:
            asker: The address of the container that asks; None is this host itself.
            largest: As for ``pack_reply``.
        """
        try:
            query = read_query(data)
        except BadQuery as bad:
            return pack_reply(data, None, bad.rcode, largest=largest)
        if query is None:
            return b""
        self._follow_facts()
        return self._reply(data, query, asker, largest)

    def _reply(
        self, data: bytes, query: Query, asker: Address | None, largest: int | None
    ) -> bytes | Forward:
        view = self._zone.view(asker)
        own = self._own_labels(query)
        if own is None and len(query.labels) == 1:
            return self._plain(data, query, view, largest)
        reverse = self._reverse_zone(query) if own is None else None
        if own is None and reverse is None:
            return FORWARD
        refusal = _refusal(query)
        if refusal is not None:
            return pack_reply(data, query, refusal, largest=largest)
        if asker is None and query.subnet is not None:
            view = self._zone.view(ip_address(query.subnet))
        if reverse is not None:
            return self._reverse(data, query, reverse, view, largest)
        if own:
            return self._in_domain(data, query, own, view, largest)
        return self._apex(data, query, largest)

    def _follow_facts(self) -> None:
        facts = self._zone.local
        if facts is not self._facts and facts is not None:
            self._facts = facts
            self._domain = _Domain.of(facts.domain, facts.serial)

    def _own_labels(self, query: Query) -> bytes | None:
        """Return the labels before the mesh's domain; None if the name is elsewhere."""
        domain = self._domain.name
        at = len(query.name) - len(domain)
        if at < 0 or not query.name.endswith(domain):
            return None
        # Only where a label begins: the last octets of a longer label may look the same.
        return query.name[:at] if at in query.labels else None

    def _plain(
        self, data: bytes, query: Query, view: AskerView, largest: int | None
    ) -> bytes | Forward:
        found = self._zone.find(view, query.name[:-1]) if query.rdclass == IN else None
        if found is None or query.odd:
            return FORWARD
        return self._answer(data, query, _records(found.by_version, query.kind), largest)

    def _in_domain(
        self, data: bytes, query: Query, own: bytes, view: AskerView, largest: int | None
    ) -> bytes:
        found = self._zone.find(view, own)
        if found is not None:
            return self._answer(data, query, _records(found.by_version, query.kind), largest)
        plain = own[0] + 1 == len(own)
        return self._absent(data, query, largest, proven=self._proven(view, plain=plain))

    def _proven(self, view: AskerView, *, plain: bool) -> bool:
        """Return whether a name that the zone has not got does not exist for this asker.

        Other hosts add plain names only to mesh networks, so for askers in none of them the facts
        of this host are enough: while etcd is away, a resolver goes on to its next search domain.
        """
        facts = self._facts
        if facts is None or not self._is_fresh() or view.asker.is_unknown:
            return False
        return facts.complete or (plain and view.is_local)

    def _absent(self, data: bytes, query: Query, largest: int | None, *, proven: bool) -> bytes:
        if not proven:
            return pack_reply(data, query, Rcode.SERVFAIL, largest=largest)
        return pack_reply(
            data,
            query,
            Rcode.NXDOMAIN,
            authorities=[self._soa_below(query)],
            authoritative=True,
            largest=largest,
        )

    def _answer(
        self, data: bytes, query: Query, records: Sequence[bytes], largest: int | None
    ) -> bytes:
        if len(records) > 1:
            records = random.sample(records, len(records))
        return pack_reply(
            data,
            query,
            Rcode.NOERROR,
            records,
            () if records else [self._soa_below(query)],
            authoritative=True,
            largest=largest,
        )

    def _apex(self, data: bytes, query: Query, largest: int | None) -> bytes:
        records: list[bytes] = []
        if query.kind in (SOA, ANY):
            records.append(pack_record(SOA, TTL_S, self._domain.soa))
        if query.kind in (NS, ANY):
            records.append(pack_record(NS, TTL_S, self._domain.ns))
        if query.kind in (A, ANY):
            records += self._domain.addresses
        return self._answer(data, query, records, largest)

    def _soa_below(self, query: Query) -> bytes:
        """Return the SOA record for a negative answer, owned by the zone that the name is in."""
        own = self._own_labels(query)
        if own is not None:
            at = len(own)
        elif len(query.labels) == 1:
            at = 0
        else:  # a reverse name: the zone of the two highest octets
            at = query.labels[max(0, len(query.labels) - 2 - _SHOWN_OCTETS)]
        return pack_record(SOA, TTL_S, self._domain.soa, owner=struct.pack("!H", 0xC00C + at))

    def _reverse_zone(self, query: Query) -> _Reverse | None:
        """Return which addresses a reverse name is about, if the mesh's ranges have them all."""
        facts = self._facts
        if facts is None or not query.name.endswith(_REVERSE):
            return None
        found = _Reverse.of(query)
        within_mesh = found is not None and any(
            within(found.network, each) for each in facts.ranges
        )
        return found if within_mesh else None

    def _reverse(
        self, data: bytes, query: Query, found: _Reverse, view: AskerView, largest: int | None
    ) -> bytes:
        if not found.is_address and not found.beyond:  # a node above addresses
            return self._answer(data, query, (), largest)
        name = None if found.beyond else self._zone.pointer(view, found.network.network_address)
        if name is None:
            return self._absent(data, query, largest, proven=self._proven(view, plain=False))
        target = pack_name(name.split("."))[:-1] + self._domain.name
        records = [pack_record(PTR, TTL_S, target)] if query.kind in (PTR, ANY) else []
        return self._answer(data, query, records, largest)


@dataclass(frozen=True, slots=True)
class _Reverse:
    """The addresses that a name below in-addr.arpa is about (RFC 1035, 3.5).

    Attributes:
        beyond: There are labels before the octets, or one that is no octet.
    """

    network: Network
    is_address: bool
    beyond: bool

    @classmethod
    def of(cls, query: Query) -> _Reverse | None:
        """Read a name; None without any octet."""
        octets: list[str] = []
        starts = query.labels[:-2]
        for at in reversed(starts):
            label = query.name[at + 1 : at + 1 + query.name[at]]
            if len(octets) == _OCTETS or not label.isdigit() or int(label) > _LARGEST_OCTET:
                break
            octets.append(str(int(label)))
        if not octets:
            return None
        text = ".".join((octets + ["0"] * _OCTETS)[:_OCTETS])
        return cls(
            network=read_network(f"{text}/{8 * len(octets)}"),
            is_address=len(octets) == _OCTETS,
            beyond=len(octets) != len(starts),
        )


def _records(by_version: Mapping[int, tuple[bytes, ...]], kind: int) -> Sequence[bytes]:
    if kind == ANY:
        return [each for records in by_version.values() for each in records]
    return by_version.get(_VERSION_OF.get(kind, 0), ())


def _refusal(query: Query) -> Rcode | None:
    """Return the code that refuses a query for a name of the mesh, None for one to be answered."""
    if query.odd:
        return Rcode.FORMERR
    if query.version:
        return Rcode.BADVERS
    if query.rdclass != IN or query.kind in _TYPES_OF_QUERIES_ONLY:
        return Rcode.REFUSED
    return None
