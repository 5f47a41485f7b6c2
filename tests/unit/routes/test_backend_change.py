"""Two backends side by side: which one a packet takes, and which steps follow each other."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.errors import MeshConfigError
from agent.mesh.backend_change import Step, absent, awaited, read_options, step_config
from agent.mesh.desired import DesiredObjects, desired_objects, is_certain
from agent.mesh.peer_rules import PeerRules, unusable_data
from agent.mesh.world import World, peers_by_subnet
from agent.model import (
    BackendChoice,
    BackendData,
    HostId,
    Lease,
    MeshConfig,
    Neighbour,
    Published,
    Route,
    Uplink,
    View,
)

pytestmark = pytest.mark.unit

ME, OTHER = HostId("1" * 32), HostId("2" * 32)
CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"),
    subnet_len=16,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.0.0"),
)
DATA = BackendData.of({"VNI": 1, "VtepMAC": "82:4b:b6:2f:54:4e"})
PREPARED = replace(CONFIG, accepted=BackendChoice("vxlan"))
SWITCHED = replace(CONFIG, backend="vxlan", accepted=BackendChoice("host-gw"))
OLD = Lease(
    subnet=IPv4Network("10.65.0.0/16"), node_address=IPv4Address("192.0.2.2"), backend="host-gw"
)
BOTH = replace(OLD, accepted=BackendChoice("vxlan", DATA))
NEW = replace(OLD, backend="vxlan", backend_data=DATA)


def desired(config: MeshConfig, peer: Lease) -> DesiredObjects:
    own = Lease(
        subnet=IPv4Network("10.64.0.0/16"),
        node_address=IPv4Address("192.0.2.1"),
        backend="host-gw",
        host_id=ME,
    )
    uplink = Uplink(
        index=2,
        name="eth0",
        mtu=1500,
        node_address=IPv4Address("192.0.2.1"),
        on_link=IPv4Network("192.0.2.0/24"),
    )
    return desired_objects(
        World(
            host_id=ME,
            config=config,
            own=own,
            peers=peers_by_subnet([peer], own),
            uplink=uplink,
            complete=True,
        )
    )


def links(found: DesiredObjects) -> set[str | None]:
    """The links by which packets to the peer leave."""
    routes = found.of(Route).values()
    return {each.link for each in routes if each.destination == OLD.subnet}


@pytest.mark.parametrize(
    ("config", "peer", "sends", "accepts"),
    [
        (CONFIG, OLD, {"eth0"}, {"eth0"}),
        (PREPARED, OLD, {"eth0"}, {"eth0"}),
        (PREPARED, BOTH, {"eth0"}, {"eth0", "hm-vxlan"}),
        (SWITCHED, BOTH, {"hm-vxlan"}, {"eth0", "hm-vxlan"}),
        (SWITCHED, OLD, {"eth0"}, {"eth0"}),
        (replace(SWITCHED, accepted=None), NEW, {"hm-vxlan"}, {"eth0", "hm-vxlan"}),
    ],
    ids=["before", "prepared-alone", "prepared", "switched", "not-followed", "finished"],
)
def test_a_host_sends_by_one_backend_and_accepts_by_all_that_the_peer_publishes(
    config: MeshConfig, peer: Lease, sends: set[str], accepts: set[str]
) -> None:
    found = desired(config, peer)
    assert links(found) == sends
    assert {link for link, sources in found.ingress.items() if sources} == accepts


def test_what_the_other_backend_needs_is_there_before_it_is_used() -> None:
    assert not desired(CONFIG, BOTH).of(Neighbour)
    assert len(desired(PREPARED, BOTH).of(Neighbour)) == 1


@pytest.mark.parametrize("peer", [OLD, replace(OLD, backend="wireguard")])
def test_promise_8_a_record_with_another_backend_gets_no_route_once_the_change_is_finished(
    peer: Lease,
) -> None:
    found = desired(replace(SWITCHED, accepted=None), peer)
    assert not links(found)
    assert [each.name for each in found.conditions] == ["peer-backend-differs"]
    assert not any(found.ingress.values())


def test_a_backend_that_cannot_be_set_up_beside_is_a_condition_and_costs_nothing() -> None:
    broken = replace(CONFIG, accepted=BackendChoice("vxlan", BackendData.of({"VNI": "x"})))
    found = desired(broken, BOTH)
    assert links(found) == {"eth0"}
    assert [each.name for each in found.conditions] == ["backend-options-unusable"]
    assert not found.usable, "nor are its links known, which an earlier run may have opened"


def test_promise_3_nothing_goes_while_one_of_two_backends_cannot_be_set_up() -> None:
    found = desired(PREPARED, BOTH)
    assert found.certain
    before = (found.ingress_links, found.tunnels)
    broken = replace(CONFIG, accepted=BackendChoice("vxlan", BackendData.of({"VNI": "x"})))
    found.follow(replace(found._world, config=broken))
    assert not found.certain, "so its device, neighbours and sources stay"
    assert not is_certain(found._world)
    assert (set(found.ingress_links), found.tunnels) == (set(before[0]), before[1])
    assert found.usable
    found.follow(replace(found._world, config=PREPARED))
    assert found.certain
    assert (found.ingress_links, found.tunnels) == before


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (BackendData.of({"VNI": 2, "VtepMAC": "82:4b:b6:2f:54:4e"}), "its VNI is 2, the mesh's 1"),
        (None, "VtepMAC is missing"),
    ],
)
def test_promise_9_a_host_that_is_still_sent_to_by_the_old_backend_is_named(
    data: BackendData | None, reason: str
) -> None:
    peer = replace(OLD, host_name="web", accepted=BackendChoice("vxlan", data))
    found = desired(SWITCHED, peer)
    assert links(found) == {"eth0"}
    (condition,) = found.conditions
    assert condition.name == "peer-data-unusable"
    for part in ("web at 192.0.2.2", reason, "host-gw is used until"):
        assert part in condition.cause
    assert unusable_data([peer, BOTH, OLD], SWITCHED) == (peer,)
    assert not unusable_data([peer], PREPARED), "no host sends by it yet"
    found.follow(replace(found._world, peers=peers_by_subnet([BOTH], None)))
    assert not found.conditions


def test_a_host_publishes_first_the_backend_by_which_it_is_known_to_send() -> None:
    def published(config: MeshConfig, sends_by: str) -> Published:
        rules = PeerRules.of(desired(config, OLD)._world)
        assert isinstance(rules, PeerRules)
        return rules.published(sends_by)

    new = published(PREPARED, "host-gw").accepted
    assert new is not None
    assert new.name == "vxlan"
    assert published(SWITCHED, "host-gw") == published(PREPARED, "host-gw"), "not yet applied"
    after = published(SWITCHED, "vxlan")
    assert (after.backend, after.data) == ("vxlan", new.data)
    assert after.accepted == BackendChoice("host-gw")
    assert published(replace(SWITCHED, accepted=None), "host-gw").backend == "vxlan"


def test_steps_follow_each_other_and_may_be_repeated() -> None:
    options = BackendData.of({"VNI": 9})
    now = CONFIG
    for step in Step:
        after = step_config(now, "vxlan", step, options if step is Step.PREPARE else None)
        assert step_config(after, "vxlan", step) == after
        now = after
    assert now == replace(CONFIG, backend="vxlan", backend_options=options)
    back = step_config(step_config(PREPARED, "host-gw", Step.FINISH), "vxlan", Step.PREPARE)
    assert back == PREPARED, "a change that was prepared can be called off"
    for config, backend, step in (
        (CONFIG, "vxlan", Step.SWITCH),
        (PREPARED, "vxlan", Step.FINISH),
        (PREPARED, "wireguard", Step.PREPARE),
    ):
        with pytest.raises(MeshConfigError):
            step_config(config, backend, step)


def test_only_live_hosts_are_waited_for_and_flannels_always() -> None:
    ours = replace(OLD, host_id=OTHER, subnet=IPv4Network("10.66.0.0/16"))
    view = View(cluster_id=1, revision=1, config=CONFIG, leases=(OLD, ours))
    assert awaited(view, "vxlan", Step.PREPARE) == (OLD,), "the other has no heartbeat"
    assert awaited(view, "host-gw", Step.SWITCH) == ()
    assert absent(view, "vxlan") == (ours,), "finish cuts it off, and names it"
    assert absent(view, "host-gw") == ()


def test_options_are_json_where_they_can_be() -> None:
    assert read_options("DirectRouting=true,VNI=7,Name=a=b") == BackendData.of(
        {"DirectRouting": True, "VNI": 7, "Name": "a=b"}
    )
    assert read_options(None) is None
    for bad in ("VNI", "=1", "Type=x", "A=1,"):
        with pytest.raises(ValueError, match="option such as"):
            read_options(bad)
