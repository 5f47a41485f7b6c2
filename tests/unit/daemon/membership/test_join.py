"""A host that joins registers with the keeper, unless a condition prevents it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from agent.daemon.membership.join import Joiner, overlap_condition, summary_of
from agent.daemon.state.agent_state import AgentState, StateCell
from agent.daemon.state.mesh_state import MeshState
from agent.etcd.client import EtcdClient
from agent.model import (
    Condition,
    DockerFacts,
    DockerNetwork,
    DockerState,
    HostFacts,
    HostId,
    HostSummary,
    Lease,
    Link,
    MeshConfig,
    Severity,
    Uplink,
    View,
)
from agent.registry.claiming.request import Registration
from agent.registry.own.keeper import Keeper
from agent.registry.registry import Registry
from agent.settings import EtcdSettings, load_settings
from tests.unit.small_mesh import lease

pytestmark = pytest.mark.unit

OWN = HostId("a" * 32)
PAST = IPv4Network("10.70.0.0/16")
PROJECT = DockerNetwork(
    id="1", name="app_default", bridge="br-app", subnet=IPv4Network("10.70.128.0/24")
)
CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"),
    subnet_len=16,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.0.0"),
)
UPLINK = Uplink(
    index=2,
    name="eth0",
    mtu=1500,
    node_address=IPv4Address("192.0.2.1"),
    on_link=IPv4Network("192.0.2.0/24"),
)


def link(name: str, index: int, address: str) -> Link:
    return Link(
        index=index, name=name, kind="bridge", up=True, mtu=1500, mac="02:00:00:00:00:01",
        addresses=(IPv4Interface(address),),
    )  # fmt: skip


def mesh(*links: Link, docker: tuple[DockerNetwork, ...] = (PROJECT,)) -> MeshState:
    """A host that holds nothing; the mesh remembers what it had."""
    view = View(cluster_id=1, revision=5, config=CONFIG, memory={OWN: PAST})
    return MeshState(
        host_id=OWN,
        host=HostFacts(links=links, foreign_routes=()),
        uplink=UPLINK,
        docker=DockerFacts(reachable=True, networks=docker),
        docker_state=DockerState.PENDING,
    ).with_view(view)


class Reported(Keeper):
    """A keeper that does not run: the test reads its registration."""

    @property
    def registration(self) -> Registration | None:
        return self._registration


def joiner(
    past: IPv4Network | None = None, active: Callable[[], Iterable[Condition]] = tuple
) -> tuple[Joiner, Reported]:
    client = EtcdClient(EtcdSettings(endpoints=("http://192.0.2.9:2379",)))
    registry = Registry(client, "/hostmesh")
    settings = load_settings(Path("/nonexistent/agent.toml"))
    keeper = Reported(
        registry,
        host_id=OWN,
        boot_id="b" * 32,
        agent_version="0",
        settings=settings.lease,
        on_lease=lambda *_: None,
    )
    made = Joiner(
        cell=StateCell(AgentState(mesh=MeshState(host_id=OWN), settings=settings)),
        keeper=keeper,
        registry=registry,
        host_id=OWN,
        boot_id="b" * 32,
        past=None if past is None else replace(lease(0), subnet=past),
        host_name="one",
        on_job=lambda: None,
        active=active,
    )
    return made, keeper


def test_a_docker_network_of_its_last_stay_keeps_no_host_from_joining_again() -> None:
    """It left while a Compose project was up: its range is no stranger's."""
    made, keeper = joiner()
    assert made.step(mesh(link("br-app", 5, "10.70.128.1/24"))) == ()
    reported = keeper.registration
    assert reported is not None
    assert not any(each.overlaps(PROJECT.subnet) for each in reported.avoid)


def test_whatever_else_is_in_the_range_of_the_last_stay_does() -> None:
    made, keeper = joiner()
    (found,) = made.step(mesh(link("eth1", 6, "10.70.5.1/24"), docker=()))
    assert found.name == "cidr-overlaps-host"
    assert "10.70.5.1/24" in found.cause
    assert keeper.registration is None


def test_a_host_that_left_claims_nothing_from_its_copy() -> None:
    """By now it may be another's: only what the mesh says counts."""
    made, keeper = joiner(PAST)
    made.step(mesh(docker=()))
    assert keeper.registration is not None
    assert keeper.registration.wanted_subnet == PAST
    made.forget()
    made.step(mesh(docker=()))
    assert keeper.registration.wanted_subnet is None


def test_promise_10_of_very_many_overlaps_a_few_are_named() -> None:
    routes = tuple(f"the route to 10.70.{n}.0/24" for n in range(200))
    found = overlap_condition(IPv4Network("10.64.0.0/10"), routes, joined=True)
    assert "10.70.4.0/24 and 195 more of this host" in found.cause
    assert "10.70.5.0/24" not in found.cause


def test_a_members_own_subnet_is_no_overlap() -> None:
    lease = Lease(subnet=PAST, node_address=UPLINK.node_address, backend="host-gw", host_id=OWN)
    made, keeper = joiner()
    assert made.step(replace(mesh(link("br-app", 5, "10.70.128.1/24")), own=lease)) == ()
    assert keeper.registration is not None
    assert keeper.registration.wanted_subnet == PAST


def condition(name: str, severity: Severity = Severity.WARNING) -> Condition:
    return Condition(name=name, cause="c", hint="h", severity=severity)


def test_a_heartbeat_names_conditions_of_this_host_only() -> None:
    """Else one dead peer would make every host of the mesh write a heartbeat at once."""
    shown = ("docker-swarm", "peer-dead", "level-held-back", "docker-swarm", "route-fight")
    active = [*map(condition, shown), condition("docker-absent", Severity.INFO)]
    active.insert(0, condition("route-refused", Severity.ERROR))
    assert summary_of(mesh(), active) == HostSummary(
        conditions=("route-refused", "docker-swarm", "route-fight"), containers=0
    )


def test_a_heartbeat_names_eight_conditions_at_most_and_counts_only_what_docker_says() -> None:
    silent = replace(mesh(), docker=DockerFacts(reachable=False))
    found = summary_of(silent, [condition(f"c{number}") for number in range(20)])
    assert found.conditions == tuple(f"c{number}" for number in range(8))
    assert found.containers is None
    running = replace(mesh(), docker=DockerFacts(reachable=True, running=("a", "b")))
    assert summary_of(running, ()).containers == 2


def test_the_keeper_gets_what_the_heartbeat_shows() -> None:
    made, keeper = joiner(active=lambda: [condition("docker-swarm")])
    made.step(mesh(docker=()))
    assert keeper.registration is not None
    assert keeper.registration.summary.conditions == ("docker-swarm",)
