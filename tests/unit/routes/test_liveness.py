"""Find suspected and dead hosts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from agent.mesh.liveness import dead_subnets, lapsed_leases, probe_addresses
from agent.model import BackendChoice, BackendData, DockerState, Heartbeat, HostId, Lease, View

pytestmark = pytest.mark.unit

ME, PEER = HostId("0" * 32), HostId("1" * 32)


def lease(subnet: str, address: str, host_id: HostId | None) -> Lease:
    return Lease(
        subnet=IPv4Network(subnet),
        node_address=IPv4Address(address),
        backend="host-gw",
        host_id=host_id,
    )


OWN = lease("10.64.0.0/16", "192.0.2.1", ME)
THEIRS = lease("10.65.0.0/16", "192.0.2.11", PEER)
FLANNEL = lease("10.66.0.0/16", "192.0.2.12", None)
VIEW = View(cluster_id=1, revision=9, leases=(OWN, THEIRS, FLANNEL))
BEAT = Heartbeat(
    host_id=PEER,
    host_name="b",
    node_address=None,
    subnet=None,
    docker=DockerState.READY,
    agent_version="1",
    boot_id="",
    started_s=0,
)


def test_a_peer_without_a_heartbeat_is_suspected_flannel_hosts_and_this_host_are_not() -> None:
    assert lapsed_leases(VIEW, ME) == (THEIRS,)
    assert lapsed_leases(replace(VIEW, heartbeats={PEER: BEAT}), ME) == ()


def test_promise_4_absence_from_no_view_or_from_a_copy_is_no_absence() -> None:
    assert lapsed_leases(None, ME) == ()
    assert lapsed_leases(replace(VIEW, cached=True), ME) == ()


def test_promise_3_dead_is_lapsed_and_silent() -> None:
    assert dead_subnets([THEIRS], {THEIRS.node_address}) == {THEIRS.subnet}
    assert dead_subnets([THEIRS], frozenset()) == frozenset()
    assert dead_subnets([], {THEIRS.node_address}) == frozenset()


MAC = BackendData.of({"VNI": 1, "VtepMAC": "02:00:00:00:00:01"})
NODE, INNER = THEIRS.node_address, THEIRS.subnet.network_address


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, {NODE}),
        ({"backend": "vxlan", "backend_data": MAC}, {NODE, INNER}),
        ({"accepted": BackendChoice("vxlan", MAC)}, {NODE, INNER}),
        ({"backend": "vxlan", "accepted": BackendChoice("host-gw")}, {NODE}),
        ({"backend": "wireguard", "backend_data": BackendData.of({"NAT": True})}, {INNER}),
    ],
    ids=["host-gw", "vxlan", "accepts-vxlan", "publishes-nothing", "behind-nat"],
)
def test_promise_3_a_host_is_dead_when_no_address_of_it_answers(
    changes: dict[str, Any], asked: set[IPv4Address]
) -> None:
    theirs = replace(THEIRS, **changes)
    assert set(probe_addresses(theirs)) == asked
    assert dead_subnets([theirs], asked) == {THEIRS.subnet}
    for answers in asked:
        assert not dead_subnets([theirs], asked - {answers}), "it answers there"
