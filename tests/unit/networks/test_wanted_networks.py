"""Which Docker networks records ask this host to have."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from agent.mesh.networks import DesiredNetwork, wanted_networks
from agent.model import Access
from agent.model.network import MeshNetwork
from tests.unit.networks.slices import claim, world
from tests.unit.small_mesh import lease

pytestmark = pytest.mark.unit


def test_a_record_asks_for_a_network_on_every_host() -> None:
    asked = world(records=(MeshNetwork(name="web", length=26), MeshNetwork(name="db")))
    assert wanted_networks(asked) == (
        DesiredNetwork(name="db", length=24, mtu=1500),
        DesiredNetwork(name="web", length=26, mtu=1500),
    )


def test_a_network_is_made_again_where_it_was() -> None:
    asked = world(records=(MeshNetwork(name="web"),), slices=(claim(0),))
    (web,) = wanted_networks(asked)
    assert web.subnet == IPv4Network("10.64.1.0/24")
    (moved,) = wanted_networks(replace(asked, own=lease(5), former=lease(0)))
    assert moved.subnet is None, "new networks are made in the new lease"


def test_a_tunnel_makes_packets_smaller() -> None:
    asked = world(records=(MeshNetwork(name="web"),))
    assert asked.config is not None
    asked = replace(asked, config=replace(asked.config, backend="vxlan"))
    assert wanted_networks(asked)[0].mtu == 1450
    assert wanted_networks(replace(asked, uplink=None))[0].mtu is None


@pytest.mark.parametrize(
    "record",
    [
        MeshNetwork(name="web", removed=True),
        MeshNetwork(name="web", hosts=("host1",), access=Access.OPEN),
    ],
)
def test_a_network_is_to_go_when_its_record_says_so(record: MeshNetwork) -> None:
    (web,) = wanted_networks(world(records=(record,)))
    assert web.removed


def test_a_network_with_the_hash_of_another_is_not_taken_for_one_that_was_removed() -> None:
    """Docker's side sees which of them is there, and says why the other one is not made."""
    asked = world(records=(MeshNetwork(name="n175561"), MeshNetwork(name="n804706")))
    assert [each.removed for each in wanted_networks(asked)] == [False, False]


def test_this_hosts_settings_come_before_the_operators_record() -> None:
    asked = replace(world(records=(MeshNetwork(name="web"),)), allowed_networks=("d*",))
    assert wanted_networks(asked)[0].removed


def test_without_lease_or_level_nothing_is_asked() -> None:
    asked = world(records=(MeshNetwork(name="web"),))
    assert asked.config is not None
    assert not wanted_networks(replace(asked, own=None))
    assert not wanted_networks(replace(asked, config=replace(asked.config, level=2)))
