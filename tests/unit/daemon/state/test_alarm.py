"""An alarm over a view holds more than leases."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from agent.model import Access, View
from agent.model.network import MeshNetwork, NetworkSlice
from tests.unit.daemon.state.test_mesh_state import OWN, member, view

pytestmark = pytest.mark.unit


def test_promises_4_and_5_an_alarm_holds_slices_and_records_of_networks() -> None:
    """Without its record, a network that is closed, or for some hosts only, would be open."""
    web = MeshNetwork(name="web", access=Access.CLOSED)
    part = NetworkSlice(host_id=OWN, network="web", subnet=IPv4Network("10.64.1.0/24"))
    full = replace(
        view(0, 1, 2, 3), networks={"web": web}, slices={(part.host_id, part.network): part}
    )
    mesh = replace(member(), believed=full)
    wiped = View(cluster_id=1, revision=11)
    held = mesh.with_view(wiped)
    assert held.alarming is not None
    made = held.world(route_protocol=140, route_table=254)
    assert made is not None
    assert (made.networks, made.slices, made.complete) == (full.networks, full.slices, False)
    tighter = replace(web, hosts=("host1",))
    again = held.with_view(replace(wiped, revision=12, networks={"web": tighter, "db": web}))
    assert again.alarming is not None
    assert again.believed is not None
    assert again.believed.networks == {"web": tighter, "db": web}
    assert again.believed.slices == full.slices
    accepted = again.accepted().believed
    assert accepted is not None
    assert not accepted.slices
