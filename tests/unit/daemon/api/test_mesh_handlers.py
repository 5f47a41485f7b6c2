"""Containers of all hosts: from etcd, and while it is away as the agent last followed them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from agent.daemon.api.mesh_handlers import MeshHandlers
from agent.daemon.state.agent_state import AgentState, StateCell
from agent.daemon.state.freshness import Freshness
from agent.daemon.state.mesh_state import MeshState
from agent.errors import EtcdUnavailable
from agent.mesh.endpoints import AcceptedEndpoints
from agent.model import HostId, View
from agent.model.endpoint import Endpoint, EndpointAddress, EndpointView
from agent.registry.records import endpoint_key
from tests.unit.ctl.schemas import check
from tests.unit.small_mesh import CONFIG, lease

pytestmark = pytest.mark.unit

VIEW = View(cluster_id=1, revision=1, config=replace(CONFIG, level=3), leases=(lease(0), lease(1)))
WEB = Endpoint(
    host_id=HostId(f"{1:032x}"),
    container_id="a" * 64,
    name="web",
    addresses=(EndpointAddress(network="bridge", address=IPv4Address("10.65.0.2")),),
)


def unavailable() -> tuple[Endpoint, ...]:
    raise EtcdUnavailable("no endpoint answered")


def handlers(followed: EndpointView, *, away: bool) -> MeshHandlers:
    mesh = MeshState(
        host_id=HostId(f"{0:032x}"),
        believed=VIEW,
        peer_endpoints=AcceptedEndpoints().follow(followed, VIEW),
    )
    return MeshHandlers(
        cell=StateCell(AgentState(mesh=mesh)),
        freshness=lambda: Freshness(as_of_s=1.0),
        read_endpoints=unavailable if away else lambda: (WEB,),
    )


FOLLOWED = EndpointView(endpoints={endpoint_key(WEB): WEB}, complete=True)


@pytest.mark.parametrize("away", [False, True])
def test_promise_9_containers_are_stale_while_etcd_is_away(away: bool) -> None:
    document = handlers(FOLLOWED, away=away).containers()
    check("containers", document)
    (found,) = document["containers"]
    assert (found["name"], document["stale"]) == ("web", away)
    assert found["heartbeat"] == ("unknown" if away else "none")


def test_promise_4_a_view_that_was_never_complete_is_no_answer() -> None:
    with pytest.raises(EtcdUnavailable):
        handlers(EndpointView(), away=True).containers()


def test_a_networks_document_needs_no_endpoints() -> None:
    document = handlers(FOLLOWED, away=True).networks()
    check("networks", document)
