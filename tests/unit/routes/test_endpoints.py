"""Why an endpoint, or an address of it, does not count."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.mesh.endpoints import AcceptedEndpoints
from agent.model import DockerState, Heartbeat, HostId, View
from agent.model.endpoint import Endpoint, EndpointAddress, EndpointView
from agent.model.network import MeshNetwork, NetworkSlice
from tests.unit.small_mesh import CONFIG, lease

pytestmark = pytest.mark.unit

_PEER = lease(1)
_HOST = HostId(f"{1:032x}")
_PART = NetworkSlice(host_id=_HOST, network="shop", subnet=IPv4Network("10.65.1.0/24"))
_MESH = View(
    cluster_id=1,
    revision=9,
    config=replace(CONFIG, level=3),
    leases=(lease(0), _PEER),
    slices={(_HOST, "shop"): _PART},
)


def heartbeat(host_id: HostId, boot_id: str) -> Heartbeat:
    return Heartbeat(
        host_id=host_id,
        host_name="h",
        node_address=None,
        subnet=None,
        docker=DockerState.READY,
        agent_version="0.2.0",
        started_s=1.0,
        boot_id=boot_id,
    )


def judged(
    address: str, network: str = "", mesh: View = _MESH, boot_id: str = ""
) -> tuple[bool, str]:
    place = EndpointAddress(network="n", address=IPv4Address(address), mesh_network=network)
    endpoint = Endpoint(
        host_id=_HOST, container_id="c" * 64, name="web", addresses=(place,), boot_id=boot_id
    )
    key = _HOST, "c" * 16
    view = EndpointView(cluster_id=1, revision=9, endpoints={key: endpoint}, complete=True)
    found = AcceptedEndpoints().follow(view, mesh)
    assert found.complete
    return key in found.endpoints, found.set_aside.get(key, "")


def test_an_address_counts_inside_the_lease_of_its_host() -> None:
    assert judged("10.65.0.2") == (True, "")
    assert judged("10.65.1.2", "shop") == (True, "")


@pytest.mark.parametrize(
    ("address", "network", "why"),
    [
        ("10.64.0.2", "", "in no lease of its host"),
        ("10.66.0.2", "", "in no lease of its host"),
        ("192.0.2.1", "", "in no lease of its host"),
        ("10.65.2.2", "shop", "outside 10.65.1.0/24"),
        ("10.65.2.2", "db", "no part of mesh network db"),
    ],
)
def test_promise_8_no_host_names_an_address_that_is_not_its_own(
    address: str, network: str, why: str
) -> None:
    there, reason = judged(address, network)
    assert not there
    assert why in reason


def test_promise_8_a_slice_outside_its_hosts_lease_makes_no_address_count() -> None:
    forged = replace(_PART, subnet=IPv4Network("10.64.0.0/15"))
    mesh = replace(_MESH, slices={(_HOST, "shop"): forged})
    assert "no part of mesh network shop" in judged("10.65.1.2", "shop", mesh)[1]


def test_a_host_that_the_record_does_not_name_has_no_part() -> None:
    record = MeshNetwork(name="shop", hosts=("0" * 32,))
    mesh = replace(_MESH, networks={"shop": record})
    assert "does not name the host" in judged("10.65.1.2", "shop", mesh)[1]
    assert judged("10.65.0.2", "", mesh) == (True, "")


def test_what_ran_before_a_reboot_does_not_count() -> None:
    beat = heartbeat(_HOST, "b2")
    mesh = replace(_MESH, heartbeats={_HOST: beat})
    assert "rebooted" in judged("10.65.0.2", mesh=mesh, boot_id="b1")[1]
    assert judged("10.65.0.2", mesh=mesh, boot_id="b2") == (True, "")
    assert judged("10.65.0.2", mesh=mesh) == (True, "")


def test_promise_12_nothing_counts_below_the_level_that_it_needs() -> None:
    mesh = replace(_MESH, config=replace(CONFIG, level=2))
    assert "below level 3" in judged("10.65.0.2", mesh=mesh)[1]


def test_promise_4_absence_is_known_of_complete_views_only() -> None:
    assert not AcceptedEndpoints().complete
    assert not AcceptedEndpoints().follow(mesh=_MESH).complete
    assert not AcceptedEndpoints().follow(EndpointView(complete=True)).complete
    cached = replace(_MESH, cached=True)
    assert not AcceptedEndpoints().follow(EndpointView(complete=True), cached).complete
