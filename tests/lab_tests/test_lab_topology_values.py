"""Underlays as values: addresses, cards, what survives JSON, which backend carries what."""

import json
from dataclasses import asdict, replace

import pytest
from hostmesh_lab.demo import run as demo
from hostmesh_lab.errors import LabError
from hostmesh_lab.underlay import topology
from hostmesh_lab.underlay.topology import (
    NAMED,
    ONE_LAN,
    TWO_LANS,
    TWO_NICS,
    Link,
    Nic,
    Router,
    Topology,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("chosen", NAMED.values(), ids=NAMED)
def test_a_topology_survives_the_labs_record(chosen: Topology) -> None:
    assert Topology.of(json.loads(json.dumps(asdict(chosen)))) == chosen


def test_the_default_underlay_has_the_addresses_it_always_had() -> None:
    port = ONE_LAN.ports("host1", (Nic("lan", topology.host_number(1)),))[0]
    assert (port.device, port.mac, port.mtu) == ("eth0", "02:68:c0:a8:32:0b", 1500)
    assert (port.addresses, port.gateways) == (["192.168.50.11/24"], ["192.168.50.1"])


def test_a_routers_own_card_has_no_gateway_and_a_second_card_has_none() -> None:
    world = TWO_LANS.routers[0]
    assert [port.gateways for port in TWO_LANS.ports("world", world.nics)] == [[], []]
    host = TWO_NICS.ports("host1", (Nic("lan", 11), Nic("back", 11)), mtu=1400)
    assert [(port.gateways, port.mtu) for port in host] == [(["192.168.50.1"], 1400), ([], 1500)]


def test_no_two_cards_of_a_link_share_an_address_or_a_mac() -> None:
    link = Link("lan", v6="fd00:50::/64")
    numbers = [1, 2, 3, 4, topology.DNS, *range(11, 191), topology.STRANGER, 252, 253]
    assert len({link.mac(number) for number in numbers}) == len(numbers)
    assert len({link.addresses(number)[0] for number in numbers}) == len(numbers)
    assert link.mac(11) != Link("lan2", v6="fd00:51::/64").mac(11)


def test_a_link_without_ranges_only_carries_frames() -> None:
    bare = replace(TWO_NICS, links=(TWO_NICS.first, Link("back")))
    port = bare.ports("host1", (Nic("lan", 11), Nic("back", 11)))[1]
    assert (port.addresses, port.gateways) == ([], [])


def test_names_that_no_interface_can_have_and_links_that_are_missing_are_refused() -> None:
    with pytest.raises(LabError, match="cannot name a link"):
        replace(ONE_LAN, links=(Link("a-long-name"),))
    with pytest.raises(LabError, match="cannot name a router"):
        replace(ONE_LAN, routers=(Router("my.router", (Nic("lan", 1),)),))
    with pytest.raises(LabError, match="one card on a link"):
        replace(ONE_LAN, places=(("lan", "lan"),))
    with pytest.raises(LabError, match="no link 'lan9' in topology one-lan"):
        replace(ONE_LAN, places=(("lan9",),))
    with pytest.raises(LabError, match="no link 'lan9' in topology one-lan"):
        replace(ONE_LAN, routers=(Router("other", (Nic("lan9", 1),)),))


def test_host_gw_needs_all_hosts_on_one_link_with_ipv4() -> None:
    carried = [name for name, each in NAMED.items() if not each.obstacle("host-gw")]
    assert carried == ["one-lan", "two-nics", "dual-stack"]
    assert "several links (lan, lan2)" in TWO_LANS.obstacle("host-gw")
    assert "link lan has none" in NAMED["v6"].obstacle("host-gw")
    tunnelled = [name for name, each in NAMED.items() if not each.obstacle("vxlan")]
    assert sorted({*tunnelled, "nat", "v6"}) == sorted(NAMED)


@pytest.mark.parametrize("name", ["two-lans", "nat", "v6"])
def test_the_demo_refuses_a_topology_that_its_backend_does_not_carry(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "require_root", lambda: None)
    with pytest.raises(LabError) as refused:
        demo.run("demo", "trixie", NAMED[name], keep=False)
    assert f"backend is host-gw, which does not support topology {name}: host-gw" in str(
        refused.value
    )
    assert refused.value.hint == "choose one of one-lan, two-nics, dual-stack"
