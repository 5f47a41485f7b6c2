"""Ranges of keys and candidate order, held against brute force."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.etcd.kv import MAX_OPERATIONS
from agent.mesh.ranges import (
    NEVER_PROPOSED,
    OverlapIndex,
    candidates,
    count_subnets,
    propose_cidr,
)
from agent.model import MeshConfig
from agent.model.family import Network, network_order
from agent.registry.records import LEASES, RESERVATIONS, Keys
from agent.registry.records.subnets import overlapping_ranges, parse_subnet, subnet_name
from tests.property.networks import families, networks

pytestmark = pytest.mark.property


def _network(address: int, length: int) -> Network:
    return IPv4Network((address >> (32 - length) << (32 - length), length))


names = st.builds(_network, st.integers(0, 2**32 - 1), st.integers(8, 30))
"""Keys hold IPv4 subnets, as flannel's do."""


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[Network, Network]:
    """Two networks whose addresses differ in one octet or so: where mistakes would hide."""
    subnet = draw(names)
    address = int(subnet.network_address)
    shift = 8 * draw(st.integers(0, 3))
    octet = draw(st.integers(0, 255))
    moved = address & ~(0xFF << shift) | octet << shift
    return subnet, _network(moved, draw(st.integers(8, 32)))


def _inside(subnet: Network, name: str) -> bool:
    key = name.encode()
    return any(each.start <= key < each.end for each in overlapping_ranges(subnet))


@settings(max_examples=600)
@given(neighbours())
@example((IPv4Network("10.130.0.0/15"), IPv4Network("10.13.0.0/16")))
@example((IPv4Network("10.64.4.0/22"), IPv4Network("10.64.40.0/24")))
@example((IPv4Network("10.64.0.0/16"), IPv4Network("10.64.0.0/12")))
def test_promise_1_the_ranges_hold_exactly_the_overlapping_networks(
    pair: tuple[Network, Network],
) -> None:
    subnet, other = pair
    assert _inside(subnet, subnet_name(other)) == subnet.overlaps(other)
    assert _inside(subnet, subnet_name(other) + "&fc00::-64") == subnet.overlaps(other)


@pytest.mark.parametrize("length", range(8, 31))
def test_promise_1_every_subnet_of_one_octet_against_every_network_there(length: int) -> None:
    """All values of the octet that the prefix ends in, against all values and some lengths."""
    shift = 8 * (3 - (length - 1) // 8)
    base = 0x0A400000 & ~(0xFF << shift)
    others = [
        (subnet_name(other).encode(), int(other.network_address), int(other.broadcast_address))
        for octet in range(256)
        for other_length in sorted({max(8, length - 1), length, min(32, length + 3), 32})
        for other in (_network(base | octet << shift, other_length),)
    ]
    for octet in range(0, 256, 1 << (-length % 8)):
        subnet = _network(base | octet << shift, length)
        first, last = int(subnet.network_address), int(subnet.broadcast_address)
        ranges = [(each.start, each.end) for each in overlapping_ranges(subnet)]
        for key, low, high in others:
            held = any(start <= key < end for start, end in ranges)
            assert held == (low <= last and first <= high), (subnet, key)


@given(names)
def test_a_claims_compares_stay_below_etcds_limit(subnet: Network) -> None:
    keys = Keys("/hostmesh")
    ranges = len(keys.overlapping(LEASES, subnet)) + len(keys.overlapping(RESERVATIONS, subnet))
    assert ranges + 5 <= MAX_OPERATIONS


@given(names)
def test_names_of_subnets_come_back(subnet: Network) -> None:
    assert parse_subnet(subnet_name(subnet)) == subnet


@given(st.lists(networks(), max_size=12), networks())
def test_the_overlap_index_agrees_with_looking_at_each(
    members: list[Network], subnet: Network
) -> None:
    found = OverlapIndex(members).find(subnet)
    assert (found is not None) == any(map(subnet.overlaps, members))
    assert found is None or (found in members and found.overlaps(subnet))


@st.composite
def meshes(draw: st.DrawFn) -> MeshConfig:
    family = draw(families)
    length = draw(st.integers(*family.subnet_lengths))
    bits = draw(st.integers(2, min(10, length - family.mesh_lengths[0])))
    cidr = family.at(draw(st.integers(0, (1 << family.bits) - 1)), length - bits)
    low = draw(st.integers(0, (1 << bits) - 1))
    high = draw(st.integers(low, (1 << bits) - 1))
    start, size = int(cidr.network_address), family.size(length)
    return MeshConfig(
        cidr=cidr,
        subnet_len=length,
        subnet_min=family.address(start + low * size),
        subnet_max=family.address(start + high * size),
    )


def _all(config: MeshConfig) -> set[Network]:
    return {
        subnet
        for subnet in config.cidr.subnets(new_prefix=config.subnet_len)
        if int(config.subnet_min) <= int(subnet.network_address) <= int(config.subnet_max)
    }


@given(meshes(), st.text("0123456789abcdef", min_size=32, max_size=32))
def test_candidates_are_all_subnets_once_and_the_same_each_time(
    config: MeshConfig, host_id: str
) -> None:
    found = list(candidates(config, host_id))
    assert len(found) == len(set(found)) == count_subnets(config)
    assert set(found) == _all(config)
    assert found == list(candidates(config, host_id))


@given(meshes(), st.data())
def test_promise_2_past_subnet_first_others_last_and_what_the_host_sees_never(
    config: MeshConfig, data: st.DataObject
) -> None:
    subnets = sorted(_all(config), key=network_order)
    some = st.lists(st.sampled_from(subnets), max_size=4)
    preferred, last, avoid = data.draw(some), data.draw(some), data.draw(some)
    found = list(candidates(config, "x", preferred=preferred, last=last, avoid=avoid))
    assert set(found) == set(subnets) - set(avoid)
    first = [each for each in dict.fromkeys(preferred) if each not in avoid]
    assert found[: len(first)] == first
    rest = [each in last for each in found[len(first) :]]
    assert rest == sorted(rest)


def test_the_largest_mesh_is_walked_lazily() -> None:
    config = MeshConfig(
        cidr=IPv4Network("10.0.0.0/8"),
        subnet_len=24,
        subnet_min=IPv4Address("10.0.0.0"),
        subnet_max=IPv4Address("10.255.255.0"),
    )
    assert len(list(itertools.islice(candidates(config, "host"), 3))) == 3
    assert len(set(candidates(config, "host"))) == 65_536


def test_256_hosts_rarely_prefer_the_same_of_256_subnets() -> None:
    config = MeshConfig(
        cidr=IPv4Network("10.0.0.0/8"),
        subnet_len=16,
        subnet_min=IPv4Address("10.0.0.0"),
        subnet_max=IPv4Address("10.255.0.0"),
    )
    first = {next(candidates(config, f"{number:032x}")) for number in range(256)}
    assert len(first) > 140  # 162 are expected of a perfect draw


@given(st.lists(networks(), max_size=6))
def test_a_proposed_cidr_meets_nothing(occupied: list[Network]) -> None:
    found = propose_cidr(occupied)
    if found is not None:
        assert not any(map(found.overlaps, [*occupied, *NEVER_PROPOSED]))
        assert found.prefixlen <= 16


def test_a_host_that_sees_nothing_is_proposed_a_large_private_range() -> None:
    assert propose_cidr([]) == IPv4Network("10.64.0.0/10")
    assert propose_cidr([IPv4Network("10.0.0.0/8")]) is not None
    assert propose_cidr([IPv4Network("10.0.0.0/8"), IPv4Network("100.64.0.0/10")]) is None
