"""Docker gets the networks of records, and the terms of endpoints, when they change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.daemon.core.consequences import Action, Effect
from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.events import EndpointsSeen, Left, SettingsRead, ViewSeen
from agent.docker.endpoints.publishable import EndpointTerms
from agent.docker.networks.plan import Wanted
from agent.mesh.networks import DesiredNetwork
from agent.model import NETWORKS_LEVEL, Access, Condition
from agent.model.endpoint import Endpoint
from agent.model.network import MeshNetwork
from agent.settings import FirewallSettings
from agent.sharedmap import SharedMap
from tests.unit.daemon.core.test_consequences import MEMBER, OWN, after, follows, view
from tests.unit.small_mesh import CONFIG, UPLINK

pytestmark = pytest.mark.unit


def test_containers_are_followed_in_a_mesh_that_has_networks_and_no_longer_after_leaving() -> None:
    assert MEMBER.mesh.own is not None
    of_level = replace(CONFIG, level=NETWORKS_LEVEL)
    event = ViewSeen(replace(view(0, 1, revision=11), config=of_level))
    terms = EndpointTerms(host_id=OWN, subnets=(MEMBER.mesh.own.subnet,))
    follow = Effect(Action.FOLLOW_CONTAINERS, (terms,))
    assert follow in follows(MEMBER, event)
    state = after(MEMBER, event)
    limited = replace(state.settings, firewall=FirewallSettings(access=Access.CLOSED))
    tighter = Effect(Action.FOLLOW_CONTAINERS, (replace(terms, limit=Access.CLOSED),))
    assert tighter in follows(state, SettingsRead(limited))
    assert Effect(Action.FOLLOW_CONTAINERS, (None,)) in follows(state, Left(left=True))
    older = ViewSeen(view(0, 1, 2, revision=12))
    assert not [each for each in follows(MEMBER, older) if each.action is follow.action]


def test_networks_of_records_are_given_to_docker() -> None:
    of_level = replace(CONFIG, level=NETWORKS_LEVEL)
    records = SharedMap({"web": MeshNetwork(name="web", length=26)})
    seen = replace(view(0, 1, revision=11), config=of_level, networks=records)
    web = DesiredNetwork(name="web", length=26, mtu=UPLINK.mtu)
    wanted = Effect(Action.CONFIGURE_NETWORKS, (Wanted((web,), complete=True),))
    assert wanted in follows(MEMBER, ViewSeen(seen))
    state = after(MEMBER, ViewSeen(seen))
    gone = replace(seen, revision=12, networks=SharedMap())
    nothing = Effect(Action.CONFIGURE_NETWORKS, (Wanted((), complete=True),))
    assert nothing in follows(state, ViewSeen(gone))
    none = Effect(Action.CONFIGURE_NETWORKS, (Wanted(),))
    assert none in follows(state, ViewSeen(replace(seen, revision=12, config=CONFIG))), "level 1"
    assert none in follows(state, Left(left=True)), "a host that joins again reads them anew"
    other = ViewSeen(replace(view(0, 1, 2, revision=12), config=of_level, networks=records))
    assert not [each for each in follows(state, other) if each.action is nothing.action]


def test_endpoints_are_kept_with_their_conditions() -> None:
    endpoint = Endpoint(host_id=OWN, container_id="1" * 64, name="web")
    many = Condition(name="endpoints-too-many", cause="", hint="")
    assert MEMBER.mesh.own_endpoints is None
    state = after(MEMBER, EndpointsSeen((endpoint,), (many,)))
    assert state.mesh.own_endpoints == (endpoint,)
    assert state.conditions[ConditionSource.CONTAINERS] == (many,)
