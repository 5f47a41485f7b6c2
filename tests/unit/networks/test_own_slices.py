"""Which Docker networks of this host are parts of mesh networks, and why others are not."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from agent.mesh.networks import digest, own_slices
from agent.mesh.world import World
from agent.model import CONDITIONS_SHOWN, DockerFacts
from agent.model.network import MeshNetwork
from tests.unit.networks.slices import claim, network, world
from tests.unit.small_mesh import lease

pytestmark = pytest.mark.unit

_SAME_HASH = ("net-739468", "net-911145")


def names(found: World) -> list[str]:
    return [each.name for each in own_slices(found).slices]


def test_a_label_makes_a_docker_network_this_hosts_part() -> None:
    found = own_slices(world(network(), network("other", "10.64.2.0/24", None)))
    (web,) = found.slices
    assert (web.name, web.subnet) == ("web", IPv4Network("10.64.1.0/24"))
    assert found.by_docker_id == {"id-web_default": web}
    assert found.known
    assert not found.conditions


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (network(internal=True), "was made with --internal"),
        (network(subnet="10.65.1.0/24"), "outside this host's lease"),
        (network(subnet="172.18.0.0/16"), "outside this host's lease"),
    ],
)
def test_what_cannot_be_routed_is_none(odd: object, why: str) -> None:
    found = own_slices(world(odd))  # type: ignore[arg-type]
    assert not found.slices
    (condition,) = found.conditions
    assert condition.name == "network-not-joined"
    assert condition.subject == "web_default"
    assert why in condition.cause


@pytest.mark.parametrize("label", ["", "Web", "a b", "-web", "host", "x" * 64, "we\x1bb"])
def test_a_malformed_name_is_a_condition(label: str) -> None:
    found = own_slices(world(network(label=label)))
    assert not found.slices
    (condition,) = found.conditions
    assert condition.name == "network-label-invalid"
    assert repr(label) in condition.cause


def test_of_two_networks_of_one_name_none_counts() -> None:
    pair = (network(), network("copy", "10.64.2.0/24"))
    found = own_slices(world(*pair))
    assert not found.slices
    assert [(each.name, each.subject) for each in found.conditions] == [
        ("network-duplicate", "web_default"),
        ("network-duplicate", "copy"),
    ]


def test_promise_3_a_second_network_of_a_name_takes_nothing_from_the_first() -> None:
    pair = (network("copy", "10.64.1.0/24"), network("first", "10.64.2.0/24"))
    found = own_slices(world(*pair, slices=(claim(0, subnet="10.64.2.0/24"),)))
    assert [each.docker_id for each in found.slices] == ["id-first"]
    (condition,) = found.conditions
    assert condition.subject == "copy"
    assert "first is used" in condition.cause


def test_below_its_level_there_is_none() -> None:
    whole = world(network())
    assert whole.config is not None
    found = own_slices(replace(whole, config=replace(whole.config, level=2)))
    assert not found.slices
    assert "level is 2" in found.conditions[0].cause


def test_declared_networks_need_a_record() -> None:
    whole = world(network())
    assert whole.config is not None
    declared = replace(whole, config=replace(whole.config, declared_networks=True))
    found = own_slices(declared)
    assert not found.slices
    assert "declared networks only" in found.conditions[0].cause
    record = {"web": MeshNetwork(name="web")}
    assert names(replace(declared, networks=record)) == ["web"]


@pytest.mark.parametrize(
    ("hosts", "joins"),
    [((), True), (("host0",), True), (("ho*",), True), (("0" * 32,), True), (("host1",), False)],
)
def test_a_record_limits_a_name_to_hosts(hosts: tuple[str, ...], *, joins: bool) -> None:
    found = own_slices(world(network(), records=(MeshNetwork(name="web", hosts=hosts),)))
    assert bool(found.slices) is joins
    assert bool(found.conditions) is not joins


def test_a_removed_network_goes_on_until_it_is_gone() -> None:
    assert names(world(network(), records=(MeshNetwork(name="web", removed=True),))) == ["web"]


@pytest.mark.parametrize(
    ("allow", "joins"), [(("*",), True), (("db", "w*"), True), (("db",), False), ((), False)]
)
def test_this_hosts_settings_bound_what_a_label_does(
    allow: tuple[str, ...], *, joins: bool
) -> None:
    found = own_slices(replace(world(network()), allowed_networks=allow))
    assert bool(found.slices) is joins
    assert joins or "networks.allow" in found.conditions[0].cause


def test_of_two_names_with_one_hash_the_second_is_refused() -> None:
    one, two = _SAME_HASH
    assert digest(one) == digest(two)
    pair = (network("a", "10.64.1.0/24", two), network("b", "10.64.2.0/24", one))
    found = own_slices(world(*pair))
    assert [each.name for each in found.slices] == [one]
    assert f"hash is that of {one}" in found.conditions[0].cause


def test_a_network_in_the_former_lease_counts_while_the_mesh_moves() -> None:
    moved = replace(world(network()), own=lease(5), former=lease(0))
    assert names(moved) == ["web"]


@pytest.mark.parametrize("docker", [None, DockerFacts(reachable=False)])
def test_promise_3_before_docker_answers_the_published_slices_are_there(
    docker: DockerFacts | None,
) -> None:
    before = replace(world(slices=(claim(0), claim(1))), docker=docker)
    found = own_slices(before)
    assert [(each.name, each.docker_id) for each in found.slices] == [("web", "")]
    assert not found.known
    assert not own_slices(replace(before, allowed_networks=())).slices


def test_an_engine_that_stopped_answering_keeps_its_networks() -> None:
    facts = DockerFacts(reachable=False, networks=(network(),))
    assert own_slices(replace(world(), docker=facts)).known


def test_promise_10_conditions_are_bounded() -> None:
    many = [network(f"n{n}", f"10.64.{n}.0/24", "Bad") for n in range(99)]
    assert len(own_slices(world(*many)).conditions) == CONDITIONS_SHOWN + 1
