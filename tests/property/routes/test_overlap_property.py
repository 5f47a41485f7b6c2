"""A mesh laid over ranges that a host uses is found out, in both families."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.mesh.lease_split import split_lease
from agent.mesh.needed import gateways, needed_in
from agent.mesh.overlap import host_overlaps, networks_in_use
from agent.model import HostFacts, Link, Need, Needed, Route
from agent.model.family import Family, Network, family_of, is_default, meet, within
from tests.property.networks import families, networks

pytestmark = pytest.mark.property


@st.composite
def hosts(draw: st.DrawFn) -> tuple[HostFacts, list[Network]]:
    """Draw a host of both families, with the networks that it uses; some links are the agent's."""
    own = draw(st.lists(networks(), max_size=4, unique=True))
    made = draw(st.lists(st.booleans(), min_size=4, max_size=4))
    routed = draw(st.lists(networks() | families.map(lambda each: each.at(0, 1)), max_size=4))
    links = tuple(
        Link(
            index=number,
            name=f"eth{number}",
            kind="",
            up=True,
            mtu=1500,
            mac="",
            addresses=(family_of(each).interface((int(each[1]), each.prefixlen)),),
            own=made[number],
        )
        for number, each in enumerate(own)
    )
    routes = tuple(Route(destination=each, gateway=each[1]) for each in routed)
    used = [each for each, ours in zip(own, made, strict=False) if not ours]
    return HostFacts(links=links, foreign_routes=routes), [*used, *routed]


@given(hosts(), networks())
def test_promise_8_a_cidr_over_what_the_host_uses_is_named(
    host: tuple[HostFacts, list[Network]], cidr: Network
) -> None:
    facts, used = host
    meeting = [each for each in used if each.version == cidr.version and each.overlaps(cidr)]
    expected = [each for each in meeting if not is_default(each)]
    assert bool(host_overlaps(facts, cidr)) == bool(expected)
    inside = networks_in_use(facts, cidr)
    assert set(inside) == {each for each in expected if within(each, cidr)}
    wider = [each for each in expected if not within(each, cidr)]
    assert bool(host_overlaps(facts, cidr, own=[cidr])) == bool(wider)


@given(hosts(), networks())
def test_gateways_of_default_routes_are_needed(
    host: tuple[HostFacts, list[Network]], cidr: Network
) -> None:
    found = gateways(host[0])
    assert set(found) == {
        each.gateway for each in host[0].foreign_routes if is_default(each.destination)
    }
    needed = tuple(Needed(each, Need.GATEWAY) for each in found)
    expected = tuple(each for each in needed if int(each.address) in _span_of(cidr, each))
    assert needed_in([cidr], needed) == expected


def _span_of(cidr: Network, needed: Needed) -> range:
    if cidr.version != needed.address.version:
        return range(0)
    return range(int(cidr.network_address), int(cidr.broadcast_address) + 1)


@given(families, st.data())
def test_a_lease_is_shared_out_whole(family: Family, data: st.DataObject) -> None:
    shortest, longest = family.subnet_lengths
    subnet = data.draw(networks(family).filter(lambda each: each.prefixlen >= shortest))
    network_len = data.draw(st.none() | st.integers(shortest, longest))
    split = split_lease(subnet, network_len=network_len, docker0_bits=data.draw(st.integers(0, 4)))
    parts = [split.docker0, *(base for base, _ in split.pools)]
    assert sum(each.num_addresses for each in parts) == subnet.num_addresses
    assert all(within(each, subnet) for each in parts)
    assert not any(meet(one, other) for one in parts for other in parts if one is not other)
    assert split.bip.network == split.docker0
    assert split.bip.ip == split.docker0[1]
    assert all(length >= base.prefixlen for base, length in split.pools)
