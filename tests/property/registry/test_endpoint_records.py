"""Records of endpoints: each that an agent writes is read again, whatever a container is called."""

from __future__ import annotations

import json
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.etcd.kv import Record
from agent.model import Access, HostId
from agent.model.endpoint import LONGEST_NAME, NAMES_MOST, Endpoint, EndpointAddress, Health
from agent.registry.records import ENDPOINTS, Keys, encode_endpoint, endpoint_key

pytestmark = pytest.mark.property

_HOST = HostId("f" * 32)
_KEYS = Keys("/hostmesh")

names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)
places = st.builds(
    EndpointAddress,
    network=names,
    address=st.integers(0, 2**32 - 1).map(IPv4Address),
    mesh_network=st.sampled_from(["", "shop", "a-1"]),
    access=st.sampled_from(list(Access)),
    aliases=st.lists(names, max_size=4).map(tuple),
)
endpoints = st.builds(
    Endpoint,
    host_id=st.just(_HOST),
    container_id=st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}"),
    name=names,
    project=st.just("") | names,
    service=st.just("") | names,
    health=st.sampled_from(list(Health)),
    addresses=st.lists(places, max_size=5).map(tuple),
    boot_id=st.sampled_from(["", "b" * 32]),
)


@given(endpoints)
def test_an_endpoint_is_read_as_it_was_written(endpoint: Endpoint) -> None:
    name = _KEYS.of(ENDPOINTS, endpoint_key(endpoint))
    assert _KEYS.read(ENDPOINTS, Record(name, encode_endpoint(endpoint))) == endpoint


places_too_many = [{"Name": "n", "Address": "10.64.0.2"}] * 33


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ID", "d" * 64),
        ("ID", "c" * 63),
        ("Name", ""),
        ("Name", "x" * (LONGEST_NAME + 1)),
        ("Name", "a b"),
        ("Name", "a\n"),
        ("Project", "x" * (LONGEST_NAME + 1)),
        ("Networks", places_too_many),
        ("Networks", [{"Name": "n", "Address": "fe80::1"}]),
        ("Networks", [{"Name": "n", "Address": "10.64.0.2", "Aliases": ["a"] * (NAMES_MOST + 1)}]),
        ("Networks", [{"Name": "n", "Address": "10.64.0.2", "Aliases": ["a" * 129]}]),
        ("Networks", [{"Name": "n", "Address": "10.64.0.2", "Mesh": "Shop"}]),
        ("Networks", ["10.64.0.2"]),
    ],
)
def test_promise_8_and_10_what_is_out_of_bounds_is_not_read(field: str, value: object) -> None:
    good = {"ID": "c" * 64, "Name": "web", "Networks": [{"Name": "n", "Address": "10.64.0.2"}]}
    key = (_HOST, "c" * 16)
    assert ENDPOINTS.read(key, Record(b"k", json.dumps(good).encode())).name == "web"
    with pytest.raises(ValueError, match=r"."):
        ENDPOINTS.read(key, Record(b"k", json.dumps({**good, field: value}).encode()))


@pytest.mark.parametrize("tail", ["c" * 15, "c" * 17, "C" * 16, "c" * 16 + "/x", "", "c" * 64])
def test_a_key_names_a_host_and_a_container(tail: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        ENDPOINTS.key(f"{_HOST}/{tail}".encode())


def test_promise_12_an_unknown_access_opens_nothing() -> None:
    value = {"ID": "c" * 64, "Name": "w", "Networks": [{"Name": "n", "Address": "10.64.0.2"}]}
    value["Networks"][0]["Access"] = "newer"  # type: ignore[index]
    found = ENDPOINTS.read((_HOST, "c" * 16), Record(b"k", json.dumps(value).encode()))
    assert found.addresses[0].access is Access.CLOSED
