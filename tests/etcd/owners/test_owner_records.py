"""Owner records on a real etcd: written beside leases, and decisive where the config says so."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.errors import ClaimConflict, NoFreeSubnet, Refused
from agent.etcd import kv
from agent.mesh.config_change import ConfigWish, wished_config
from agent.model import Lease, MeshConfig, OwnerRecords
from agent.model.family import Network
from agent.registry.operations.config_change import change_config
from agent.registry.operations.host_removal import remove_host
from agent.registry.operations.hosts import HostRef
from agent.registry.operations.reservations import reserve
from agent.registry.records import CONFIG, LEASES, OWNERS, encode_lease
from agent.registry.registry import LeaseLostError, Registry
from tests.etcd.support.etcdlab import host, renew, request

pytestmark = pytest.mark.etcd

_SUBNET = IPv4Network("10.70.0.0/16")
_WRITTEN, _DECIDE = OwnerRecords.WRITTEN, OwnerRecords.DECIDE


def set_config(mesh: Registry, flannel_may_go: bool = False, **wish: object) -> MeshConfig:
    def wished(now: MeshConfig | None) -> MeshConfig:
        assert now is not None
        return wished_config(now, ConfigWish(**wish))  # type: ignore[arg-type] # each has its own type

    return change_config(mesh, wished, flannel_may_go=flannel_may_go).after


@pytest.fixture
def owned(mesh: Registry) -> Registry:
    """A mesh in which owner records decide."""
    set_config(mesh, level=2, owners=True)
    return mesh


def put(mesh: Registry, key: bytes, value: bytes, lease_id: int = 0) -> None:
    mesh.client.txn("w", [], [kv.put(key, value, lease_id)])


def delete(mesh: Registry, key: bytes) -> None:
    mesh.client.txn("w", [], [kv.delete(key)])


def forge(mesh: Registry, subnet: Network, number: int = 9, **more: object) -> None:
    """Host ``number`` writes a lease without an owner record."""
    lease = Lease(
        subnet=subnet,
        node_address=request(number).node_address,
        backend="host-gw",
        host_id=host(number),
        host_name=f"host{number}",
        ttl_s=60,
    )
    put(mesh, mesh.keys.of(LEASES, subnet), encode_lease(replace(lease, **more)))  # type: ignore[arg-type] # as above


def owner(mesh: Registry, number: int, subnet: Network, owned_by: int | None = None) -> None:
    """Host ``number`` writes an owner record and nothing else."""
    lease = Lease(
        subnet=subnet,
        node_address=request(number).node_address,
        backend="host-gw",
        host_id=host(owned_by or number),
        ttl_s=60,
    )
    put(mesh, mesh.keys.of(OWNERS, (host(number), subnet)), encode_lease(lease))


def values(mesh: Registry, lease: Lease) -> list[bytes]:
    assert lease.host_id is not None
    keys = mesh.keys.of(LEASES, lease.subnet), mesh.keys.of(OWNERS, (lease.host_id, lease.subnet))
    return [each.value for key in keys for each in mesh.client.range(key).records]


# --- written ------------------------------------------------------------------------------


def test_a_claim_and_a_renewal_write_the_owner_record_and_a_release_ends_it(mesh: Registry) -> None:
    lease = mesh.claim(request(1, owners=_WRITTEN))
    one, other = values(mesh, lease)
    assert one == other
    view = mesh.snapshot()
    assert view.owners == {(host(1), lease.subnet): lease}
    assert view.leases == (lease,)
    moved = renew(mesh, lease, node_address=IPv4Address("192.0.2.99"), owners=_WRITTEN)
    one, other = values(mesh, lease)
    assert one == other
    assert mesh.snapshot().owners[host(1), lease.subnet] == moved
    mesh.release(host(1))
    assert values(mesh, lease) == []


def test_promise_12_no_owner_record_is_written_below_its_level(mesh: Registry) -> None:
    lease = mesh.claim(request(1))
    assert len(values(mesh, lease)) == 1
    renewed = renew(mesh, lease, owners=_WRITTEN)
    one, other = values(mesh, lease)
    assert one == other
    assert mesh.snapshot().owners[host(1), lease.subnet].create_revision == renewed.mod_revision


def test_a_lease_decides_while_owner_records_are_only_written(mesh: Registry) -> None:
    lease = mesh.claim(request(1, owners=_WRITTEN))
    forge(mesh, lease.subnet)
    (seen,) = mesh.snapshot().leases
    assert seen.host_id == host(9)
    with pytest.raises(ClaimConflict, match="is now leased to host9"):
        renew(mesh, lease, owners=_WRITTEN)


def test_what_another_hosts_owner_record_holds_is_not_claimed(mesh: Registry) -> None:
    lease = mesh.claim(request(1, wanted=_SUBNET, owners=_WRITTEN))
    delete(mesh, mesh.keys.of(LEASES, _SUBNET))
    assert mesh.claim(request(2, wanted=_SUBNET)).subnet != _SUBNET
    with pytest.raises(ClaimConflict, match="held by host1"):
        reserve(mesh, host(2), _SUBNET)
    again = mesh.claim(request(1, wanted=_SUBNET, owners=_WRITTEN))
    assert again.subnet == lease.subnet


# --- the change to required ---------------------------------------------------------------


def test_owner_records_are_required_only_when_every_lease_has_one(mesh: Registry) -> None:
    with pytest.raises(Refused, match="need level 2 and the config has level 1"):
        set_config(mesh, owners=True)
    set_config(mesh, level=2)
    one, other = mesh.claim(request(1, owners=_WRITTEN)), mesh.claim(request(2))
    with pytest.raises(Refused, match=f"host2 has no owner record of {other.subnet}"):
        set_config(mesh, owners=True)
    other = renew(mesh, other, owners=_WRITTEN)
    forge(mesh, other.subnet, 2, node_address=IPv4Address("192.0.2.99"))
    with pytest.raises(Refused, match=r"the owner record of .* of host host2 does not agree"):
        set_config(mesh, owners=True)
    put(mesh, mesh.keys.of(LEASES, other.subnet), values(mesh, other)[1], other.etcd_lease_id)
    assert set_config(mesh, owners=True).owners
    view = mesh.snapshot()
    assert [each.subnet for each in view.leases] == sorted([one.subnet, other.subnet])
    assert (view.set_aside, view.overwritten) == ((), frozenset())
    assert not set_config(mesh, owners=False).owners
    assert {each.subnet for each in mesh.snapshot().leases} == {one.subnet, other.subnet}


def test_owner_records_made_beforehand_keep_the_change_from_happening(mesh: Registry) -> None:
    """They would take a subnet later: once their host deletes those that count first."""
    set_config(mesh, level=2)
    for subnet in ("10.65.0.0/16", "10.66.0.0/16", "10.70.128.0/17"):
        owner(mesh, 9, IPv4Network(subnet))
        forge(mesh, IPv4Network(subnet), 9)
    delete(mesh, mesh.keys.of(LEASES, IPv4Network("10.70.128.0/17")))
    lease = mesh.claim(request(1, wanted=IPv4Network("10.71.0.0/16"), owners=_WRITTEN))
    set_config(mesh, owners=True)
    set_config(mesh, owners=False)
    mesh.release(host(1))
    owner(mesh, 9, lease.subnet)
    renew(mesh, mesh.claim(request(1, wanted=_SUBNET)), owners=_WRITTEN)  # 0.1 minds no owners
    assert mesh.snapshot().lease_of(host(1)) is not None
    forge(mesh, _SUBNET, 1)
    put(mesh, mesh.keys.of(OWNERS, (host(1), _SUBNET)), _value(mesh, _SUBNET))
    with pytest.raises(Refused, match=r"overlaps an older one of 10\.70\.128\.0/17"):
        set_config(mesh, owners=True)


def test_owner_records_in_another_hosts_name_keep_the_change_from_happening(mesh: Registry) -> None:
    """Before hosts had accounts of their own, any program could write them: they are older."""
    set_config(mesh, level=2)
    for subnet in ("10.65.0.0/16", "10.66.0.0/16"):
        owner(mesh, 1, IPv4Network(subnet))
    lease = mesh.claim(request(1, wanted=_SUBNET, owners=_WRITTEN))
    assert lease.subnet == _SUBNET
    with pytest.raises(Refused, match=r"10\.70\.0\.0/16 .*: host .* has 2 older leases"):
        set_config(mesh, owners=True)
    delete(mesh, mesh.keys.of(OWNERS, (host(1), IPv4Network("10.66.0.0/16"))))
    assert set_config(mesh, owners=True).owners
    assert mesh.snapshot().by_subnet[_SUBNET].host_id == host(1)


def test_a_flannel_host_is_not_displaced_by_an_owner_record_unsaid(mesh: Registry) -> None:
    set_config(mesh, level=2)
    put(mesh, mesh.keys.of(LEASES, _SUBNET), b'{"PublicIP":"192.0.2.77","BackendType":"host-gw"}')
    owner(mesh, 9, IPv4Network("10.70.128.0/17"))
    with pytest.raises(Refused, match=r"10\.70\.0\.0/16 .*overlaps the older lease 10\.70\.128"):
        set_config(mesh, owners=True, flannel=True)


def test_a_host_that_joins_without_an_owner_record_meanwhile_is_seen(mesh: Registry) -> None:
    set_config(mesh, level=2)
    joined: list[Lease] = []

    def wished(now: MeshConfig | None) -> MeshConfig:
        assert now is not None
        if not joined:
            joined.append(mesh.claim(request(1)))
        return wished_config(now, ConfigWish(owners=True))

    with pytest.raises(Refused, match="has no owner record"):
        change_config(mesh, wished)
    assert mesh.snapshot().leases == tuple(joined)


def test_owner_records_are_given_up_only_where_no_lease_is_lost(owned: Registry) -> None:
    lease = owned.claim(request(1, wanted=_SUBNET))
    delete(owned, owned.keys.of(LEASES, _SUBNET))
    with pytest.raises(Refused, match=r"gone or overwritten: 10\.70\.0\.0/16 of host"):
        set_config(owned, owners=False)
    assert owned.snapshot().by_subnet[_SUBNET].host_id == host(1)
    renew(owned, lease, owners=_DECIDE)
    assert not set_config(owned, owners=False).owners
    assert owned.snapshot().by_subnet[_SUBNET].host_id == host(1)


def _value(mesh: Registry, subnet: Network) -> bytes:
    return mesh.client.range(mesh.keys.of(LEASES, subnet)).records[0].value


def test_flannel_hosts_are_named_before_they_lose_their_routes(mesh: Registry) -> None:
    set_config(mesh, level=2)
    put(mesh, mesh.keys.of(LEASES, _SUBNET), b'{"PublicIP":"192.0.2.77","BackendType":"host-gw"}')
    for wish in ({"owners": True}, {"flannel": False}):
        with pytest.raises(
            Refused, match=r"1 flannel hosts would lose their routes: 192\.0\.2\.77"
        ):
            set_config(mesh, **wish)
    assert set_config(mesh, owners=True, flannel=True).flannel
    assert [each.subnet for each in mesh.snapshot().leases] == [_SUBNET]
    assert not set_config(mesh, flannel=False, flannel_may_go=True).flannel
    view = mesh.snapshot()
    assert view.leases == ()
    assert "this mesh refuses them" in view.set_aside[0].reason


# --- decide -------------------------------------------------------------------------------


def test_promise_1_a_lease_counts_by_its_owner_record_alone(owned: Registry) -> None:
    lease = owned.claim(request(1))
    assert owned.snapshot().leases == (lease,)
    forge(owned, lease.subnet)
    forge(owned, IPv4Network("10.77.0.0/16"), 1)
    view = owned.snapshot()
    assert view.leases == (lease,)
    assert view.overwritten == {lease.subnet}
    assert {each.reason for each in view.set_aside} == {
        f"host host9 has no owner record of {lease.subnet}",
        "host host1 has no owner record of 10.77.0.0/16",
    }
    assert view.set_aside_of(host(1)) == ()
    renewed = renew(owned, lease, owners=_DECIDE)
    view = owned.snapshot()
    assert (view.leases, view.overwritten) == ((renewed,), frozenset())
    delete(owned, owned.keys.of(LEASES, lease.subnet))
    assert owned.snapshot().leases == (renewed,)
    with pytest.raises(ClaimConflict):
        owned.claim(request(2, wanted=lease.subnet, only_wanted=True))
    delete(owned, owned.keys.of(OWNERS, (host(1), lease.subnet)))
    assert owned.snapshot().leases == ()
    with pytest.raises(LeaseLostError):
        renew(owned, renewed, owners=_DECIDE)


@pytest.mark.parametrize("restart", [False, True])
def test_promise_2_a_restarted_host_finds_its_lease_whatever_others_wrote(
    owned: Registry, restart: bool
) -> None:
    lease = owned.claim(request(1))
    forge(owned, lease.subnet, 1, node_address=IPv4Address("192.0.2.99"))  # as a clone's
    forge(owned, IPv4Network("10.77.0.0/16"), 1)
    again = owned.claim(request(1, owners=_DECIDE if restart else OwnerRecords.UNUSED))
    assert (again.subnet, again.create_revision) == (lease.subnet, lease.create_revision)
    view = owned.snapshot()
    assert (view.leases, view.overwritten) == ((again,), frozenset())


def test_promise_2_a_host_that_lost_its_lease_gets_its_subnet_over_keys_without_rights(
    owned: Registry,
) -> None:
    owned.release(host(1))
    owned.claim(request(1, wanted=_SUBNET))
    owned.release(host(1))
    forge(owned, _SUBNET)
    for number in range(8):
        forge(owned, IPv4Network(f"10.70.{number}.0/24"))
    put(owned, owned.keys.of(LEASES, IPv4Network("10.70.99.0/24")), b"garbage")
    lease = owned.claim(request(1, wanted=_SUBNET, only_wanted=True, registering=True))
    assert lease.subnet == _SUBNET
    below = owned.keys.range(LEASES)
    assert [each.key for each in owned.client.range(below.start, below.end).records] == [
        owned.keys.of(LEASES, _SUBNET)
    ]
    assert owned.snapshot().leases == (lease,)


def test_a_mesh_full_of_keys_without_rights_still_takes_new_hosts(owned: Registry) -> None:
    for each in IPv4Network("10.64.0.0/12").subnets(new_prefix=16):
        forge(owned, each)
    for number in range(1, 17):
        owned.claim(request(number))
    with pytest.raises(NoFreeSubnet):
        owned.claim(request(17))


def test_a_host_has_two_leases_at_most_however_many_it_claims(owned: Registry) -> None:
    for third in range(64, 72):
        owner(owned, 9, IPv4Network(f"10.{third}.0.0/16"))
    view = owned.snapshot()
    assert [str(each.subnet) for each in view.leases] == ["10.64.0.0/16", "10.65.0.0/16"]
    assert len(view.set_aside) == 6
    lease = owned.claim(request(1, wanted=_SUBNET))
    assert lease.subnet not in {each.subnet for each in owned.records().owners()} - {lease.subnet}
    delete(owned, owned.keys.of(OWNERS, (host(9), IPv4Network("10.64.0.0/16"))))
    assert owned.snapshot().lease_of(host(1)) == lease


def test_an_owner_record_made_while_a_claim_is_under_way_costs_the_claim(
    owned: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No transaction can see it: it hides behind two others, and would count once they go."""
    for third in (64, 65):
        owner(owned, 9, IPv4Network(f"10.{third}.0.0/16"))
    real, records = owned.client.txn, owned.records

    def late(action: str, *rest: object) -> object:
        if action == f"claim {_SUBNET}":
            monkeypatch.setattr(owned.client, "txn", real)
            owner(owned, 9, IPv4Network("10.70.3.0/24"))
        return real(action, *rest)  # type: ignore[arg-type] # handed on

    monkeypatch.setattr(owned.client, "txn", late)
    lease = owned.claim(request(1, wanted=_SUBNET))
    assert lease.subnet != _SUBNET
    assert {each.subnet for each in records().owners() if each.host_id == host(1)} == {lease.subnet}


