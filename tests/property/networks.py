"""Networks of either family, for properties that hold in both."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import strategies as st

from agent.model.family import FAMILIES, IPV6, Address, Family, Network, family_of

families = st.sampled_from(FAMILIES)


@st.composite
def networks(draw: st.DrawFn, family: Family | None = None) -> Network:
    """Draw a network that a host or a mesh could have, often one near another."""
    family = family or draw(families)
    shortest = family.mesh_lengths[0]
    length = draw(st.integers(shortest, family.subnet_lengths[1]))
    anywhere = st.integers(0, (1 << family.bits) - 1)
    crowded = st.integers(0, 15).map(lambda part: part << (family.bits - shortest - 4))
    return family.at(draw(anywhere | crowded), length)


pairs = families.flatmap(lambda family: st.tuples(networks(family), networks(family)))
"""Two networks of one family."""

_ULA = 0xFD00 << 112
_AHEAD = 16


def in_family(family: Family, text: str) -> Network:
    """Return an IPv4 network, or its like in fd00::/16: what a test says of one, of the other."""
    network = ip_network(text)
    if family_of(network) is family:
        return network
    return family.at(_address(network), network.prefixlen + _AHEAD)


def address_in(family: Family, text: str) -> Address:
    """Return an IPv4 address, or the one of its like in fd00::/16."""
    network = ip_network(text)
    ours = family_of(network) is family
    return network.network_address if ours else family.address(_address(network))


def _address(network: Network) -> int:
    free = IPV6.bits - _AHEAD - network.max_prefixlen
    return _ULA | int(network.network_address) << free
