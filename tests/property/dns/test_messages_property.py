"""Messages on the wire: as dnspython reads them, and nothing that comes may crash the server."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dns.forwarding.by_udp import fits
from agent.dns.responder import FORWARD, Responder
from agent.dns.wire import BadQuery, Rcode, pack_reply, read_query
from agent.dns.zone import Zone
from agent.model import HostId
from agent.model.names import (
    HostNames,
    LocalNames,
    LocalNetwork,
    Name,
    NamedAddress,
    NameKind,
)

pytestmark = pytest.mark.property

HERE, THERE = HostId("a" * 32), HostId("b" * 32)
ASKER = IPv4Address("10.64.1.5")
NETWORK = LocalNetwork(
    name="web", bridge="hm-1", subnets=(IPv4Network("10.64.1.0/24"),), mesh_network="web"
)


def zone_of(addresses: Sequence[str] = ("10.65.1.2", "10.65.1.3")) -> Zone:
    zone = Zone()
    zone.set_local(
        LocalNames(
            domain="hostmesh.internal",
            host_id=HERE,
            boot_id="boot",
            complete=True,
            ranges=(IPv4Network("10.64.0.0/10"),),
            networks=(NETWORK,),
        )
    )
    names = (Name("api.web", NameKind.NETWORK), Name("api", NameKind.PLAIN))
    zone.set_host(
        HostNames(
            host_id=THERE,
            addresses=tuple(
                NamedAddress(
                    address=IPv4Address(each),
                    names=names,
                    network="web",
                    mesh_network="web",
                    pointer="api.web",
                )
                for each in addresses
            ),
        )
    )
    return zone


RESPONDER = Responder(zone_of(), lambda: True)
letters = st.sampled_from("aPi-_0*\\.é")
names = st.sampled_from(
    [
        *("api.web.hostmesh.internal.", "API.Web.HostMesh.Internal.", "api.", "api", "nope.web."),
        *("hostmesh.internal.", "host.hostmesh.internal.", "example.com.", ".", "web.internal."),
        *("2.1.65.10.in-addr.arpa.", "65.10.in-addr.arpa.", "x.2.1.65.10.in-addr.arpa."),
        *("10.in-addr.arpa.", "999.64.10.in-addr.arpa.", "1.0.0.127.in-addr.arpa.", "arpa."),
    ]
) | st.lists(st.text(letters.filter(lambda each: each not in ".\\é"), min_size=1, max_size=9)).map(
    lambda each: ".".join([*each, "hostmesh.internal."])
)
kinds = st.sampled_from(["A", "AAAA", "PTR", "SOA", "NS", "ANY", "TXT", "AXFR", "HTTPS"])


@st.composite
def queries(draw: st.DrawFn) -> bytes:
    query = dns.message.make_query(
        draw(names),
        draw(kinds),
        rdclass=draw(st.sampled_from([dns.rdataclass.IN, dns.rdataclass.CH])),
        use_edns=draw(st.sampled_from([False, 0, 1])),
        payload=draw(st.sampled_from([0, 100, 512, 1232, 65535])),
        want_dnssec=draw(st.booleans()),
        options=draw(
            st.lists(
                st.sampled_from(
                    [
                        dns.edns.ECSOption("10.64.1.9", 32),
                        dns.edns.ECSOption("10.64.0.0", 9),
                        dns.edns.CookieOption(b"12345678", b""),
                    ]
                ),
                max_size=2,
            )
        ),
    )
    return query.to_wire()


@given(queries())
def test_a_query_is_read_as_dnspython_reads_it(data: bytes) -> None:
    found, expected = read_query(data), dns.message.from_wire(data)
    assert found is not None
    asked = expected.question[0]
    assert dns.name.from_wire(found.name, 0)[0] == asked.name
    assert (found.kind, found.rdclass) == (asked.rdtype, asked.rdclass)
    assert found.identity == expected.id
    if expected.edns >= 0:
        assert (found.udp_size, found.version) == (max(512, expected.payload), expected.edns)
        assert found.wants_dnssec == bool(expected.ednsflags & dns.flags.DO)
    else:
        assert found.udp_size == 0


@given(queries(), st.sampled_from([ASKER, IPv4Address("192.0.2.1"), None]), st.booleans())
def test_every_reply_is_one_that_dnspython_takes_for_the_query(
    data: bytes, asker: IPv4Address | None, tcp: bool
) -> None:
    reply = RESPONDER.respond(data, asker, largest=65535 if tcp else None)
    asked = dns.message.from_wire(data)
    name = asked.question[0].name
    own = name.is_subdomain(dns.name.from_text("hostmesh.internal."))
    if not isinstance(reply, bytes):
        assert not own, "the domain itself is never forwarded"
        return
    answer = dns.message.from_wire(reply)
    assert asked.is_response(answer)
    # 0x20: letters of the question come back as they were.
    assert answer.question[0].name.labels == name.labels
    assert (answer.edns >= 0) == (asked.edns >= 0)
    if answer.rcode() == dns.rcode.NXDOMAIN or (
        answer.rcode() == dns.rcode.NOERROR and not answer.answer
    ):
        (soa,) = answer.authority
        assert soa.rdtype == dns.rdatatype.SOA
        assert name.is_subdomain(soa.name)
    assert all(each.ttl == 5 for each in answer.answer)
    if asked.edns > 0 and own:
        assert answer.rcode() == dns.rcode.BADVERS


@given(
    st.binary(max_size=80) | st.tuples(queries(), st.data()).map(lambda each: each[0]), st.data()
)
def test_no_packet_crashes_the_server(data: bytes, more: st.DataObject) -> None:
    raw = bytearray(data)
    for _ in range(more.draw(st.integers(0, 6))):
        if raw:
            raw[more.draw(st.integers(0, len(raw) - 1))] = more.draw(st.integers(0, 255))
    cut = bytes(raw[: more.draw(st.integers(0, len(raw)))])
    for packet in (bytes(raw), cut):
        for asker in (ASKER, None):
            reply = RESPONDER.respond(packet, asker)
            if isinstance(reply, bytes) and reply:
                assert reply[:2] == packet[:2]
                assert reply[2] & 0x80
                assert len(reply) <= max(1232, len(packet) + 200)
                dns.message.from_wire(reply, ignore_trailing=True)
        assert fits(packet, packet[:2], b"\0\0\1\0\1") in (True, False)


@given(st.integers(1, 200), st.sampled_from([None, 512, 1232, 4096]))
def test_an_answer_that_does_not_fit_is_cut_off_by_udp_and_whole_by_tcp(
    count: int, offered: int | None
) -> None:
    addresses = [f"10.65.{each >> 8}.{each & 255}" for each in range(count)]
    responder = Responder(zone_of(addresses), lambda: True)
    query = dns.message.make_query(
        "api.web.hostmesh.internal.", "A", use_edns=offered is not None, payload=offered or 512
    )
    udp = responder.respond(query.to_wire(), ASKER)
    tcp = responder.respond(query.to_wire(), ASKER, largest=65535)
    assert isinstance(udp, bytes)
    assert isinstance(tcp, bytes)
    assert len(udp) <= min(max(offered or 512, 512), 1232)
    whole = dns.message.from_wire(tcp)
    assert sorted(str(each) for each in whole.answer[0]) == sorted(addresses)
    cut = dns.message.from_wire(udp)
    assert bool(cut.flags & dns.flags.TC) == (len(tcp) > len(udp))
    # A resolver without TCP takes what is there.
    seen = {str(each) for each in cut.answer[0]}
    assert seen <= set(addresses)
    assert len(seen) >= min(count, 28)


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "count"),
    [
        ("api.web.hostmesh.internal", "A", Rcode.NOERROR, 2),
        ("api.web.hostmesh.internal", "AAAA", Rcode.NOERROR, 0),
        ("api.hostmesh.internal", "A", Rcode.NOERROR, 2),
        ("api", "A", Rcode.NOERROR, 2),
        ("api", "AAAA", Rcode.NOERROR, 0),
        ("nope.web.hostmesh.internal", "A", Rcode.NXDOMAIN, 0),
        ("a.api.web.hostmesh.internal", "A", Rcode.NXDOMAIN, 0),
        ("hostmesh.internal", "SOA", Rcode.NOERROR, 1),
        ("hostmesh.internal", "NS", Rcode.NOERROR, 1),
        ("hostmesh.internal", "A", Rcode.NOERROR, 2),
        ("hostmesh.internal", "TXT", Rcode.NOERROR, 0),
        ("hostmesh.internal", "AXFR", Rcode.REFUSED, 0),
        ("2.1.65.10.in-addr.arpa", "PTR", Rcode.NOERROR, 1),
        ("2.1.65.10.in-addr.arpa", "A", Rcode.NOERROR, 0),
        ("9.1.65.10.in-addr.arpa", "PTR", Rcode.NXDOMAIN, 0),
        ("x.2.1.65.10.in-addr.arpa", "PTR", Rcode.NXDOMAIN, 0),
        ("65.10.in-addr.arpa", "PTR", Rcode.NOERROR, 0),
        ("xhostmesh.internal", "A", None, 0),
        ("example.com", "A", None, 0),
        ("nope", "A", None, 0),
        ("10.in-addr.arpa", "PTR", None, 0),
        ("1.2.0.192.in-addr.arpa", "PTR", None, 0),
    ],
)
def test_each_name_gets_its_answer(name: str, kind: str, rcode: Rcode | None, count: int) -> None:
    reply = RESPONDER.respond(dns.message.make_query(name, kind).to_wire(), ASKER)
    if rcode is None:
        assert reply is FORWARD
        return
    assert isinstance(reply, bytes)
    answer = dns.message.from_wire(reply)
    assert (int(answer.rcode()), sum(map(len, answer.answer))) == (rcode.value, count)


def test_a_label_that_ends_like_the_domain_is_not_in_it() -> None:
    # \x08hostmesh\x08internal as the last octets of one longer label
    label = b"x\x08hostmesh\x08internal"
    name = bytes([len(label)]) + label + b"\0"
    head = dns.message.make_query("example.com", "A").to_wire()[:12]
    assert RESPONDER.respond(head + name + b"\0\1\0\1", ASKER) is FORWARD


@pytest.mark.parametrize("data", [b"", b"\0" * 11, b"\0\1\x80\0\0\1\0\0\0\0\0\0"])
def test_what_is_no_query_gets_no_reply(data: bytes) -> None:
    assert RESPONDER.respond(data, ASKER) == b""


def test_another_opcode_and_a_wrong_count_are_refused_by_their_codes() -> None:
    query = bytearray(dns.message.make_query("example.com", "A").to_wire())
    query[2] |= 0x20  # NOTIFY
    reply = RESPONDER.respond(bytes(query), ASKER)
    assert isinstance(reply, bytes)
    assert reply[3] & 15 == Rcode.NOTIMP
    query[2], query[5] = 1, 2
    with pytest.raises(BadQuery):
        read_query(bytes(query))


def test_a_reply_fits_only_with_its_id_and_question() -> None:
    query = dns.message.make_query("Example.com", "A").to_wire()
    read = read_query(query)
    reply = pack_reply(query, read, Rcode.NOERROR)
    assert fits(reply, query[:2], query[12:])
    assert fits(reply.replace(b"Example", b"example"), query[:2], query[12:])
    assert not fits(query, query[:2], query[12:])
    assert not fits(reply, b"\0\0", query[12:])
    assert not fits(reply.replace(b"Example", b"Exemple"), query[:2], query[12:])


@pytest.mark.parametrize(("octets", "refused"), [(255, False), (256, True)])
def test_a_name_has_at_most_255_octets(octets: int, refused: bool) -> None:
    labels = b"".join(b"\x3f" + b"x" * 63 for _ in range(3))
    last = octets - len(labels) - 2
    name = labels + bytes([last]) + b"x" * last + b"\0"
    assert len(name) == octets
    head = dns.message.make_query("example.com", "A").to_wire()[:12]
    reply = RESPONDER.respond(head + name + b"\0\1\0\1", ASKER)
    assert isinstance(reply, bytes) is refused
