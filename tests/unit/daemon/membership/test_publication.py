"""The records that a host publishes beside its lease, from the agent's state."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from agent.daemon.core.consequences import Action, Effect, consequences
from agent.daemon.membership.publication import publication
from agent.daemon.state.agent_state import AgentState
from agent.daemon.state.events import EndpointsSeen
from agent.daemon.state.mesh_state import MeshState
from agent.model import DockerFacts, DockerNetwork, HostFacts, View
from agent.model.endpoint import Endpoint
from agent.model.network import NETWORK_LABEL, MeshNetwork, NetworkSlice
from agent.registry.own.publisher import Publication
from agent.sharedmap import SharedMap
from tests.unit.small_mesh import CONFIG, UPLINK, lease

pytestmark = pytest.mark.unit

_LEASE = replace(lease(0), create_revision=7, etcd_lease_id=11)
_HOST = lease(0).host_id
_SHOP = DockerNetwork(
    id="n1",
    name="shop",
    subnet=IPv4Network("10.64.1.0/24"),
    bridge="br-1",
    labels={NETWORK_LABEL: "shop"},
)
_SLICE = NetworkSlice(host_id=_HOST or _LEASE.host_id, network="shop", subnet=_SHOP.subnet)  # type: ignore[arg-type]
_WEB = Endpoint(host_id=_SLICE.host_id, container_id="c" * 64, name="web")
_CONFIG = replace(CONFIG, level=3)


def state(**more: Any) -> AgentState:  # noqa: ANN401  # fields of the mesh's state
    mesh = MeshState(
        **{
            "host_id": _SLICE.host_id,
            "own": _LEASE,
            "config": _CONFIG,
            "believed": View(cluster_id=1, revision=9, config=_CONFIG, leases=(_LEASE,)),
            "host": HostFacts(links=(), foreign_routes=()),
            "uplink": UPLINK,
            "docker": DockerFacts(reachable=True, networks=(_SHOP,)),
            "own_endpoints": (_WEB,),
            **more,
        }
    )
    return AgentState(mesh=mesh)


def published(given: AgentState) -> Publication:
    found = publication(given)
    assert found is not None
    return found[0]


def test_slices_and_endpoints_are_published_under_the_lease() -> None:
    found = published(state())
    assert (found.slices, found.endpoints) == ((_SLICE,), (_WEB,))
    assert found.holding.key == b"/hostmesh/subnets/10.64.0.0-16"
    assert (found.holding.create_revision, found.holding.etcd_lease_id) == (7, 11)


def test_promise_2_a_slice_waits_for_the_network_that_docker_is_to_make_again() -> None:
    """Until another network has its subnet, or its record is gone or says so."""
    record = MeshNetwork(name="shop")
    seen = replace(
        View(cluster_id=1, revision=9, config=_CONFIG, leases=(_LEASE,)),
        slices=SharedMap({(_SLICE.host_id, "shop"): _SLICE}),
        networks=SharedMap({"shop": record}),
    )
    other = replace(_SHOP, name="other", id="n2", labels={})
    elsewhere = replace(other, subnet=IPv4Network("10.64.2.0/24"))
    without = DockerFacts(reachable=True, networks=(elsewhere,))
    assert published(state(believed=seen, docker=without)).slices == (_SLICE,)
    taken = DockerFacts(reachable=True, networks=(other,))
    assert published(state(believed=seen, docker=taken)).slices == ()
    for records in ({"shop": replace(record, removed=True)}, {}):
        gone = replace(seen, networks=SharedMap(records))
        assert published(state(believed=gone, docker=without)).slices == ()


def test_where_owner_records_decide_the_owner_record_is_the_lease() -> None:
    found = published(state(config=replace(_CONFIG, owners=True)))
    assert found.holding.key == f"/hostmesh/owners/{_SLICE.host_id}/10.64.0.0-16".encode()


@pytest.mark.parametrize("level", [1, 2])
def test_promise_12_nothing_is_published_below_the_level_that_it_needs(level: int) -> None:
    found = published(state(config=replace(_CONFIG, level=level)))
    assert (found.slices, found.endpoints) == ((), ())


def test_promise_3_what_docker_has_not_answered_yet_is_left_as_it_is() -> None:
    found = published(state(docker=DockerFacts(reachable=False), own_endpoints=None))
    assert (found.slices, found.endpoints) == (None, None)
    seen = published(state(docker=DockerFacts(reachable=False, networks=(_SHOP,))))
    assert seen.slices == (_SLICE,)


@pytest.mark.parametrize(
    "without",
    [
        {"own": None},
        {"left": True},
        {"config": None},
        {"own": lease(0)},  # as this host's copy has it: not known to be in etcd
    ],
)
def test_promise_4_nothing_is_published_without_a_lease_in_etcd(without: dict[str, Any]) -> None:
    assert publication(state(**without)) is None


def test_the_publisher_gets_what_changes_and_nothing_else() -> None:
    before = state()
    api = replace(_WEB, name="api")
    event = EndpointsSeen((api,), ())
    after = replace(before, mesh=replace(before.mesh, own_endpoints=(api,)))
    expected = Effect(Action.PUBLISH, (replace(published(before), endpoints=(api,)),))
    assert [each for each in consequences(before, after, event) if each == expected]
    same = replace(before, mesh=replace(before.mesh, silent=frozenset({IPv4Address("192.0.2.9")})))
    assert not [each for each in consequences(before, same, event) if each.action is Action.PUBLISH]
