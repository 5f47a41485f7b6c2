"""Records that are not used cost themselves: a claim goes round them and names them."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.errors import ClaimConflict, HostmeshError, NoFreeSubnet
from agent.leases import kv
from agent.leases.operator import Operator
from agent.leases.registry import Registry
from tests.etcd.support.etcdlab import Heard, eventually, host, request
from tests.etcd.support.keeping import REGISTRATION, SHORT, condition, held, keep

pytestmark = pytest.mark.etcd

_FLANNEL = b'{"PublicIP":"192.0.2.200","PublicIPv6":null,"BackendType":"host-gw"}'


def _write(mesh: Registry, name: str, value: bytes = b"garbage") -> str:
    key = f"{mesh.keys.prefix}/{name}"
    mesh.client.txn("w", [], [kv.put(key.encode(), value)])
    return key


def _claim_all(mesh: Registry) -> tuple[list[IPv4Network], HostmeshError]:
    """Claim until it is refused."""
    found: list[IPv4Network] = []
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
    """It may be nobody's, but that is the operator's to say (promise 1)."""
    lease = mesh.claim(request(1))
    key = _write(mesh, "subnets/10.0.0.0-8")
    assert mesh.renew(lease, memory_ttl_s=3600).subnet == lease.subnet
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


def test_promise_2_a_live_hosts_overwritten_record_is_its_own_again_when_it_is_deleted(
    mesh: Registry,
) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        keeper.update(replace(REGISTRATION, wanted_subnet=lease.subnet, may_change_subnet=False))
        key = _write(mesh, f"subnets/{lease.subnet.network_address}-16")
        eventually(lambda: heard.last[1] and key in heard.last[1][0].cause)
        assert condition(heard) == "lease-taken"
        assert f"etcdctl del {key}" in heard.last[1][0].hint
        with pytest.raises(ClaimConflict):
            mesh.claim(request(2, wanted=lease.subnet, only_wanted=True))
        mesh.client.txn("w", [], [kv.delete(key.encode())])
        eventually(lambda: heard.last[0] and not heard.last[1], timeout_s=25)
        assert heard.last[0].subnet == lease.subnet


def test_reserve_says_what_is_in_the_way_though_it_is_not_used(mesh: Registry) -> None:
    operator = Operator(mesh)
    lease = mesh.claim(request(1, wanted=IPv4Network("10.66.0.0/16")))
    _write(mesh, "subnets/10.66.9.0-24", _FLANNEL)
    assert mesh.snapshot().set_aside
    mesh.release(host(1))
    _write(mesh, "subnets/10.66.8.0-21", _FLANNEL)  # now this one is the younger of two
    with pytest.raises(ClaimConflict, match=r"10\.66\.8\.0/21, .*a lease that is set aside"):
        operator.reserve(host(1), IPv4Network("10.66.8.0/24"))
    key = _write(mesh, "subnets/10.70.0.0-16")
    with pytest.raises(ClaimConflict, match=key):
        operator.reserve(host(1), IPv4Network("10.70.0.0/16"))
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
        before = mesh.client.range(mesh.keys.subnet(lease.subnet)).records
        time.sleep(1.5)
        assert mesh.client.range(mesh.keys.subnet(lease.subnet)).records == before
    again = Heard()
    with keep(mesh, again, boot_id="2" * 32) as keeper:
        keeper.update(inside)
        assert eventually(held(again)).subnet == lease.subnet
    leases = mesh.client.range(mesh.keys.leases.start, mesh.keys.leases.end).records
    assert len(leases) == 1
