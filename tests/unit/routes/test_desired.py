"""Desired routes: what each lease is worth, and what promise 8 forbids."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.mesh.backends import backend_by_name
from agent.mesh.backends.vxlan import vtep_mac
from agent.mesh.desired import DesiredObjects, desired_objects
from agent.mesh.liveness import probe_addresses
from agent.mesh.world import World, peers_by_subnet, protocol_name
from agent.model import (
    CONDITIONS_SHOWN,
    BackendData,
    FdbEntry,
    HostFacts,
    HostId,
    Lease,
    MeshConfig,
    Route,
    RouteKey,
    RouteKind,
    Uplink,
)
from agent.model.wireguard import AllowedIp, Endpoint, WireGuardPeer

pytestmark = pytest.mark.unit

ME, THEM = HostId("0" * 32), HostId("a" * 32)
CIDR = IPv4Network("10.64.0.0/10")


def lease(subnet: str, address: str, backend: str = "host-gw") -> Lease:
    return Lease(subnet=IPv4Network(subnet), node_address=IPv4Address(address), backend=backend)


OWN = replace(lease("10.64.0.0/16", "192.0.2.1"), host_id=ME)


def world(*peers: Lease, **changes: object) -> World:
    plain = World(
        config=MeshConfig(
            cidr=CIDR,
            subnet_len=16,
            subnet_min=IPv4Address("10.64.0.0"),
            subnet_max=IPv4Address("10.127.0.0"),
        ),
        own=OWN,
        peers=peers_by_subnet(peers, OWN),
        uplink=Uplink(
            index=2,
            name="eth0",
            mtu=1500,
            node_address=IPv4Address("192.0.2.1"),
            on_link=IPv4Network("192.0.2.0/24"),
        ),
        complete=True,
    )
    return replace(plain, **changes)  # type: ignore[arg-type] # names are World's


def destinations(made: World) -> set[str]:
    return {
        f"{route.kind} {route.destination}" for route in desired_objects(made).of(Route).values()
    }


def test_a_peer_is_routed_by_its_node_address() -> None:
    desired = desired_objects(world(lease("10.65.0.0/16", "192.0.2.11")))
    key = RouteKey(254, IPv4Network("10.65.0.0/16"), 0, 0)
    assert desired.of(Route)[key] == Route(
        destination=IPv4Network("10.65.0.0/16"),
        gateway=IPv4Address("192.0.2.11"),
        link="eth0",
        protocol=140,
    )
    assert desired.conditions == ()
    assert desired.certain


def test_protocol_table_and_metric_are_settable() -> None:
    desired = desired_objects(
        world(
            lease("10.65.0.0/16", "192.0.2.11"),
            route_protocol=77,
            route_table=100,
            route_metric=5,
        )
    )
    assert {(r.protocol, r.table, r.metric) for r in desired.of(Route).values()} == {(77, 100, 5)}


def test_promise_9_the_aggregate_is_there_without_peers_and_without_uplink() -> None:
    assert destinations(world()) == {"unreachable 10.64.0.0/10"}
    assert destinations(world(uplink=None)) == {"unreachable 10.64.0.0/10"}


@pytest.mark.parametrize(
    ("changes", "condition"),
    [
        ({"config": None}, "mesh-config-missing"),
        ({"uplink": None}, "uplink-missing"),
    ],
)
def test_promise_4_a_world_with_gaps_is_not_certain(
    changes: dict[str, object], condition: str
) -> None:
    desired = desired_objects(world(lease("10.65.0.0/16", "192.0.2.11"), **changes))
    assert not desired.certain
    assert [each.name for each in desired.conditions] == [condition]


def test_promise_4_before_a_complete_view_nothing_is_certain_but_routes_are_wanted() -> None:
    desired = desired_objects(world(lease("10.65.0.0/16", "192.0.2.11"), complete=False))
    assert not desired.certain
    assert len(desired.of(Route)) == 2


def test_unknown_backend_of_the_mesh_holds_everything() -> None:
    made = world(lease("10.65.0.0/16", "192.0.2.11"))
    assert made.config is not None
    desired = desired_objects(replace(made, config=replace(made.config, backend="udp")))
    assert not desired.certain
    assert [each.name for each in desired.conditions] == ["backend-unknown"]


@pytest.mark.parametrize(
    ("subnet", "address", "words"),
    [
        ("0.0.0.0/0", "192.0.2.11", "outside"),
        ("192.168.0.0/16", "192.0.2.11", "outside"),
        ("10.0.0.0/8", "192.0.2.11", "outside"),
        ("10.64.0.0/10", "192.0.2.11", "whole CIDR"),
        ("10.64.0.0/12", "192.0.2.11", "own subnet"),
        ("10.64.3.0/24", "192.0.2.11", "own subnet"),
        ("10.65.0.0/16", "10.66.0.1", "inside the mesh"),
        ("10.65.0.0/16", "127.0.0.1", "cannot be a host's"),
        ("10.65.0.0/16", "0.1.2.3", "cannot be a host's"),
        ("10.65.0.0/16", "224.0.0.1", "cannot be a host's"),
        ("10.65.0.0/16", "255.255.255.255", "cannot be a host's"),
        ("10.65.0.0/16", "192.0.2.0", "end of the underlay"),
        ("10.65.0.0/16", "192.0.2.255", "end of the underlay"),
    ],
)
def test_promise_8_a_record_routes_nothing_it_must_not(
    subnet: str, address: str, words: str
) -> None:
    made = world(lease(subnet, address))
    assert destinations(made) == {"unreachable 10.64.0.0/10"}
    (condition,) = desired_objects(made).conditions
    assert condition.name == "peer-refused"
    assert words in condition.cause


def test_promise_8_no_route_over_the_underlay_even_inside_the_cidr() -> None:
    uplink = Uplink(
        index=2,
        name="eth0",
        mtu=1500,
        node_address=IPv4Address("10.70.0.1"),
        on_link=IPv4Network("10.70.0.0/24"),
    )
    second_range = Route(destination=IPv4Network("203.0.113.0/24"), link="eth0", scope=253)
    facts = HostFacts(links=(), foreign_routes=(second_range,))
    made = world(lease("10.70.0.0/16", "203.0.113.9"), uplink=uplink, host=facts)
    assert destinations(made) == {"unreachable 10.64.0.0/10"}
    elsewhere = world(lease("10.71.0.0/16", "203.0.113.9"), uplink=uplink, host=facts)
    assert "unicast 10.71.0.0/16" in destinations(elsewhere)


def test_one_bad_record_costs_that_record_only() -> None:
    made = world(lease("0.0.0.0/0", "192.0.2.11"), lease("10.65.0.0/16", "192.0.2.11"))
    assert "unicast 10.65.0.0/16" in destinations(made)


def test_off_link_peer_is_a_condition_with_a_hint() -> None:
    (condition,) = desired_objects(world(lease("10.65.0.0/16", "203.0.113.9"))).conditions
    assert condition.name == "peer-off-link"
    assert "vxlan" in condition.hint
    assert condition.subject == "10.65.0.0/16"


def test_a_second_range_on_the_uplink_is_on_link_too() -> None:
    facts = HostFacts(
        links=(),
        foreign_routes=(
            Route(destination=IPv4Network("203.0.113.0/24"), link="eth0", scope=253, protocol=2),
        ),
    )
    made = world(lease("10.65.0.0/16", "203.0.113.9"), host=facts)
    assert "unicast 10.65.0.0/16" in destinations(made)


def test_peer_of_another_backend_is_a_condition() -> None:
    (condition,) = desired_objects(world(lease("10.65.0.0/16", "192.0.2.11", "vxlan"))).conditions
    assert condition.name == "peer-backend-differs"


def test_peer_with_our_own_address_is_a_condition() -> None:
    (condition,) = desired_objects(world(lease("10.65.0.0/16", "192.0.2.1"))).conditions
    assert condition.name == "peer-same-address"


def test_promise_3_a_dead_peer_is_unreachable_until_it_answers() -> None:
    peer = lease("10.65.0.0/16", "192.0.2.11")
    made = world(peer, dead_subnets=frozenset({peer.subnet}))
    assert destinations(made) == {"unreachable 10.64.0.0/10", "unreachable 10.65.0.0/16"}
    assert all(
        route.kind == RouteKind.UNREACHABLE for route in desired_objects(made).of(Route).values()
    )


KEYS = tuple(base64.b64encode(bytes([each] * 32)).decode() for each in (1, 2))


@pytest.fixture
def encrypted() -> World:
    """A mesh with wireguard, without peers."""
    made = world(host_id=ME)
    assert made.config is not None
    assert made.uplink is not None
    return replace(
        made,
        config=replace(made.config, backend="wireguard"),
        uplink=replace(made.uplink, wireguard_key=KEYS[0]),
    )


def test_promise_3_a_dead_peer_behind_nat_can_still_be_asked(encrypted: World) -> None:
    """Only its tunnel leads to it: without one it would be dead for good, however it answers."""
    data = BackendData.of({"PublicKey": KEYS[1], "NAT": True})
    peer = replace(lease("10.65.0.0/16", "10.0.2.15", "wireguard"), backend_data=data)
    dead = frozenset({peer.subnet})
    made = replace(encrypted, peers=peers_by_subnet([peer], OWN), dead_subnets=dead)
    assert destinations(made) == {
        "unreachable 10.64.0.0/10", "unreachable 10.65.0.0/16", "unicast 10.65.0.0/32"
    }  # fmt: skip
    desired = desired_objects(made)
    assert probe_addresses(peer) == (IPv4Address("10.65.0.0"),)
    assert desired.of(Route)[RouteKey(254, IPv4Network("10.65.0.0/32"), 0, 0)].link == "hm-wg"
    assert len(desired.of(WireGuardPeer)) == len(desired.of(AllowedIp)) == 1
    assert peer.subnet in desired.ingress["hm-wg"]


@pytest.mark.parametrize("direct", [False, True])
def test_promise_3_a_dead_peer_can_still_be_asked_through_the_tunnel(
    tunnel: World, direct: bool
) -> None:
    (peer,) = tunnel.peers.values()
    data = BackendData.of({"VNI": 1, "VtepMAC": "82:4b:b6:2f:54:4e"})
    peer, dead = replace(peer, backend_data=data), frozenset({peer.subnet})
    assert tunnel.config is not None
    options = BackendData.of({"DirectRouting": direct})
    made = replace(
        tunnel,
        config=replace(tunnel.config, backend_options=options),
        peers=peers_by_subnet([peer], OWN),
        dead_subnets=dead,
    )
    assert destinations(made) == {
        "unreachable 10.64.0.0/10", "unreachable 10.65.0.0/16", "unicast 10.65.0.0/32"
    }  # fmt: skip
    desired = desired_objects(made)
    link = "eth0" if direct else "hm-vxlan"
    assert desired.of(Route)[RouteKey(254, IPv4Network("10.65.0.0/32"), 0, 0)].link == link
    assert peer.subnet in desired.ingress[link], "or its answer is dropped"


def test_own_lease_is_no_peer_by_identity_or_by_subnet() -> None:
    by_identity = replace(lease("10.66.0.0/16", "192.0.2.7"), host_id=ME)
    by_subnet = lease("10.64.0.0/16", "192.0.2.8")
    assert not peers_by_subnet((by_identity, by_subnet), OWN)


def test_conditions_are_bounded() -> None:
    peers = [lease(f"10.65.{n}.0/24", "203.0.113.9") for n in range(200)]
    conditions = desired_objects(world(*peers)).conditions
    assert len(conditions) == CONDITIONS_SHOWN + 1
    assert conditions[-1].subject == "others"
    assert conditions[-1].cause.startswith("180 more")


def test_backends_by_name() -> None:
    assert backend_by_name("host-gw") is not None
    assert backend_by_name("vxlan") is not None
    assert backend_by_name("udp") is None


def test_protocols_have_the_names_ip_route_prints() -> None:
    assert protocol_name(16) == "dhcp (16)"
    assert protocol_name(77) == "protocol 77"


@pytest.fixture
def tunnel() -> World:
    """A mesh with vxlan, and a peer that publishes nothing."""
    made = world(lease("10.65.0.0/16", "192.0.2.11", "vxlan"), host_id=ME)
    assert made.config is not None
    return replace(made, config=replace(made.config, backend="vxlan"))


@pytest.mark.parametrize(
    ("published", "reason"),
    [
        (None, "VtepMAC is missing"),
        ({"VNI": 1, "VtepMAC": "00:00:00:00:00:00"}, "VtepMAC is not the MAC address of a host"),
        ({"VNI": 1, "VtepMAC": "ff:ff:ff:ff:ff:ff"}, "VtepMAC is not the MAC address of a host"),
        ({"VNI": 2, "VtepMAC": "02:00:00:00:00:01"}, "its VNI is 2, the mesh's 1"),
    ],
)
def test_promise_8_a_peer_with_unusable_data_gets_no_object(
    tunnel: World, published: dict[str, object] | None, reason: str
) -> None:
    (peer,) = tunnel.peers.values()
    data = None if published is None else BackendData.of(published)
    desired = desired_objects(
        replace(tunnel, peers=peers_by_subnet([replace(peer, backend_data=data)], OWN))
    )
    (condition,) = desired.conditions
    assert condition.name == "peer-data-unusable"
    assert condition.cause.endswith(reason)
    assert desired.count(FdbEntry) == 0
    assert desired.certain


def test_promise_8_a_forged_record_of_a_lower_subnet_takes_no_mac(tunnel: World) -> None:
    """One in flannel's format has no host id that the MAC would have to agree with."""
    data = BackendData.of({"VNI": 1, "VtepMAC": vtep_mac(THEM)})
    peer = replace(
        lease("10.66.0.0/16", "192.0.2.11", "vxlan"),
        host_id=THEM,
        backend_data=data,
        create_revision=9,
    )
    forged = replace(lease("10.65.0.0/16", "192.0.2.66", "vxlan"), backend_data=data)
    for first in (peer, forged):
        desired = DesiredObjects()
        for known in ((first,), (peer, forged)):
            desired.follow(replace(tunnel, peers=peers_by_subnet(known, OWN)))
        (entry,) = desired.of(FdbEntry).values()
        assert entry.destination == peer.node_address
        (condition,) = desired.conditions
        assert (condition.name, condition.subject) == ("peer-conflict", "10.65.0.0/16")


