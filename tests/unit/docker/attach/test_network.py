"""docker.attach = "network" against an engine without a dockerd: make, keep, switch, give back."""

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from agent.docker.daemonjson.desired import desired_docker
from agent.docker.engine.reading import OWN_NETWORK, EngineKind
from agent.docker.service.restart_policy import Override
from agent.errors import Refused
from agent.mesh.firewall.desired import desired_firewall
from agent.model import OWN_BRIDGE, Access, DockerFacts, DockerNetwork, DockerState
from agent.settings import DockerSettings
from tests.unit.docker.dockerworld import DESIRED, OLD, Parts, World, make, names, write
from tests.unit.firewall.wanted import world_of as firewall_world

pytestmark = pytest.mark.unit

THEIRS = DockerNetwork(
    id="theirs", name=OWN_NETWORK, bridge="br-1", subnet=IPv4Network("192.168.99.0/24"), mtu=1500
)


def test_promise_7_the_lease_goes_to_a_network_and_nothing_else_is_touched(
    parts: Parts, world: World
) -> None:
    world.running = ("web",)
    report = parts.by_network.ensure(desired_docker(DESIRED.subnet, 1450))
    assert (report.state, names(report)) == (DockerState.READY, set())
    assert world.own is not None
    assert (world.own.subnet, world.own.bridge) == (DESIRED.subnet, OWN_BRIDGE)
    assert world.own.mtu == 1450
    assert (world.restarts, parts.text, world.bip) == (0, None, OLD)
    parts.by_network.ensure(desired_docker(DESIRED.subnet, 1450))
    assert world.made == 1


def test_the_firewall_treats_it_like_docker0(parts: Parts, world: World) -> None:
    parts.by_network.ensure(DESIRED)
    assert world.own is not None
    docker = DockerFacts(reachable=True, networks=(world.own,))
    wanted = desired_firewall(firewall_world(IPv4Network("10.64.0.0/10"), DESIRED.subnet, docker))
    assert [(each.bridge, each.access) for each in wanted.networks] == [(OWN_BRIDGE, Access.OPEN)]


def test_a_network_that_was_removed_is_made_again(parts: Parts, world: World) -> None:
    parts.by_network.ensure(DESIRED)
    world.own = None
    assert parts.by_network.ensure(DESIRED).state is DockerState.READY
    assert world.made == 2


def test_promise_5_another_network_of_that_name_is_left_alone(parts: Parts, world: World) -> None:
    world.own = THEIRS
    report = parts.by_network.ensure(DESIRED)
    assert report.state is DockerState.PENDING
    assert "docker-network-name-taken" in names(report)
    parts.detacher.detach()
    assert world.own == THEIRS


def test_another_lease_replaces_it_only_when_nobody_uses_it(parts: Parts, world: World) -> None:
    parts.by_network.ensure(DESIRED)
    world.users = ("web",)
    later = desired_docker(IPv4Network("10.65.0.0/16"), 1500)
    held = parts.by_network.ensure(later)
    assert held.state is DockerState.PENDING
    cause = next(each.cause for each in held.conditions if each.name == "docker-network-in-use")
    assert "web" in cause
    assert "10.65.0.0/16" in cause
    world.users = ()
    assert parts.by_network.ensure(later).state is DockerState.READY
    assert world.own is not None
    assert world.own.subnet == later.subnet


def test_another_mtu_alone_leaves_a_used_network_ready(parts: Parts, world: World) -> None:
    parts.by_network.ensure(DESIRED)
    world.users = ("web",)
    report = parts.by_network.ensure(replace(DESIRED, mtu=1400))
    assert (report.state, names(report)) == (DockerState.READY, {"docker-network-in-use"})


def test_what_is_in_the_way_is_named(parts: Parts, world: World) -> None:
    world.bip = IPv4Interface("10.64.0.1/16")
    report = parts.by_network.ensure(DESIRED)
    assert report.state is DockerState.PENDING
    cause = next(each.cause for each in report.conditions if each.name == "docker-network-refused")
    assert "Pool overlaps" in cause
    assert "bridge has 10.64.0.0/16" in cause


def test_networks_outside_the_lease_get_a_hint(parts: Parts, world: World) -> None:
    world.networks = (
        DockerNetwork(id="n", name="app", bridge="br-2", subnet=IPv4Network("172.20.0.0/16")),
    )
    report = parts.by_network.ensure(DESIRED)
    outside = next(each for each in report.conditions if each.name == "network-not-routable")
    assert (outside.subject, report.state) == ("app", DockerState.READY)
    assert "docker network connect hostmesh" in outside.hint


@pytest.mark.parametrize("change", ["podman", "down"])
def test_nothing_is_made_where_there_is_no_docker(parts: Parts, world: World, change: str) -> None:
    if change == "podman":
        world.kind = EngineKind.PODMAN
    else:
        world.up = False
    assert parts.by_network.ensure(DESIRED).state is DockerState.ABSENT
    assert world.made == 0


def test_unmanaged_is_only_looked_at(world: World, tmp_path: Path) -> None:
    parts = make(world, tmp_path / "state", DockerSettings(manage=False))
    assert parts.by_network.ensure(DESIRED).state is DockerState.PENDING
    assert world.made == 0


def test_switching_to_the_network_gives_docker0_back_first(parts: Parts, world: World) -> None:
    write(world, '{"debug": true}')
    assert parts.ensure().state is DockerState.READY
    world.running = ("web",)
    held = parts.by_network.ensure(DESIRED)
    assert (held.state, names(held)) == (DockerState.PENDING, {"docker-restart-pending"})
    assert world.bip == DESIRED.bip
    with pytest.raises(Refused, match="web"):
        parts.by_network.ensure(DESIRED, Override.POLICY)
    world.running = ()
    parts.allowed[0] = False
    waiting = parts.by_network.ensure(DESIRED)
    assert names(waiting) == {"docker-restart-pending"}
    assert world.bip == DESIRED.bip, "another host has the lock"
    parts.allowed[0] = True
    world.meanwhile = [lambda: setattr(world, "running", ("web",))]
    late = parts.by_network.ensure(DESIRED)
    assert names(late) == {"docker-restart-pending"}
    assert world.bip == DESIRED.bip, "a container was started while it waited for the lock"
    world.running, world.meanwhile = (), []
    report = parts.by_network.ensure(DESIRED)
    assert (report.state, names(report)) == (DockerState.READY, set())
    assert (world.bip, parts.text) == (OLD, '{"debug": true}')
    assert parts.store.journal() is None


def test_switching_back_waits_for_the_networks_containers(parts: Parts, world: World) -> None:
    parts.by_network.ensure(DESIRED)
    world.users = ("web",)
    held = parts.ensure()
    assert (held.state, names(held)) == (DockerState.PENDING, {"docker-network-in-use"})
    assert (parts.text, world.restarts) == (None, 0)
    world.users = ()
    report = parts.ensure()
    assert (report.state, names(report)) == (DockerState.READY, set())
    assert (world.own, world.bip) == (None, DESIRED.bip)


def test_leave_removes_the_network_or_says_who_uses_it(parts: Parts, world: World) -> None:
    parts.by_network.ensure(DESIRED)
    world.users = ("web", "db")
    left = parts.detacher.detach()
    assert world.own is not None
    assert "web, db" in left.todo[0]
    world.users = ()
    gone = parts.detacher.detach()
    assert (gone.done, gone.todo) == (("removed Docker network hostmesh",), ())
    assert world.own is None
    assert parts.detacher.detach().done == ()
    assert world.restarts == 0
