"""The server's snapshot: what is written is read, and damaged or hostile files are refused."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dns.snapshot import (
    MOST_BYTES,
    decode_host,
    decode_local,
    encode_host,
    encode_local,
)
from agent.model import Access, HostId
from agent.model.names import (
    MOST_ADDRESSES,
    MOST_NAMES,
    MOST_NETWORKS,
    HostNames,
    LocalNames,
    LocalNetwork,
    Name,
    NamedAddress,
    NameKind,
)

pytestmark = pytest.mark.property

_ID = HostId("0123456789abcdef" * 2)
labels = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
domains = labels.filter(lambda each: each != "host")
addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
networks = st.integers(0, 2**24 - 1).map(lambda each: IPv4Network((each << 8, 24)))
two_labels = st.tuples(labels, domains).map(".".join)
names = st.one_of(
    st.builds(Name, two_labels, st.sampled_from([NameKind.NETWORK, NameKind.PROJECT])),
    st.builds(Name, two_labels, st.just(NameKind.HOST)),
    st.builds(Name, labels.map(lambda each: f"{each}.host"), st.just(NameKind.OWN)),
    st.builds(Name, labels, st.just(NameKind.PLAIN)),
)
_ORDER = list(NameKind)
named = st.builds(
    NamedAddress,
    address=addresses,
    names=st.lists(names, max_size=MOST_NAMES).map(
        lambda each: tuple(sorted(each, key=lambda name: _ORDER.index(name.kind)))
    ),
    network=st.sampled_from(["", "bridge", "Shop_Front.1"]),
    mesh_network=st.just("") | labels,
    access=st.sampled_from(Access),
    healthy=st.booleans(),
    pointer=st.just("") | two_labels,
)
hosts = st.builds(HostNames, host_id=st.just(_ID), addresses=st.lists(named, max_size=6).map(tuple))
locals_ = st.builds(
    LocalNames,
    domain=st.sampled_from(["hostmesh.internal", "mesh"]),
    host_id=st.just(_ID),
    boot_id=st.uuids().map(str),
    serial=st.integers(0, 2**53),
    complete=st.booleans(),
    ranges=st.lists(networks, max_size=3).map(tuple),
    networks=st.lists(
        st.builds(
            LocalNetwork,
            name=labels,
            bridge=st.sampled_from(["docker0", "br-0123456789ab", "hm-0123456789"]),
            subnets=st.lists(networks, max_size=2).map(tuple),
            mesh_network=st.just("") | labels,
            access=st.sampled_from(Access),
            internal=st.booleans(),
        ),
        max_size=4,
    ).map(tuple),
    askers=st.dictionaries(addresses, st.lists(labels, max_size=4).map(tuple), max_size=4),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | labels | two_labels,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(hosts)
def test_a_host_file_is_read_as_it_was_written(host: HostNames) -> None:
    assert decode_host(encode_host(host)) == host


@given(locals_)
def test_the_local_file_is_read_as_it_was_written(local: LocalNames) -> None:
    assert decode_local(encode_local(local)) == local


@given(hosts, st.data())
def test_a_damaged_file_is_refused_or_read_but_never_crashes(
    host: HostNames, data: st.DataObject
) -> None:
    content = bytearray(encode_host(host))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    for damaged in (bytes(content), bytes(content[: data.draw(st.integers(0, len(content)))])):
        try:
            decode_host(damaged)
        except ValueError:
            continue


@given(
    st.sampled_from(["addresses", "names", "address", "network", "access", "healthy", "pointer"]),
    json_values,
)
def test_any_value_in_any_field_is_refused_or_read(field: str, value: object) -> None:
    row: dict[str, object] = {"address": "10.64.0.2", "names": {"network": ["api.web"]}}
    raw: dict[str, object] = {"format": 1, "host": _ID, "addresses": [row]}
    (raw if field == "addresses" else row)[field] = value
    try:
        decoded = decode_host(json.dumps(raw).encode())
    except ValueError:
        return
    assert decode_host(encode_host(decoded)) == decoded


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("api", NameKind.NETWORK),
        ("a.b.c", NameKind.NETWORK),
        ("Api.web", NameKind.NETWORK),
        ("api_1.web", NameKind.PROJECT),
        (".web", NameKind.HOST),
        ("api.web.", NameKind.HOST),
        ("api.host", NameKind.HOST),
        ("api.host", NameKind.NETWORK),
        ("api.web", NameKind.OWN),
        ("api.web", NameKind.PLAIN),
        ("x" * 64, NameKind.PLAIN),
        ("", NameKind.PLAIN),
    ],
)
def test_a_name_that_is_none_is_refused(text: str, kind: NameKind) -> None:
    with pytest.raises(ValueError, match="kind"):
        Name(text, kind)


def test_limits_hold_for_writers_and_readers() -> None:
    many = tuple(NamedAddress(address=IPv4Address(each)) for each in range(MOST_ADDRESSES + 1))
    with pytest.raises(ValueError, match="more than"):
        encode_host(HostNames(host_id=_ID, addresses=many))
    rows = [{"address": "10.64.0.2"}] * (MOST_ADDRESSES + 1)
    with pytest.raises(ValueError, match="at most"):
        decode_host(json.dumps({"format": 1, "host": _ID, "addresses": rows}).encode())
    crowd = tuple(Name(f"n{each}", NameKind.PLAIN) for each in range(MOST_NAMES + 1))
    with pytest.raises(ValueError, match="more than"):
        NamedAddress(address=IPv4Address("10.64.0.2"), names=crowd)
    with pytest.raises(ValueError, match="bytes"):
        decode_host(b" " * (MOST_BYTES + 1))


def test_a_file_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format"):
        decode_host(json.dumps({"format": 2, "host": _ID}).encode())


def test_a_container_may_be_in_every_network() -> None:
    every = tuple(f"n{number}" for number in range(MOST_NETWORKS))
    local = LocalNames(
        domain="mesh", host_id=_ID, boot_id="b", askers={IPv4Address("10.64.0.2"): every}
    )
    assert decode_local(encode_local(local)) == local
