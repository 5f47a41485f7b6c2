"""The plan for networks of records: subnets that are free, names that are not, and no deletion."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from agent.docker.daemonjson.desired import desired_docker
from agent.docker.networks.plan import Plan, Wanted, bridge_name, plan
from agent.docker.networks.seen import Seen, SeenNetwork, User
from agent.mesh.networks import DesiredNetwork
from agent.model import DockerNetwork

pytestmark = pytest.mark.unit

DOCKER = desired_docker(IPv4Network("10.64.0.0/16"), 1450)
WEB = DesiredNetwork(name="web", length=24, mtu=1450)

SAME_HASH = ("n175561", "n804706")
"""Names whose hashes begin with the same ten digits."""


def network(name: str, subnet: str, *, own: bool = False, mesh: str = "") -> SeenNetwork:
    net = IPv4Network(subnet)
    facts = DockerNetwork(id=f"id-{name}", name=name, bridge="br-1", subnet=net, mtu=1450)
    return SeenNetwork(f"id-{name}", name, mesh, own, (net,), facts)


def planned(
    *networks: SeenNetwork, wanted: Wanted | None = None, users: tuple[User, ...] = ()
) -> Plan:
    return plan(wanted or Wanted((WEB,), True), DOCKER, Seen(networks, users), lambda _: False)


def test_two_networks_that_are_made_at_once_get_two_subnets() -> None:
    made = planned(wanted=Wanted((WEB, replace(WEB, name="db")), True)).creations
    assert [str(each.subnet) for each in made] == ["10.64.255.0/24", "10.64.254.0/24"]


def test_the_subnet_of_a_network_that_is_to_be_made_again_is_kept_for_it() -> None:
    db = replace(WEB, name="db", subnet=IPv4Network("10.64.255.0/24"))
    made = planned(wanted=Wanted((WEB, db), True)).creations
    assert {each.name: str(each.subnet) for each in made} == {
        "web": "10.64.254.0/24",
        "db": "10.64.255.0/24",
    }


def test_docker0s_range_is_no_place_before_docker0_is_there_either() -> None:
    web = replace(WEB, subnet=IPv4Network("10.64.1.0/24"))
    (made,) = planned(wanted=Wanted((web,), True)).creations
    assert str(made.subnet) == "10.64.255.0/24"


def test_a_small_lease_without_ranges_for_networks_has_no_space() -> None:
    small = desired_docker(IPv4Network("10.64.0.0/28"), 1450)
    made = plan(Wanted((WEB,), True), small, Seen(()), lambda _: False)
    assert [each.name for each in made.conditions] == ["network-no-space"]


def test_a_bridges_name_fits_the_kernel() -> None:
    assert len(bridge_name("n" * 63)) <= 15


def test_of_two_networks_with_one_hash_the_other_one_is_refused() -> None:
    """The one that is there stays, whichever comes first in order of name."""
    first, second = replace(WEB, name=SAME_HASH[0]), replace(WEB, name=SAME_HASH[1])
    assert bridge_name(first.name) == bridge_name(second.name)
    made = planned(wanted=Wanted((first, second), True))
    assert [each.name for each in made.creations] == [first.name]
    (refused,) = made.conditions
    assert (refused.name, refused.subject) == ("network-bridge-taken", second.name)
    assert first.name in refused.cause

    there = network(second.name, "10.64.255.0/24", own=True, mesh=second.name)
    assert there.bridge is not None
    facts = replace(there.bridge, bridge=bridge_name(second.name))
    made = planned(replace(there, bridge=facts), wanted=Wanted((first, second), True))
    assert (made.creations, made.removals) == ([], [])
    assert [each.subject for each in made.conditions] == [first.name]


def test_no_network_is_made_in_a_subnet_that_the_host_had_before_a_move() -> None:
    web = replace(WEB, subnet=IPv4Network("10.65.255.0/24"))
    (made,) = planned(wanted=Wanted((web,), True)).creations
    assert str(made.subnet) == "10.64.255.0/24"


def test_promise_5_the_operators_network_is_neither_removed_nor_made_again() -> None:
    theirs = network("shop_web", "192.168.9.0/24", mesh="web")
    for wanted in (Wanted((WEB,), True), Wanted((), True)):
        made = planned(theirs, wanted=wanted)
        assert (made.removals, made.creations, made.conditions) == ([], [], [])


@pytest.mark.parametrize(
    ("subnet", "user", "goes"),
    [
        ("10.64.128.0/24", "id-shop_web", True),
        ("10.64.128.0/24", "id-web", False),
        ("192.168.9.0/24", "id-shop_web", False),
    ],
)
def test_an_unused_network_gives_way_to_one_that_compose_made(
    subnet: str, user: str, goes: bool
) -> None:
    """As long as the agent's is the published one, containers of the other are in no network."""
    own = network("web", "10.64.255.0/24", own=True, mesh="web")
    theirs = network("shop_web", subnet, mesh="web")
    made = planned(own, theirs, users=(User("c", (("it", user),)),))
    assert (made.removals, made.creations) == ([own] if goes else [], [])
    assert made.conditions == [] or not goes


def test_a_container_that_never_started_uses_its_network_by_name() -> None:
    own = network("web", "10.64.255.0/24", own=True, mesh="web")
    for place in (("web", ""), ("web", "id-web"), ("other", "id-web"), ("id-web", "")):
        made = planned(own, wanted=Wanted((), True), users=(User("c", (place,)),))
        assert (made.removals, [each.name for each in made.conditions]) == ([], ["network-in-use"])
    made = planned(own, wanted=Wanted((), True), users=(User("c", (("web", "id-gone"),)),))
    assert made.removals == [own]
