"""The keeper and owner records: written, written again, refused by an older version's roles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.etcd import kv
from agent.model import Lease, OwnerRecords
from agent.registry.records import CONFIG, LEASES, OWNERS, encode_config, encode_lease
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import Etcd, Heard, config, host, registry
from tests.etcd.support.keeping import REGISTRATION, condition, held, keep, steal
from tests.waiting import eventually

pytestmark = pytest.mark.etcd

_WRITTEN = replace(REGISTRATION, owners=OwnerRecords.WRITTEN)
_DECIDE = replace(REGISTRATION, owners=OwnerRecords.DECIDE)
_OWNERS = "/hostmesh/owners/"


@pytest.fixture
def owned(mesh: Registry) -> Registry:
    value = encode_config(replace(config("10.64.0.0/12"), level=2, owners=True))
    mesh.client.txn("w", [], [kv.put(mesh.keys.of(CONFIG), value)])
    return mesh


def owner_of(mesh: Registry, lease: Lease) -> Lease | None:
    found: Lease | None = mesh.snapshot().owners.get((host(1), lease.subnet))
    return found


def agreed(mesh: Registry, lease: Lease) -> bool:
    """Both keys say the same, on one etcd lease."""
    keys = mesh.keys.of(LEASES, lease.subnet), mesh.keys.of(OWNERS, (host(1), lease.subnet))
    found = [each for key in keys for each in mesh.client.range(key).records]
    return len(found) == 2 and len({(each.value, each.lease_id) for each in found}) == 1


def test_promise_12_the_owner_record_is_written_when_the_level_is_raised(mesh: Registry) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        assert owner_of(mesh, lease) is None
        keeper.update(_WRITTEN)
        eventually(lambda: agreed(mesh, lease))
        mesh.client.txn("w", [], [kv.delete(mesh.keys.of(OWNERS, (host(1), lease.subnet)))])
        eventually(lambda: agreed(mesh, lease))
        assert heard.last[0].subnet == lease.subnet
        assert heard.last[1] == ()


@pytest.mark.parametrize("value", [b"garbage", b"", None], ids=["garbage", "thief", "deleted"])
def test_promise_2_a_key_that_another_host_changed_is_written_again_at_once(
    owned: Registry, value: bytes | None
) -> None:
    heard = Heard()
    with keep(owned, heard) as keeper:
        keeper.update(_DECIDE)
        lease = eventually(held(heard))
        key = owned.keys.of(LEASES, lease.subnet)
        if value is None:
            owned.client.txn("w", [], [kv.delete(key)])
        elif value:
            owned.client.txn("w", [], [kv.put(key, value)])
        else:
            steal(owned, lease)
        eventually(lambda: agreed(owned, lease), timeout_s=5)
        view = owned.snapshot()
        assert [each.create_revision for each in view.leases] == [lease.create_revision]
        assert view.overwritten == frozenset()
        assert {each[0].subnet for each in heard.items} == {lease.subnet}


def test_who_goes_on_to_overwrite_is_reported_and_costs_no_lease(owned: Registry) -> None:
    heard = Heard()
    with keep(owned, heard) as keeper:
        keeper.update(_DECIDE)
        lease = eventually(held(heard))

        def reported() -> bool:
            steal(owned, lease)
            return condition(heard) == "own-lease-overwritten"

        eventually(reported, timeout_s=30)
        assert "its owner record is intact" in heard.last[1][0].cause
        assert [each.host_id for each in owned.snapshot().leases] == [host(1)]
        assert all(each[0] for each in heard.items)


def test_promise_2_a_restarted_keeper_is_no_clone_by_what_others_wrote(owned: Registry) -> None:
    heard = Heard()
    with keep(owned, heard) as keeper:
        keeper.update(_DECIDE)
        lease = eventually(held(heard))
    forged = replace(lease, node_address=IPv4Address("192.0.2.99"), etcd_lease_id=0)
    key = owned.keys.of(LEASES, lease.subnet)
    owned.client.txn("w", [], [kv.put(key, encode_lease(forged, boot_id="9" * 32))])
    again = Heard()
    with keep(owned, again, boot_id="2" * 32) as keeper:
        keeper.update(_DECIDE)
        found = eventually(held(again))
        assert (found.subnet, found.create_revision) == (lease.subnet, lease.create_revision)
        assert condition(again) == ""
        eventually(lambda: agreed(owned, lease))


def test_the_mode_changes_under_a_keeper_and_its_lease_stays(mesh: Registry) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(_WRITTEN)
        lease = eventually(held(heard))
        for owners in (True, False, True):
            value = encode_config(replace(config("10.64.0.0/12"), level=2, owners=owners))
            mesh.client.txn("w", [], [kv.put(mesh.keys.of(CONFIG), value)])
            revision = mesh.snapshot().revision
            keeper.update(_DECIDE if owners else _WRITTEN)
            eventually(lambda at=revision: heard.last[0].mod_revision > at)  # type: ignore[misc] # its default
            assert [each.subnet for each in mesh.snapshot().leases] == [lease.subnet]
        assert {each[0].subnet for each in heard.items} == {lease.subnet}


def test_promise_2_a_damaged_owner_record_is_repaired_after_the_mode_changed(
    mesh: Registry,
) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        keeper.update(_WRITTEN)
        eventually(lambda: agreed(mesh, lease))
        value = encode_config(replace(config("10.64.0.0/12"), level=2, owners=True))
        mesh.client.txn("w", [], [kv.put(mesh.keys.of(CONFIG), value)])
        revision = mesh.snapshot().revision
        keeper.update(_DECIDE)
        eventually(lambda: heard.last[0].mod_revision > revision)
        key = mesh.keys.of(OWNERS, (host(1), lease.subnet))
        mesh.client.txn("w", [], [kv.put(key, b"garbage")])
        eventually(lambda: agreed(mesh, lease), timeout_s=10)
        assert {each[0] and each[0].subnet for each in heard.items} == {lease.subnet}


def test_a_lease_whose_owner_record_is_gone_is_claimed_again(owned: Registry) -> None:
    heard = Heard()
    with keep(owned, heard) as keeper:
        keeper.update(_DECIDE)
        lease = eventually(held(heard))
        owned.client.txn("w", [], [kv.delete(owned.keys.of(OWNERS, (host(1), lease.subnet)))])
        eventually(lambda: heard.last[0] and heard.last[0].create_revision > lease.create_revision)
        assert heard.last[0].subnet == lease.subnet
        assert agreed(owned, lease)


@pytest.fixture
def old_roles(etcd: Etcd, tmp_path: Path) -> Iterator[Registry]:
    """An etcd whose roles do not know owner records, seen by an account of a host."""
    with registry(etcd) as root:
        root.create_config(replace(config("10.64.0.0/12"), level=2))
    etcd.ctl("role", "add", "agent")
    etcd.ctl("role", "grant-permission", "--prefix=true", "agent", "read", "/hostmesh/")
    for kind in ("subnets", "hosts", "memory", "clones"):
        grant = ["role", "grant-permission", "--prefix=true", "agent", "readwrite"]
        etcd.ctl(*grant, f"/hostmesh/{kind}/")
    for name in ("root", "agent"):
        etcd.ctl("user", "add", f"{name}:secret")
        etcd.ctl("user", "grant-role", name, name)
    etcd.ctl("auth", "enable")
    password = tmp_path / "password"
    password.write_text("secret")
    with registry(etcd, username="agent", password_file=password) as found:
        yield found


def test_promise_12_a_host_goes_on_without_owner_records_where_roles_refuse_them(
    old_roles: Registry,
) -> None:
    heard = Heard()
    with keep(old_roles, heard) as keeper:
        keeper.update(_WRITTEN)
        lease = eventually(held(heard))
        assert condition(heard) == "owner-record-refused"
        assert "hosts.sh" in heard.last[1][0].hint
        view = old_roles.snapshot()
        assert (view.leases, view.owners) == ((lease,), {})
        keeper.update(replace(_WRITTEN, host_name="newer"))
        eventually(lambda: old_roles.snapshot().leases[0].host_name == "newer")


def test_promise_3_a_role_that_loses_owner_records_costs_no_lease(
    etcd: Etcd, old_roles: Registry
) -> None:
    """Such as the role of an older version, given again before a downgrade."""
    folder = ["--prefix=true", "agent"]
    etcd.ctl("--user", "root:secret", "role", "grant-permission", *folder, "readwrite", _OWNERS)
    heard = Heard()
    with keep(old_roles, heard) as keeper:
        keeper.update(_WRITTEN)
        lease = eventually(held(heard))
        assert agreed(old_roles, lease)
        etcd.ctl("--user", "root:secret", "role", "revoke-permission", *folder, _OWNERS)
        keeper.update(replace(_WRITTEN, host_name="newer"))
        eventually(lambda: old_roles.snapshot().leases[0].host_name == "newer")
        eventually(lambda: condition(heard) == "owner-record-refused")
