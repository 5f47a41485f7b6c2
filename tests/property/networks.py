"""Networks of either family, for properties that hold in both."""

from __future__ import annotations

from hypothesis import strategies as st

from agent.model.family import FAMILIES, Family, Network

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