def test_an_owner_record_of_another_host_or_of_garbage_does_not_count(owned: Registry) -> None:
    owner(owned, 9, _SUBNET, owned_by=1)
    put(owned, owned.keys.of(OWNERS, (host(9), IPv4Network("10.71.0.0/16"))), b"garbage")
    view = owned.snapshot()
    assert view.leases == ()
    assert [each.reason for each in view.set_aside] == [
        "the key and HostID differ",
        "the value is not JSON",
    ]
    assert owned.claim(request(1, wanted=_SUBNET)).subnet != _SUBNET, "it may be a live host's"


def test_flannels_lease_comes_after_an_owner_record_whatever_its_age(mesh: Registry) -> None:
    """Any host can put a flannel host's value on an old key."""
    set_config(mesh, level=2)
    old = mesh.claim(request(1))
    lease = renew(mesh, old, owners=_WRITTEN)
    set_config(mesh, owners=True, flannel=True)
    put(
        mesh,
        mesh.keys.of(LEASES, lease.subnet),
        b'{"PublicIP":"192.0.2.77","BackendType":"host-gw"}',
    )
    view = mesh.snapshot()
    assert [each.host_id for each in view.leases] == [host(1)]
    assert view.overwritten == {lease.subnet}
    assert "overlaps the older lease" in view.set_aside[0].reason


