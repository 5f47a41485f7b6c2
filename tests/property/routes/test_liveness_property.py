"""Lapsed hosts, followed from view to view, are those of a look at all (promise 4)."""

from __future__ import annotations

import functools
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.mesh.liveness import Lapsed, lapsed_leases
from agent.model import DockerState, Heartbeat, HostId, Lease, Leases, View
from agent.model.family import FAMILIES, Network
from agent.sharedmap import SharedMap
from tests.property.networks import in_family

pytestmark = pytest.mark.property

OWN = HostId("0" * 32)
HOSTS = [HostId(f"{number:032x}") for number in range(5)]
SUBNETS: list[Network] = [
    in_family(family, f"10.{64 + number}.0.0/16") for number in range(3) for family in FAMILIES
]

owners = st.dictionaries(st.sampled_from(SUBNETS), st.none() | st.sampled_from(HOSTS))
alive = st.frozensets(st.sampled_from(HOSTS))


def beat(host: HostId) -> Heartbeat:
    return Heartbeat(
        host_id=host,
        host_name="one",
        node_address=None,
        subnet=None,
        docker=DockerState.READY,
        agent_version="1",
        boot_id="b",
        started_s=0,
    )


@functools.cache
def lease(subnet: Network, host: HostId | None) -> Lease:
    """The same object each time: what stays is shared, as the fold does it."""
    address = IPv4Address("192.0.2.1")
    return Lease(subnet=subnet, node_address=address, backend="host-gw", host_id=host)


BEATS = {host: beat(host) for host in HOSTS}


@given(
    st.lists(
        st.tuples(owners, alive, st.sampled_from([False, False, False, True])),
        min_size=1,
        max_size=8,
    )
)
def test_the_short_way_equals_the_full_one(
    history: list[tuple[dict[Network, HostId | None], frozenset[HostId], bool]],
) -> None:
    leases = Leases()
    beats: SharedMap[HostId, Heartbeat] = SharedMap()
    followed: Lapsed | None = None
    for revision, (owned, living, cached) in enumerate(history):
        changes = {each: lease(each, owned[each]) if each in owned else None for each in SUBNETS}
        leases = leases.changed(changes)
        beats = beats.changed({host: BEATS[host] if host in living else None for host in HOSTS})
        view = View(
            cluster_id=1,
            revision=revision,
            leases=leases,
            heartbeats=beats,
            cached=cached,
        )
        followed = Lapsed.of(view, OWN) if followed is None else followed.follow(view, OWN)
        assert followed.view is view
        assert set(followed.by_subnet.values()) == set(lapsed_leases(view, OWN))
