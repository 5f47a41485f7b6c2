"""Judging leases one by one is the same as judging all of them, in both families (promise 1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import Lease, MeshConfig
from agent.model.family import FAMILIES, Family, Network
from agent.registry.accepted_leases import AcceptedLeases
from agent.registry.records import check_lease
from tests.property.networks import address_in, families, in_family

pytestmark = pytest.mark.property

SUBNETS = [
    in_family(family, text)
    for family in FAMILIES
    for text in (
        "10.64.0.0/16",
        "10.64.0.0/24",
        "10.64.7.0/24",
        "10.65.0.0/16",
        "10.64.0.0/15",
        "10.70.0.0/16",
        "10.96.0.0/12",
        "10.97.0.0/24",
        "10.128.0.0/16",
    )
]
names = st.integers(0, 7).map(str)
steps = st.tuples(names, st.none() | st.sampled_from(SUBNETS), st.booleans())


def _config(family: Family, text: str) -> MeshConfig:
    cidr = in_family(family, text)
    last = in_family(family, "10.79.0.0/16")
    return MeshConfig(
        cidr=cidr,
        subnet_len=last.prefixlen,
        subnet_min=cidr.network_address,
        subnet_max=last.network_address,
    )


def _by_definition(named: dict[str, Lease], config: MeshConfig) -> set[Lease]:
    used: list[Lease] = []
    for lease in sorted(named.values(), key=lambda each: each.create_revision):
        free = not any(lease.subnet.overlaps(other.subnet) for other in used)
        if free and not check_lease(lease, config):
            used.append(lease)
    return set(used)


@given(families, st.lists(steps, max_size=25))
def test_promise_1_the_short_way_equals_the_definition(
    family: Family, history: list[tuple[str, Network | None, bool]]
) -> None:
    leases, named = AcceptedLeases(), dict[str, Lease]()
    config = _config(family, "10.64.0.0/10")
    node_address = address_in(family, "192.0.2.1")
    for revision, (name, subnet, settle) in enumerate(history, start=1):
        if subnet is None:
            named.pop(name, None)
        else:
            named[name] = Lease(
                subnet=subnet,
                node_address=node_address,
                backend="host-gw",
                create_revision=named[name].create_revision if name in named else revision,
            )
        leases.put(name, named.get(name))
        assert leases.find(name) == named.get(name)
        if settle:
            used, aside = leases.settle(config)
            assert set(used) == _by_definition(named, config)
            assert aside.keys() == {n for n, each in named.items() if each not in set(used)}
    config = _config(family, "10.64.0.0/11")
    used, _ = leases.settle(config)
    assert set(used) == _by_definition(named, config)
    assert len(leases) == len(named) == len(list(leases))