def test_flannels_lease_is_adopted_with_an_owner_record_where_flannel_is_allowed(
    mesh: Registry,
) -> None:
    set_config(mesh, level=2)
    here = request(1).node_address
    value = json.dumps({"PublicIP": str(here), "BackendType": "host-gw"}).encode()
    put(mesh, mesh.keys.of(LEASES, _SUBNET), value)
    set_config(mesh, owners=True, flannel=True)
    lease = mesh.claim(request(1, owners=_DECIDE))
    assert lease.subnet == _SUBNET
    assert mesh.snapshot().leases == (lease,)
    assert renew(mesh, lease, owners=_DECIDE).create_revision == lease.create_revision


def test_release_and_removal_leave_nothing_of_a_host(owned: Registry) -> None:
    lease = owned.claim(request(1))
    forge(owned, lease.subnet)
    owned.release(host(1))
    assert owned.snapshot().owners == {}
    assert len(owned.records().leases()) == 1, "another host's key is not this host's to delete"
    for number in range(150):
        forge(owned, IPv4Network(f"10.71.{number}.0/24"))
        owner(owned, 9, IPv4Network(f"10.72.{number}.0/24"))
    assert len(remove_host(owned, HostRef(host_id=host(9)))) == 301
    records = owned.records()
    assert (records.leases(), records.owners()) == ((), ())


