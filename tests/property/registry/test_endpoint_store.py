"""Anything may be under ``endpoints/``: it costs itself, and events say what a list would say."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.etcd.kv import Event, Record
from agent.model import HostId
from agent.model.endpoint import Endpoint, EndpointAddress
from agent.registry.endpoints.store import EndpointStore
from agent.registry.records import ENDPOINTS, Keys, encode_endpoint

pytestmark = pytest.mark.property

_FOLDER = Keys("/hostmesh").range(ENDPOINTS)
_HOSTS = ("a" * 32, "b" * 32)

hosts = st.sampled_from([*_HOSTS, "x", ""])
numbers = st.integers(0, 6)


def _value(host: str, number: int, name: str) -> bytes:
    place = EndpointAddress(network="n", address=IPv4Address("10.64.0.2"))
    return encode_endpoint(
        Endpoint(
            host_id=HostId(host),
            container_id=f"{number:016x}" + "c" * 48,
            name=name,
            addresses=(place,),
        )
    )


@st.composite
def events(draw: st.DrawFn) -> Event:
    host, number = draw(hosts), draw(numbers)
    tail = draw(st.sampled_from([f"{number:016x}", "x", ""]))
    key = _FOLDER.start + f"{host}/{tail}".encode()
    kind = draw(st.sampled_from(["good", "bad", "gone"]))
    value = _value(host, number, draw(st.sampled_from(["a", "b"]))) if kind == "good" else b"{"
    return Event(key, None if kind == "gone" else Record(key, value, 1, draw(st.integers(1, 99))))


@given(st.lists(st.lists(events(), max_size=4), max_size=8))
def test_promise_4_events_give_the_view_that_a_list_gives(batches: list[list[Event]]) -> None:
    followed = EndpointStore(_FOLDER, 1, 1)
    there: dict[bytes, Record] = {}
    before = followed.view()
    for batch in batches:
        differs = followed.apply(batch)
        for each in batch:
            there.pop(each.key, None)
            if each.record is not None:
                there[each.key] = each.record
        view = followed.view()
        read = EndpointStore(_FOLDER, 1, 1)
        read.load(there[key] for key in sorted(there))
        truth = read.view()
        assert (view.endpoints, view.set_aside) == (truth.endpoints, truth.set_aside)
        assert differs or (view.endpoints, view.set_aside) == (before.endpoints, before.set_aside)
        before = view


@given(st.lists(events(), max_size=40), st.integers(1, 3))
def test_promise_10_no_host_has_more_than_it_may(found: list[Event], most: int) -> None:
    store = EndpointStore(_FOLDER, 1, 1, most)
    for each in found:
        store.apply([each])
        view = store.view()
        for host in _HOSTS:
            assert sum(key[0] == host for key in view.endpoints) <= most


def test_promise_10_a_list_passes_over_what_does_not_count_of_a_host() -> None:
    store = EndpointStore(_FOLDER, 1, 1, 2)
    host = _HOSTS[0]
    keys = [_FOLDER.start + f"{host}/{number:016x}".encode() for number in range(4)]
    store.load(Record(key, _value(host, at, "a")) for at, key in enumerate(keys[:2]))
    assert store.following(keys[1]) == keys[1] + b"\0"
    store.load([Record(keys[2], _value(host, 2, "a"))])
    assert keys[3] < store.following(keys[2]) <= _FOLDER.start + _HOSTS[1].encode()
    assert "more than 2" in store.view().set_aside[f"endpoints/{host}"]
