"""Which container a heartbeat names: one that runs, for as long as it runs, and not too often."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.daemon.membership.named_container import NamedContainer
from agent.daemon.state.mesh_state import MeshState
from agent.model import (
    Access,
    Attachment,
    Container,
    DockerFacts,
    DockerNetwork,
    HostId,
    Lease,
    MeshConfig,
)

pytestmark = pytest.mark.unit

OWN = HostId("1" * 32)
LEASE = IPv4Network("10.64.0.0/16")


def network(subnet: str, **more: object) -> DockerNetwork:
    return DockerNetwork(
        id=subnet,
        name=subnet,
        bridge="br-0",
        subnet=IPv4Network(subnet),
        **more,  # type: ignore[arg-type]
    )


def mesh(*containers: str) -> MeshState:
    networks = (
        network("10.64.0.0/17", default=True),
        network("10.64.128.0/24", internal=True),
        network("10.64.129.0/24", labels={"hostmesh.access": "closed"}),
        network("172.18.0.0/16"),
    )
    return MeshState(
        host_id=OWN,
        own=Lease(
            subnet=LEASE, node_address=IPv4Address("192.0.2.1"), backend="host-gw", host_id=OWN
        ),
        config=MeshConfig(
            cidr=IPv4Network("10.64.0.0/10"),
            subnet_len=16,
            subnet_min=IPv4Address("10.64.0.0"),
            subnet_max=IPv4Address("10.127.0.0"),
        ),
        docker=DockerFacts(
            reachable=True,
            networks=networks,
            containers=tuple(
                Container(each, each, (Attachment("n", IPv4Address(each), ""),))
                for each in containers
            ),
        ),
    )


def test_only_one_that_the_mesh_may_ping_is_named() -> None:
    closed = mesh("10.64.128.2", "10.64.129.2", "172.18.0.2")
    assert NamedContainer().choose(closed, Access.OPEN) is None
    both = mesh("10.64.0.7", "10.64.128.2")
    assert NamedContainer().choose(both, Access.OPEN) == IPv4Address("10.64.0.7")
    assert NamedContainer().choose(both, Access.CLOSED) is None
    assert NamedContainer().choose(replace(both, own=None), Access.OPEN) is None


def test_promise_10_it_stays_and_a_container_that_crashes_for_ever_costs_little() -> None:
    now = [0.0]
    named = NamedContainer(lambda: now[0])
    assert named.choose(mesh("10.64.0.3"), Access.OPEN) == IPv4Address("10.64.0.3")
    assert named.choose(mesh("10.64.0.2", "10.64.0.3"), Access.OPEN) == IPv4Address("10.64.0.3")
    now[0] = 30.0
    assert named.choose(mesh("10.64.0.2"), Access.OPEN) == IPv4Address("10.64.0.2")
    changes, before = 0, named.choose(mesh("10.64.0.2"), Access.OPEN)
    for second in range(1, 301):
        now[0] = 30.0 + second
        found = named.choose(mesh("10.64.0.2") if second % 2 else mesh(), Access.OPEN)
        changes += found != before
        before = found
    assert changes <= 2 * 300 / 30


def test_promise_10_containers_that_take_over_from_each_other_cost_little() -> None:
    """Short jobs that overlap: one always runs, and none for long."""
    now = [0.0]
    named = NamedContainer(lambda: now[0])
    changes, before = 0, None
    for second in range(300):
        now[0] = float(second)
        running = (f"10.64.0.{2 + second % 200}", f"10.64.0.{2 + (second + 1) % 200}")
        found = named.choose(mesh(*running), Access.OPEN)
        assert found is None or str(found) in running
        changes += found != before
        before = found
    assert changes <= 2 * 300 / 30 + 1