def test_a_reservation_is_refused_only_where_an_owner_holds(owned: Registry) -> None:
    forge(owned, _SUBNET)
    assert reserve(owned, host(1), _SUBNET)
    lease = owned.claim(request(1))
    assert lease.subnet == _SUBNET
    with pytest.raises(ClaimConflict, match="held by host1"):
        reserve(owned, host(2), IPv4Network("10.70.3.0/24"))


def test_a_second_lease_beside_the_first_is_owned_too(owned: Registry) -> None:
    lease = owned.claim(request(1))
    set_config(owned, cidr=IPv4Network("10.32.0.0/12"), move=True)
    second = owned.claim(request(1, beside=lease.subnet, owners=_DECIDE))
    assert second.subnet != lease.subnet
    assert set(owned.snapshot().leases_of(host(1))) == {lease, second}
    owned.give_back(lease)
    assert owned.snapshot().leases_of(host(1)) == (second,)


def test_promise_8_owner_records_decide_when_the_config_becomes_unusable(owned: Registry) -> None:
    lease = owned.claim(request(1))
    records = owned.records()
    records.view()
    forge(owned, lease.subnet)
    put(owned, owned.keys.of(CONFIG), b"garbage")
    view = owned.records(records.last_config).view()
    assert view.config_problem
    assert view.leases == (lease,)
