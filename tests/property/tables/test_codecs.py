"""Every object that is written is read again as it was."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.netlink.message import attribute, attributes, frame, messages
from agent.kernel.netlink.routes import decode_route, meets, route_body
from agent.model import FAMILIES, IPV4, Family, Network, Route, RouteKind

pytestmark = pytest.mark.property

NAMES = {1: "lo", 7: "eth7", 70000: "hm-vxlan"}
INDICES: dict[str | None, int | None] = {name: index for index, name in NAMES.items()}
INDICES[None] = None

families = st.sampled_from(FAMILIES)


def networks(family: Family) -> st.SearchStrategy[Network]:
    return st.builds(family.at, st.integers(0, (1 << family.bits) - 1), st.integers(0, family.bits))


def routes(family: Family) -> st.SearchStrategy[Route]:
    def addresses() -> st.SearchStrategy[object]:
        return st.none() | st.integers(0, (1 << family.bits) - 1).map(family.address)

    return st.builds(
        Route,
        destination=networks(family),
        kind=st.sampled_from(RouteKind).map(str),
        gateway=addresses(),
        link=st.sampled_from([None, "eth7", "hm-vxlan"]),
        prefsrc=addresses(),
        protocol=st.integers(0, 255),
        table=st.integers(1, (1 << 32) - 1),
        metric=st.integers(0, (1 << 32) - 1) | st.just(0),
        tos=st.sampled_from([0, 4, 16]) if family is IPV4 else st.just(0),
        scope=st.sampled_from([0, 253]) if family is IPV4 else st.just(0),
        onlink=st.booleans(),
        mtu=st.sampled_from([0, 1280, 65535]),
    )


@given(families.flatmap(routes), st.integers(1, (1 << 32) - 1))
def test_a_route_survives_encoding_and_decoding(route: Route, sequence: int) -> None:
    body = route_body(route, INDICES[route.link])
    assert decode_route(body, NAMES.__getitem__) == route
    assert list(messages(frame(24, 0x400, sequence, body))) == [(24, 0x401, sequence, 0, body)]


@given(families.flatmap(routes))
def test_a_deletion_names_metric_and_protocol(route: Route) -> None:
    body = route_body(route, INDICES[route.link], deleting=True)
    found = dict(attributes(body, 12))
    assert body[5] == route.protocol
    assert 6 in found or route.destination.version == 4, "IPv6 takes a missing metric for any"


@given(families.flatmap(routes), st.lists(families.flatmap(networks), max_size=4))
def test_a_destination_is_compared_without_decoding(route: Route, ranges: list[Network]) -> None:
    payload = route_body(route, INDICES[route.link])
    expected = any(
        each.version == route.destination.version and each.overlaps(route.destination)
        for each in ranges
    )
    assert meets(payload, tuple(ranges)) == expected


def test_a_wider_and_a_narrower_range_meet() -> None:
    route = Route(destination=IPv4Network("10.64.0.0/16"))
    payload = route_body(route, None)
    assert meets(payload, (IPv4Network("10.0.0.0/8"),))
    assert meets(payload, (IPv4Network("10.64.9.0/24"),))
    assert meets(payload, (IPv4Network("0.0.0.0/0"),))
    assert not meets(payload, (IPv4Network("10.65.0.0/16"), IPv6Network("::/0")))


@given(st.binary(max_size=64))
def test_nonsense_ends(data: bytes) -> None:
    assert len(list(attributes(data))) <= 16
    assert len(list(messages(data))) <= 4


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_attributes_survive(parts: list[tuple[int, bytes]]) -> None:
    assert list(attributes(b"".join(attribute(*each) for each in parts))) == parts
