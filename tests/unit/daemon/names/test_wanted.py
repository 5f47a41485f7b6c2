"""Which changes of the agent's state change names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.daemon.core.consequences import Action, consequences
from agent.daemon.names.wanted import NamesWanted
from agent.daemon.state.agent_state import AgentState
from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.events import (
    ConditionsFound,
    ContactChanged,
    DockerReported,
    EndpointsSeen,
    Event,
    HostSeen,
    LeaseChanged,
    Left,
    NamesReported,
    ViewSeen,
)
from agent.docker.daemonjson.desired import DockerNames
from agent.docker.report import AttachReport
from agent.errors import EtcdUnavailable
from agent.model import NETWORKS_LEVEL, Condition, DockerFacts, DockerState
from tests.unit.daemon.core.test_consequences import FACTS, FIRST, MEMBER, after, follows, view
from tests.unit.small_mesh import CONFIG, UPLINK, lease

pytestmark = pytest.mark.unit


def wanted_of_names(state: AgentState, event: Event) -> list[NamesWanted]:
    found = consequences(state, after(state, event), event)
    return [each.given[0] for each in found if each.action is Action.FOLLOW_NAMES]


def test_names_follow_the_mesh_and_docker_once_the_config_has_a_domain() -> None:
    (off,) = wanted_of_names(after(FIRST, HostSeen(FACTS, UPLINK, ())), ViewSeen(view(0, 1)))
    assert off.input is None
    named = replace(CONFIG, domain="mesh.example", level=NETWORKS_LEVEL)
    before = after(MEMBER, ViewSeen(replace(view(0, 1, revision=11), config=named)))
    (early,) = wanted_of_names(before, EndpointsSeen(()))
    assert not early.own_known, "a container that asks is in no network yet"
    report = AttachReport(facts=DockerFacts(reachable=True), state=DockerState.READY)
    before = after(before, DockerReported(report))
    (wanted,) = wanted_of_names(before, EndpointsSeen(()))
    assert wanted.input is not None
    assert (wanted.own_known, wanted.others_known, wanted.current) == (True, False, True)
    (lost,) = wanted_of_names(before, ContactChanged(EtcdUnavailable("etcd is away")))
    assert not lost.current
    silent = Condition(name="endpoints-not-followed", cause="the watch broke", hint="see etcd")
    (stale,) = wanted_of_names(before, ConditionsFound(ConditionSource.FOLLOWING, (silent,)))
    assert not stale.current, "a container that is new elsewhere is not seen"
    (left,) = wanted_of_names(before, Left(left=True))
    assert left.input is None


def test_without_names_a_peer_that_comes_wakes_no_thread() -> None:
    before = after(MEMBER, ViewSeen(view(0, 1, revision=11)))
    assert wanted_of_names(before, ViewSeen(view(0, 1, 2, revision=12))) == []


def test_docker_gets_the_name_servers_when_they_answer() -> None:
    named = replace(CONFIG, domain="mesh.example", level=NETWORKS_LEVEL)
    before = after(MEMBER, ViewSeen(replace(view(0, 1, revision=11), config=named)))
    wants = {each.action: each.given for each in follows(before, NamesReported(True, ()))}
    assert wants[Action.CONFIGURE_DOCKER][3] == DockerNames(domain="mesh.example", served=True)


def test_one_restart_of_docker_brings_the_subnet_and_the_name_servers() -> None:
    """Whether servers run is known a moment later: until then Docker is left alone."""
    named = replace(CONFIG, domain="mesh.example", level=NETWORKS_LEVEL)
    seen = ViewSeen(replace(view(0, 1), config=named))
    viewed = after(FIRST, HostSeen(FACTS, UPLINK, ()), seen)
    held = LeaseChanged(lease(0), ())
    assert Action.CONFIGURE_DOCKER not in {each.action for each in follows(viewed, held)}
    leased = after(viewed, held)
    for served in (True, False):
        wants = {each.action: each.given for each in follows(leased, NamesReported(served, ()))}
        names = DockerNames(domain="mesh.example", served=served)
        assert wants[Action.CONFIGURE_DOCKER] == (lease(0).subnet, UPLINK.mtu, None, names)
