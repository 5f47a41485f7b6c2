"""Records that are not used cost themselves: a claim goes round them and names them."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.errors import ClaimConflict, HostmeshError, NoFreeSubnet
from agent.etcd import kv
from agent.model.family import Network
from agent.registry.directory import Directory
from agent.registry.operations.reservations import reserve
from agent.registry.records import LEASES
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import Heard, host, renew, request
from tests.etcd.support.keeping import REGISTRATION, SHORT, condition, held, keep
from tests.waiting import eventually

pytestmark = pytest.mark.etcd

_FLANNEL = b'{"PublicIP":"192.0.2.200","PublicIPv6":null,"BackendType":"host-gw"}'


def _write(mesh: Registry, name: str, value: bytes = b"garbage") -> str:
    key = f"{mesh.keys.prefix}/{name}"
    mesh.client.txn("w", [], [kv.put(key.encode(), value)])
    return key


def _claim_all(mesh: Registry) -> tuple[list[Network], HostmeshError]:
    """Claim until it is refused."""
    found: list[Network] = []
    while True:
        try:
            found.append(mesh.claim(request(len(found) + 1)).subnet)
        except HostmeshError as error:
            return found, error


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("subnets/10.64.0.0-14", "10.64.0.0/14"),
        ("reservations/10.64.0.0-14", "10.64.0.0/14"),
        ("subnets/10.65.9.junk", "10.65.0.0/16"),
        ("subnets/10.64.0.0-13&junk", "10.64.0.0/13"),
        ("subnets/banana", None),
        ("subnets/0.0.0.0-4", None),
    ],
)
def test_promise_4_an_unreadable_record_keeps_what_it_may_hold_and_no_more(
    mesh: Registry, name: str, kept: str | None
) -> None:
    key = _write(mesh, name)
    found, refusal = _claim_all(mesh)
    assert isinstance(refusal, NoFreeSubnet)
    out_of_reach = IPv4Network(kept) if kept else None
    assert set(found) == {
        each
        for each in IPv4Network("10.64.0.0/12").subnets(new_prefix=16)
        if out_of_reach is None or not each.overlaps(out_of_reach)
    }
    assert (key in refusal.message) is (kept is not None)
    assert (f"etcdctl del {key}" in refusal.hint) is (kept is not None)


def test_promise_4_a_record_as_wide_as_the_mesh_stops_claims_only_and_is_named(
    mesh: Registry,
) -> None:
    """It may belong to no host, but only the operator can say so (promise 1)."""
    lease = mesh.claim(request(1))
    key = _write(mesh, "subnets/10.0.0.0-8")
    assert renew(mesh, lease, memory_ttl_s=3600).subnet == lease.subnet
    assert mesh.claim(request(1)).subnet == lease.subnet
    with pytest.raises(NoFreeSubnet) as refused:
        mesh.claim(request(2))
    assert key in refused.value.message
    mesh.client.txn("w", [], [kv.delete(key.encode())])
    assert mesh.claim(request(2))


def test_a_host_whose_own_record_was_overwritten_is_told_the_key(mesh: Registry) -> None:
    lease = mesh.claim(request(1))
    key = _write(mesh, f"subnets/{lease.subnet.network_address}-16")
    with pytest.raises(ClaimConflict) as refused:
        mesh.claim(request(1, wanted=lease.subnet, only_wanted=True))
    assert key in refused.value.message
    assert f"etcdctl del {key}" in refused.value.hint


_SUBNETS = (IPv4Network("10.65.0.0/16"), IPv4Network("10.66.0.0/16"))
_DAMAGED = {
    "not JSON": (b"}", b""),
    "TTL": (b'"TTL":', b'"TTL":"x","was":'),
    "HostID": (host(1).encode(), b"x"),
    "PublicIP": (b'"PublicIP":"', b'"PublicIP":"300.'),
}


@pytest.mark.parametrize("how", _DAMAGED)
def test_promise_2_a_live_hosts_damaged_record_is_repaired_and_not_obeyed(
    mesh: Registry, how: str
) -> None:
    """Though it may take another subnet: no other host can have got its key meanwhile."""
    heard = Heard()
    directory = Directory(mesh, views := Heard(), Heard())
    with keep(mesh, heard) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        directory.start()
        eventually(lambda: views.last and lease.subnet in views.last.by_subnet)
        # A watch that has caught up with etcd sees the damage before the repair.
        other = next(each for each in _SUBNETS if each != lease.subnet)
        reserve(mesh, host(9), other)
        eventually(lambda: views.last.reservations)
        before = len(views)
        key = mesh.keys.of(LEASES, lease.subnet)
        there = mesh.client.range(key).records[0]
        damaged = there.value.replace(*_DAMAGED[how])
        assert damaged != there.value
        mesh.client.txn("w", [], [kv.put(key, damaged)])
        keeper.notice(mesh.snapshot())
        eventually(lambda: mesh.snapshot().lease_of(host(1)))
        again = mesh.snapshot().by_subnet[lease.subnet]
        assert again.etcd_lease_id, "it would never end"
        eventually(lambda: heard.last[0] and heard.last[0].mod_revision == again.mod_revision)
        assert not heard.last[1]
        assert len(mesh.snapshot().leases) == 1
        eventually(lambda: views.last.revision >= again.mod_revision)
        seen = views.items[before:]
        assert all(lease.subnet in view.by_subnet for view in seen), "peers dropped it"
        assert any(view.kept for view in seen)
    directory.stop()


def test_promise_2_a_record_that_was_damaged_while_its_host_was_off_is_its_own_again(
    mesh: Registry,
) -> None:
    """By its copy, which says since when the key has been there."""
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
    mesh.client.txn("w", [], [kv.put(mesh.keys.of(LEASES, lease.subnet), b"{")])
    again = Heard()
    with keep(mesh, again) as keeper:
        keeper.update(replace(REGISTRATION, wanted_subnet=lease.subnet, past=lease))
        assert eventually(held(again)).subnet == lease.subnet
    assert mesh.snapshot().lease_of(host(1))
    past = replace(lease, create_revision=lease.create_revision - 1)
    mesh.client.txn("w", [], [kv.put(mesh.keys.of(LEASES, lease.subnet), b"{")])
    wish = request(1, wanted=lease.subnet, past=past, only_wanted=True)
    with pytest.raises(ClaimConflict):
        mesh.claim(wish)


def test_promise_1_a_damaged_record_that_another_host_may_own_is_left_alone(
    mesh: Registry,
) -> None:
    """The key went away in between, or another etcd lease is attached: that may be a claim."""
    lease = mesh.claim(request(1))
    key = mesh.keys.of(LEASES, lease.subnet)
    mesh.client.txn("w", [], [kv.delete(key)])
    mesh.client.txn("w", [], [kv.put(key, b"{")])
    with pytest.raises(ClaimConflict):
        renew(mesh, lease, memory_ttl_s=0)
    mesh.client.txn("w", [], [kv.delete(key)])
    lease = mesh.claim(request(1, wanted=lease.subnet))
    mesh.client.txn("w", [], [kv.put(key, b"{", mesh.client.grant(60).id)])
    with pytest.raises(ClaimConflict):
        renew(mesh, lease, memory_ttl_s=0)


def test_a_record_that_is_damaged_again_and_again_is_a_condition(mesh: Registry) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        key = mesh.keys.of(LEASES, lease.subnet)

        def contested() -> bool:
            mesh.client.txn("w", [], [kv.put(key, b"{")])
            keeper.notice(mesh.snapshot())
            return bool(heard.last[1])

        eventually(contested, timeout_s=20)
        assert condition(heard) == "own-lease-overwritten"
        assert heard.last[0].subnet == lease.subnet

        def calm() -> bool:
            keeper.notice(mesh.snapshot())
            return not heard.last[1]

        eventually(calm, timeout_s=30)
        assert mesh.snapshot().lease_of(host(1))


def test_a_heartbeat_that_is_written_again_and_again_does_not_lapse(mesh: Registry) -> None:
    """Each doubt writes it; only keeping its etcd lease alive prolongs it."""
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(REGISTRATION)
        eventually(held(heard))
        until_s = time.monotonic() + 1.5 * SHORT.heartbeat_ttl_s
        while time.monotonic() < until_s:
            keeper.hold()
            keeper.resume()
            time.sleep(0.3)
            assert host(1) in mesh.snapshot().heartbeats


def test_reserve_says_what_is_in_the_way_though_it_is_not_used(mesh: Registry) -> None:
    lease = mesh.claim(request(1, wanted=IPv4Network("10.66.0.0/16")))
    _write(mesh, "subnets/10.66.9.0-24", _FLANNEL)
    assert mesh.snapshot().set_aside
    mesh.release(host(1))
    _write(mesh, "subnets/10.66.8.0-21", _FLANNEL)  # now this one is the younger of two
    with pytest.raises(ClaimConflict, match=r"10\.66\.8\.0/21, .*a lease that is set aside"):
        reserve(mesh, host(1), IPv4Network("10.66.8.0/24"))
    key = _write(mesh, "subnets/10.70.0.0-16")
    with pytest.raises(ClaimConflict, match=key):
        reserve(mesh, host(1), IPv4Network("10.70.0.0/16"))
    assert lease.subnet == IPv4Network("10.66.0.0/16")


def test_promise_10_an_own_lease_that_nobody_uses_is_kept_and_written_no_more_often(
    mesh: Registry,
) -> None:
    """Its node address lies in the mesh: peers refuse that; other subnets would not help."""
    inside = replace(REGISTRATION, node_address=IPv4Address("10.79.0.1"))
    heard = Heard()
    with keep(mesh, heard, settings=replace(SHORT, ttl_s=86_400)) as keeper:
        keeper.update(inside)
        lease = eventually(held(heard))
        (aside,) = eventually(lambda: mesh.snapshot().set_aside)
        assert aside.lease is not None
        assert (aside.lease.host_id, aside.lease.subnet) == (host(1), lease.subnet)
        time.sleep(1)
        before = mesh.client.range(mesh.keys.of(LEASES, lease.subnet)).records
        time.sleep(1.5)
        assert mesh.client.range(mesh.keys.of(LEASES, lease.subnet)).records == before
    again = Heard()
    with keep(mesh, again, boot_id="2" * 32) as keeper:
        keeper.update(inside)
        assert eventually(held(again)).subnet == lease.subnet
    leases = mesh.client.range(mesh.keys.range(LEASES).start, mesh.keys.range(LEASES).end).records
    assert len(leases) == 1
