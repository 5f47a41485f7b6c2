"""The lab's name server on the wire: what each query gets, byte by byte where it matters."""

import struct
from dataclasses import asdict
from ipaddress import IPv4Address

import pytest
from hostmesh_lab.errors import LabError
from hostmesh_lab.guest.dns_server import RCODES, TYPES, Zone, pack_name, respond
from hostmesh_lab.machines import dns

pytestmark = pytest.mark.unit
TRUNCATED, RECURSION = 0x0200, 0x0100


def query(name: str, kind: str = "A", *, edns: int | None = None, flags: int = RECURSION) -> bytes:
    head = struct.pack("!6H", 4711, flags, 1, 0, 0, 0 if edns is None else 1)
    option = b"" if edns is None else b"\0" + struct.pack("!HHIH", TYPES["OPT"], edns, 0, 0)
    return head + pack_name(name) + struct.pack("!HH", TYPES[kind], 1) + option


def zone(**records: list[str]) -> Zone:
    """Records by name; an underscore is a dot."""
    parsed = {
        name.replace("_", "."): [dns.parse_record(text) for text in texts]
        for name, texts in records.items()
    }
    return Zone(parsed)


def counts(reply: bytes) -> tuple[int, int, int, int]:
    """Response code, and how many answers, authorities and additional records there are."""
    _, flags, _, answers, authorities, additional = struct.unpack("!6H", reply[:12])
    return flags & 15, answers, authorities, additional


def flags(reply: bytes) -> int:
    found: int = struct.unpack("!H", reply[2:4])[0]
    return found


def test_an_address_is_answered_with_the_question_as_it_was_asked() -> None:
    reply, said = respond(query("Api.Example"), zone(api_example=["198.51.100.7"]), tcp=False)
    assert reply[:2] == struct.pack("!H", 4711)
    assert flags(reply) == 0x8180
    assert counts(reply) == (RCODES["NOERROR"], 1, 0, 0)
    assert pack_name("Api.Example") in reply
    record = struct.pack("!HHHIH", 0xC00C, TYPES["A"], 1, dns.TTL_S, 4)
    assert reply.endswith(record + IPv4Address("198.51.100.7").packed)
    assert (said["name"], said["type"], said["rcode"]) == ("api.example", "A", "NOERROR")


def test_only_an_unknown_name_is_nxdomain_and_both_negative_answers_have_a_soa() -> None:
    known = zone(api_example=["198.51.100.7"])
    missing, _ = respond(query("other.example"), known, tcp=False)
    empty, _ = respond(query("api.example", "AAAA"), known, tcp=False)
    assert counts(missing) == (RCODES["NXDOMAIN"], 0, 1, 0)
    assert counts(empty) == (RCODES["NOERROR"], 0, 1, 0)


def test_every_kind_of_record_can_be_answered() -> None:
    texts = {
        "A": "198.51.100.7",
        "AAAA": "fd00::7",
        "TXT": "TXT " + "long " * 60,
        "SRV": "SRV 0 10 2379 etcd1.example",
        "CNAME": "CNAME other.example",
    }
    for kind, text in texts.items():
        reply, _ = respond(query("x.example", kind), zone(x_example=[text]), tcp=False)
        assert counts(reply)[:2] == (RCODES["NOERROR"], 1), kind


def test_an_alias_is_followed_and_a_loop_of_them_ends() -> None:
    known = zone(
        www_example=["CNAME api.example"],
        api_example=["198.51.100.7"],
        a_example=["CNAME b.example"],
        b_example=["CNAME a.example"],
    )
    reply, _ = respond(query("www.example"), known, tcp=False)
    assert counts(reply)[:2] == (RCODES["NOERROR"], 2)
    looped, _ = respond(query("a.example"), known, tcp=True)
    assert counts(looped)[0] == RCODES["NOERROR"]


@pytest.mark.parametrize("how", [name for name in dns.FAILURES if name != "SILENT"])
def test_a_name_or_every_name_can_fail(how: str) -> None:
    records = zone(api_example=["198.51.100.7"]).records
    for name in ("api.example", "*"):
        reply, said = respond(query("api.example"), Zone(records, {name: how}), tcp=False)
        assert counts(reply)[:2] == (RCODES[how], 0)
        assert said["rcode"] == how
    other, _ = respond(query("api.example"), Zone(records, {"x.example": how}), tcp=False)
    assert counts(other)[:2] == (RCODES["NOERROR"], 1)


def test_silence_is_no_reply() -> None:
    reply, said = respond(query("api.example"), Zone(failing={"*": "SILENT"}), tcp=True)
    assert (reply, said["rcode"]) == (b"", "SILENT")


@pytest.mark.parametrize(
    ("records", "edns", "tcp", "whole"),
    [
        (25, None, False, True),
        (40, None, False, False),
        (40, 1232, False, True),
        (40, 512, False, False),
        (100, 4096, False, False),
        (100, 4096, True, True),
        (100, None, True, True),
        (4000, None, True, True),
    ],
)
def test_what_does_not_fit_is_cut_off_and_whole_over_tcp(
    records: int, edns: int | None, tcp: bool, whole: bool
) -> None:
    many = [str(IPv4Address("198.18.0.0") + number) for number in range(records)]
    reply, said = respond(query("big.example", edns=edns), zone(big_example=many), tcp=tcp)
    assert bool(flags(reply) & TRUNCATED) != whole
    assert counts(reply) == (0, records if whole else 0, 0, 0 if edns is None else 1)
    assert (said["truncated"], said["size"]) == (not whole, len(reply))


def test_garbage_is_refused_and_what_has_no_header_is_not_answered() -> None:
    assert respond(b"\x12\x34" * 3, Zone(), tcp=False)[0] == b""
    for cut in range(12, len(query("api.example", edns=1232)) - 1):
        reply, _ = respond(query("api.example", edns=1232)[:cut], Zone(), tcp=False)
        assert counts(reply)[0] == RCODES["FORMERR"], cut
    update, _ = respond(query("api.example", flags=5 << 11), Zone(), tcp=False)
    assert counts(update)[0] == RCODES["NOTIMP"]


@pytest.mark.parametrize(
    "text", ["198.51.100", "A", "A fd00::g", "A fd00::7", "MX 10 a.example", "SRV 1 x"]
)
def test_a_record_that_cannot_be_is_refused_before_it_is_written(text: str) -> None:
    with pytest.raises(LabError, match="record"):
        dns.parse_record(text)


def test_a_zone_survives_its_file_and_knows_the_world_in_its_own_families() -> None:
    first = dns.first_zone(["192.168.50.5/24", "fd00:50::5/64"])
    assert Zone.of(asdict(first)) == first
    assert [kind for kind, _, _ in first.records["world.example"]] == ["A", "AAAA"]
    assert [kind for kind, _, _ in dns.first_zone(["fd00::5/64"]).records["world.example"]] == [
        "AAAA"
    ]