def test_promise_8_a_younger_lease_takes_no_wireguard_key(encrypted: World) -> None:
    data = BackendData.of({"PublicKey": KEYS[1]})
    peer = replace(
        lease("10.66.0.0/16", "192.0.2.11", "wireguard"),
        host_id=THEM,
        backend_data=data,
        create_revision=5,
    )
    other = replace(
        lease("10.65.0.0/16", "192.0.2.66", "wireguard"),
        host_id=HostId("b" * 32),
        backend_data=data,
        create_revision=8,
    )
    desired = DesiredObjects()
    desired.follow(replace(encrypted, peers=peers_by_subnet([peer, other], OWN)))
    (found,) = desired.of(WireGuardPeer).values()
    assert found.endpoint == Endpoint(peer.node_address, 51820)
    again = replace(peer, create_revision=9)  # its lease ended and was claimed again
    desired.follow(replace(encrypted, peers=peers_by_subnet([again, other], OWN)))
    (found,) = desired.of(WireGuardPeer).values()
    assert found.endpoint == Endpoint(other.node_address, 51820)


def test_promise_3_unusable_options_of_the_backend_take_nothing_away(tunnel: World) -> None:
    assert tunnel.config is not None
    options = BackendData.of({"VNI": "seven"})
    config = replace(tunnel.config, backend_options=options)
    desired = desired_objects(replace(tunnel, config=config))
    (condition,) = desired.conditions
    assert condition.name == "backend-options-unusable"
    assert "VNI is not an integer from 1 to 16777215" in condition.cause
    assert not desired.certain


def test_promise_10_one_forged_value_in_many_leases_costs_no_more_than_many_values(
    tunnel: World,
) -> None:
    many = 2000

    def took_s(*, forged: bool) -> float:
        found = []
        for number in range(1, many + 1):
            which = 1 if forged else number
            mac = f"02:00:00:00:{which >> 8:02x}:{which & 255:02x}"
            made = lease("10.64.0.0/16", "198.51.100.1", "vxlan")
            subnet = IPv4Network((int(CIDR.network_address) + (1 << 20) + number * 256, 24))
            node_address = made.node_address + which
            data = BackendData.of({"VNI": 1, "VtepMAC": mac})
            found.append(replace(made, subnet=subnet, node_address=node_address, backend_data=data))
        full, desired = replace(tunnel, peers=peers_by_subnet(found, OWN)), DesiredObjects()
        began_s = time.process_time()
        desired.follow(full)
        assert desired.certain
        assert len(desired.conditions) <= CONDITIONS_SHOWN + 1
        desired.follow(replace(tunnel, peers={}))
        return time.process_time() - began_s

    assert took_s(forged=True) < 5 * took_s(forged=False)
