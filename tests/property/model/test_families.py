"""Arithmetic of both families, held against the standard library."""

from __future__ import annotations

import itertools
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import HostId, Lease, Leases, is_leasable
from agent.model.bounds import PRIVATE_RANGES, Bounds, forbidden_range
from agent.model.family import (
    ENABLED,
    FAMILIES,
    IPV4,
    IPV6,
    Family,
    Network,
    address_order,
    excluding,
    family_of,
    last_subnet,
    meet,
    network_order,
    read_address,
    read_interface,
    read_network,
    span,
    subnets_of,
    supernet_of,
    within,
)
from tests.property.networks import families, networks, pairs

pytestmark = pytest.mark.property


@given(pairs)
def test_meeting_and_lying_within_are_what_the_standard_library_says(
    pair: tuple[Network, Network],
) -> None:
    one, other = pair
    assert meet(one, other) == meet(other, one) == one.overlaps(other)
    assert within(one, other) == one.subnet_of(other)  # type: ignore[arg-type]  # one family


@given(networks(IPV4), networks(IPV6))
def test_networks_of_two_families_never_meet(one: Network, other: Network) -> None:
    assert not meet(one, other)
    assert not within(one, other)
    assert not within(other, one)
    assert not meet(ip_network("0.0.0.0/0"), ip_network("::/0"))
    assert family_of(one) is IPV4
    assert family_of(other) is IPV6


@given(networks())
def test_a_span_is_from_the_first_to_the_last_address(network: Network) -> None:
    assert span(network) == (int(network.network_address), int(network.broadcast_address))
    size = family_of(network).size(network.prefixlen)
    assert size == network.num_addresses


@given(pairs)
def test_what_is_left_of_a_network_is_all_but_the_part(pair: tuple[Network, Network]) -> None:
    network, other = pair
    part = other if within(other, network) else last_subnet(network, network.max_prefixlen - 1)
    left = excluding(network, part)
    assert list(left) == sorted(network.address_exclude(part))  # type: ignore[arg-type]
    assert not any(meet(each, part) for each in left)


@given(networks(), st.integers(0, 4))
def test_subnets_of_a_network_are_in_order(network: Network, bits: int) -> None:
    length = min(network.prefixlen + bits, network.max_prefixlen)
    found = tuple(subnets_of(network, length))
    assert found == tuple(network.subnets(new_prefix=length))
    assert found[-1] == last_subnet(network, length)
    assert all(supernet_of(each, network.prefixlen) == network for each in found)


@given(st.lists(networks()))
def test_networks_of_both_families_have_an_order(found: list[Network]) -> None:
    in_order = sorted(found, key=network_order)
    for before, after in itertools.pairwise(in_order):
        if before.version == after.version:
            assert before <= after  # type: ignore[operator]  # one family
        else:
            assert (before.version, after.version) == (4, 6)
    ends = [each.network_address for each in in_order]
    assert sorted(ends, key=address_order) == ends


@given(networks())
def test_text_of_an_enabled_family_is_read_and_of_another_refused(network: Network) -> None:
    texts = (str(network.network_address), str(network), f"{network[1]}/{network.prefixlen}")
    if family_of(network) in ENABLED:
        assert read_address(texts[0]) == ip_address(texts[0])
        assert read_network(texts[1]) == read_network(texts[2], strict=False) == network
        assert read_interface(texts[2]) == ip_interface(texts[2])
        with pytest.raises(ValueError, match="host bits"):
            read_network(texts[2])
        return
    for text in texts:
        for read in (read_address, read_network, read_interface):
            with pytest.raises(ValueError, match="IPv6 is not supported"):
                read(text)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_host_holds_a_subnet_of_the_familys_lengths(family: Family) -> None:
    shortest, longest = family.subnet_lengths
    leasable = [n for n in range(family.bits + 1) if is_leasable(family.at(0, n))]
    assert leasable == list(range(shortest, longest + 1))
    assert family.host(family.address(1)).prefixlen == family.bits
    with pytest.raises(ValueError, match=f"no {family.name} prefix"):
        family.at(0, family.bits + 1)


@given(networks())
def test_a_mesh_is_private_unless_the_operator_allows_more(cidr: Network) -> None:
    problem = Bounds().problem(cidr)
    assert (problem is None) == any(
        within(cidr, each) for each in PRIVATE_RANGES if each.version == cidr.version
    )
    wide_open = Bounds(allowed=tuple(family.at(0, 0) for family in FAMILIES)).problem(cidr)
    assert bool(wide_open) == (forbidden_range(cidr) is not None)


@given(st.lists(networks(), unique=True), families)
def test_leases_of_both_families_are_found_by_subnet_and_host(
    subnets: list[Network], family: Family
) -> None:
    host = HostId("0" * 32)
    address = family.address(1)
    made = [Lease(subnet=each, node_address=address, backend="", host_id=host) for each in subnets]
    leases = Leases(made)
    assert [each.subnet for each in leases] == sorted(subnets, key=network_order)
    assert {each.subnet for each in leases.of(host)} == set(subnets)
    assert all(leases.by_subnet[each].subnet == each for each in subnets)


@pytest.mark.parametrize("text", ["169.254.0.0/16", "127.0.0.0/12", "fe80::/64", "ff02::/32"])
def test_promise_8_no_mesh_is_where_no_host_can_be(text: str) -> None:
    everything = tuple(family.at(0, 0) for family in FAMILIES)
    problem = Bounds(allowed=everything).problem(ip_network(text))
    assert problem is not None
    assert "which no mesh may have" in problem.reason
