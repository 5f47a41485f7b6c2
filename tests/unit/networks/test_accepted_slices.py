"""Which slices of other hosts count: a record is a claim, not proof."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from itertools import islice

import pytest

from agent.mesh.networks import AcceptedSlices, accepted_slices
from agent.mesh.world import World
from agent.model import CONDITIONS_SHOWN, HostId
from agent.model.network import MeshNetwork
from agent.sharedmap import SharedMap
from tests.unit.networks.slices import ME, claim, host, world
from tests.unit.small_mesh import lease

pytestmark = pytest.mark.unit


def reason(found: World) -> str:
    """Return why the one slice of ``found`` does not count, "" if it does."""
    accepted = accepted_slices(found)
    reasons = list(accepted.set_aside.values())
    assert len(reasons) == len(accepted.conditions)
    assert bool(accepted.of("web")) is not bool(reasons)
    return reasons[0] if reasons else ""


def test_slices_in_their_hosts_leases_count() -> None:
    accepted = accepted_slices(world(slices=(claim(1), claim(2), claim(3, "db"))))
    assert accepted.of("web") == {host(1): claim(1), host(2): claim(2)}
    assert accepted.of("db") == {host(3): claim(3, "db")}
    assert accepted.of("nothing") == {}
    assert not accepted.conditions


@pytest.mark.parametrize(
    "subnet",
    ["10.66.1.0/24", "10.64.1.0/24", "10.64.0.0/10", "10.64.0.0/15", "192.168.1.0/24", "0.0.0.0/0"],
)
def test_promise_8_a_slice_outside_its_hosts_lease_opens_nothing(subnet: str) -> None:
    assert "in no lease of the host" in reason(world(slices=(claim(1, subnet=subnet),)))


def test_promise_8_a_host_without_a_lease_has_no_slice() -> None:
    assert "in no lease of the host" in reason(world(slices=(claim(7),)))


def test_promise_8_a_lease_over_this_hosts_own_carries_no_slice() -> None:
    forged = replace(lease(1), subnet=IPv4Network("10.64.0.0/15"))
    small = world(slices=(claim(1, subnet="10.64.1.0/24"),), peers=0)
    assert "own lease" in reason(replace(small, peers={forged.subnet: forged}))


def test_of_a_hosts_slices_that_overlap_the_older_counts() -> None:
    pair = (claim(1, "web", "10.65.0.0/20", age=7), claim(1, "db", "10.65.1.0/24", age=6))
    found = world(slices=pair)
    assert "an older slice" in reason(found)
    assert accepted_slices(found).of("db")


def test_the_slice_of_this_host_itself_is_not_among_them() -> None:
    accepted = accepted_slices(world(slices=(claim(0),)))
    assert not accepted.of("web")
    assert not accepted.conditions


@pytest.mark.parametrize(
    ("hosts", "counts"),
    [((), True), (("host1",), True), ((str(host(1)),), True), (("host2", str(ME)), False)],
)
def test_a_record_limits_a_name_to_hosts(hosts: tuple[str, ...], *, counts: bool) -> None:
    found = world(slices=(claim(1),), records=(MeshNetwork(name="web", hosts=hosts),))
    assert bool(reason(found)) is not counts


def test_a_mesh_of_declared_networks_ignores_names_without_a_record() -> None:
    found = world(slices=(claim(1),))
    assert found.config is not None
    declared = replace(found, config=replace(found.config, declared_networks=True))
    assert "declared networks only" in reason(declared)
    assert not reason(replace(declared, networks=SharedMap({"web": MeshNetwork(name="web")})))


def test_below_its_level_no_slice_counts() -> None:
    found = world(slices=(claim(1),))
    assert found.config is not None
    accepted = accepted_slices(replace(found, config=replace(found.config, level=2)))
    assert not accepted.of("web")
    assert not accepted.conditions


def test_what_this_host_takes_no_part_in_is_no_condition() -> None:
    forged = claim(1, subnet="10.66.1.0/24")
    accepted = accepted_slices(replace(world(slices=(forged,)), allowed_networks=("db",)))
    assert not accepted.of("web")
    assert not accepted.conditions


def test_what_ends_comes_back_with_its_reason() -> None:
    accepted = AcceptedSlices()
    first = world(slices=(claim(1),))
    assert accepted.follow(first) == {(host(1), "web"): (None, claim(1))}
    assert not accepted.follow(first)
    gone = replace(first, peers=first.peers.changed({lease(1).subnet: None}))  # type: ignore[attr-defined]
    assert accepted.follow(gone) == {(host(1), "web"): (claim(1), None)}
    assert accepted.conditions[0].name == "slice-set-aside"
    assert accepted.follow(first) == {(host(1), "web"): (None, claim(1))}
    assert not accepted.conditions


def test_promise_10_one_hosts_slices_and_their_conditions_are_bounded() -> None:
    subnets = islice(IPv4Network("10.65.0.0/16").subnets(new_prefix=28), 1100)
    many = tuple(claim(1, f"n{n}", str(subnet), age=n) for n, subnet in enumerate(subnets))
    accepted = accepted_slices(world(slices=many))
    assert len(accepted.set_aside) == 1100 - 1024
    assert not accepted.of("n1024")
    assert accepted.of("n1023")
    assert len(accepted.conditions) == CONDITIONS_SHOWN + 1


def test_promise_10_a_change_costs_the_hosts_that_it_concerns() -> None:
    judged: list[HostId] = []

    class Counting(AcceptedSlices):
        def _judge(self, host: HostId, changes: object) -> None:
            judged.append(host)
            super()._judge(host, changes)  # type: ignore[arg-type]

    accepted = Counting()
    whole = world(slices=tuple(claim(n) for n in range(1, 60)), peers=60)
    accepted.follow(whole)
    judged.clear()
    slices = whole.slices.changed({(host(9), "web"): claim(9, subnet="10.73.2.0/24")})  # type: ignore[attr-defined]
    later = replace(whole, slices=slices)
    assert len(accepted.follow(later)) == 1
    accepted.follow(replace(later, docker=None))
    assert judged == [host(9)]
