"""The config, and a host's own records: renewed, given back, read as one; on a real etcd."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.errors import ClaimConflict, MeshConfigError
from agent.model import DockerState, Heartbeat, Lease
from agent.registry.records import GRACE, LEASES, MEMORY
from agent.registry.registry import GraceError, IdentityInUseError, LeaseLostError, Registry
from tests.etcd.support.etcdlab import Etcd, config, host, registry, renew, request
from tests.waiting import eventually

pytestmark = pytest.mark.etcd

_MEMORY_S = 3600
_FLANNEL = '{"PublicIP":"192.0.2.200","PublicIPv6":null,"BackendType":"host-gw"}'


def test_without_a_config_nothing_is_written(shared_etcd: Etcd, prefix: str) -> None:
    with registry(shared_etcd, prefix=prefix) as mesh:
        with pytest.raises(MeshConfigError, match="no config"):
            mesh.claim(request(1))
        mesh.client.txn("w", [], [_put(f"{prefix}/config", '{"Network":"banana"}')])
        with pytest.raises(MeshConfigError, match="Network is not an IPv4 network"):
            mesh.claim(request(1))
        whole = mesh.keys.everything
        assert len(mesh.client.range(whole.start, whole.end).records) == 1


def test_config_is_created_once_and_what_is_there_wins(shared_etcd: Etcd, prefix: str) -> None:
    with registry(shared_etcd, prefix=prefix) as mesh:
        first = mesh.create_config(config("10.64.0.0/12"))
        assert first.mod_revision > 0
        assert mesh.create_config(config("10.96.0.0/12")) == first == mesh.snapshot().config


def test_promise_3_renewal_never_overwrites_the_new_owner(mesh: Registry) -> None:
    lease = mesh.claim(request(1, ttl_s=60))
    mesh.client.revoke(lease.etcd_lease_id)
    with pytest.raises(LeaseLostError):
        renew(mesh, lease, memory_ttl_s=_MEMORY_S)
    taken = mesh.claim(request(2, wanted=lease.subnet))
    assert taken.subnet == lease.subnet
    with pytest.raises(ClaimConflict, match="host2 at"):
        renew(mesh, lease, memory_ttl_s=_MEMORY_S)
    assert mesh.snapshot().lease_of(host(2)) == taken


def test_promise_3_renewal_does_not_rest_on_a_revision_that_another_etcd_reached_too(
    mesh: Registry,
) -> None:
    """After etcd was replaced, the new owner's record may have the very revision we remember."""
    lease = mesh.claim(request(1))
    mesh.release(host(1))
    taken = mesh.claim(request(2, wanted=lease.subnet))
    assert taken.subnet == lease.subnet
    remembered = replace(lease, mod_revision=taken.mod_revision)
    with pytest.raises(ClaimConflict, match="host2 at"):
        renew(mesh, remembered, memory_ttl_s=_MEMORY_S)


def test_promise_3_renewal_does_not_overwrite_what_flannel_wrote_over_it(mesh: Registry) -> None:
    lease = mesh.claim(request(1))
    mesh.client.txn("w", [], [_put(mesh.keys.of(LEASES, lease.subnet).decode(), _FLANNEL)])
    with pytest.raises(ClaimConflict, match=r"a flannel host at 192\.0\.2\.200"):
        renew(mesh, lease, memory_ttl_s=_MEMORY_S)


def test_renewal_updates_address_and_ttl_and_keeps_both_etcd_leases_alive(mesh: Registry) -> None:
    lease = mesh.claim(request(1, ttl_s=60, memory_ttl_s=120))
    address = IPv4Address("192.0.2.77")
    renewed = renew(mesh, lease, node_address=address, ttl_s=300, memory_ttl_s=600)
    assert mesh.snapshot().leases == (renewed,)
    assert renewed.node_address == address
    assert (mesh.client.time_to_live_s(renewed.etcd_lease_id) or 0) > 200
    assert mesh.client.time_to_live_s(lease.etcd_lease_id) is None
    memory = mesh.client.range(mesh.keys.of(MEMORY, host(1))).records[0]
    assert (mesh.client.time_to_live_s(memory.lease_id) or 0) > 500


def test_renewal_goes_on_from_what_the_host_itself_wrote_meanwhile(mesh: Registry) -> None:
    lease = mesh.claim(request(1))
    newer = renew(mesh, lease, host_name="newer", memory_ttl_s=_MEMORY_S)
    again = renew(mesh, lease, host_name="again", memory_ttl_s=_MEMORY_S)
    assert again.mod_revision > newer.mod_revision
    assert mesh.snapshot().leases == (again,)


def test_release_gives_back_lease_and_heartbeat_keeps_memory_and_can_be_repeated(
    mesh: Registry,
) -> None:
    lease = mesh.claim(request(1))
    mesh.heartbeat(_beat(lease), 30)
    assert mesh.release(host(1)) == lease.subnet
    view = mesh.snapshot()
    assert (view.leases, dict(view.heartbeats)) == ((), {})
    assert view.memory == {host(1): lease.subnet}
    assert mesh.client.time_to_live_s(lease.etcd_lease_id) is None
    assert mesh.release(host(1)) is None


def test_promise_4_in_a_replaced_etcd_only_holders_get_a_subnet_for_a_while(
    shared_etcd: Etcd, prefix: str
) -> None:
    with registry(shared_etcd, prefix=prefix) as mesh:
        mesh.create_config(config(), grace_s=2)
        with pytest.raises(GraceError):
            mesh.claim(request(9))
        held = IPv4Network("10.70.0.0/16")
        assert mesh.claim(request(1, wanted=held, registering=True)).subnet == held
        with pytest.raises(GraceError):
            mesh.claim(request(2, wanted=held, registering=True))  # held after all: a new one
        eventually(lambda: mesh.records().get(mesh.keys.of(GRACE)) is None, timeout_s=8)
        assert mesh.claim(request(9)).subnet != held


def test_promise_4_a_grace_time_that_is_about_to_end_is_prolonged_and_never_cut(
    mesh: Registry,
) -> None:
    def left_s() -> int:
        (mark,) = mesh.client.range(mesh.keys.of(GRACE)).records
        return mesh.client.time_to_live_s(mark.lease_id) or 0

    mesh.begin_grace(3)
    assert left_s() <= 3
    mesh.begin_grace(30)  # another host's alarm
    assert left_s() > 25
    mesh.begin_grace(3)
    assert left_s() > 25
    with pytest.raises(GraceError):
        mesh.claim(request(1))


def test_promise_4_a_grace_mark_without_an_end_is_given_one(mesh: Registry) -> None:
    mesh.client.txn("w", [], [_put(mesh.keys.of(GRACE).decode(), "{}")])
    mesh.begin_grace(2)
    eventually(lambda: not mesh.client.range(mesh.keys.of(GRACE)).records)


def test_a_heartbeat_of_another_boot_elsewhere_is_not_overwritten(mesh: Registry) -> None:
    lease = mesh.claim(request(1))
    beat = _beat(lease)
    first = mesh.heartbeat(beat, 30)
    clone = replace(beat, boot_id="c" * 32, node_address=IPv4Address("192.0.2.150"))
    with pytest.raises(IdentityInUseError) as refused:
        mesh.heartbeat(clone, 30)
    assert (refused.value.node_address, refused.value.beating) == (beat.node_address, True)
    assert mesh.snapshot().heartbeats[host(1)] == beat
    again = mesh.heartbeat(beat, 30, first.etcd_lease_id)
    assert again.etcd_lease_id == first.etcd_lease_id
    assert again.revision > first.revision
    rebooted = replace(beat, boot_id="d" * 32)
    # The same address: its own previous run.
    assert mesh.heartbeat(rebooted, 30).etcd_lease_id != first.etcd_lease_id
    mesh.heartbeat(clone, 30, cleared=frozenset({lease.node_address}))
    assert mesh.snapshot().heartbeats[host(1)] == clone


def test_promise_1_renewal_never_overwrites_what_a_clone_adopted(mesh: Registry) -> None:
    """The original was cut off from everything while a clone of its machine-id started."""
    lease = mesh.claim(request(1))
    elsewhere = IPv4Address("192.0.2.150")
    clone = replace(
        request(1),
        node_address=elsewhere,
        boot_id="c" * 32,
        cleared=frozenset({lease.node_address}),
    )
    adopted = mesh.claim(clone)
    assert adopted.subnet == lease.subnet
    with pytest.raises(IdentityInUseError, match=str(elsewhere)):
        renew(mesh, lease, memory_ttl_s=_MEMORY_S, boot_id=request(1).boot_id)
    with pytest.raises(IdentityInUseError, match=str(elsewhere)):
        mesh.claim(request(1))
    assert mesh.snapshot().leases == (adopted,)


def test_a_same_boot_or_a_same_address_is_the_hosts_own_life(mesh: Registry) -> None:
    first = mesh.claim(request(1))
    restarted = replace(request(1), node_address=IPv4Address("192.0.2.99"))  # new address
    assert mesh.claim(restarted).subnet == first.subnet
    rebooted = replace(restarted, boot_id="d" * 32)  # same address
    assert mesh.claim(rebooted).subnet == first.subnet
    assert len(mesh.snapshot().leases) == 1


def test_a_clone_that_leaves_gives_nothing_of_the_originals_back(mesh: Registry) -> None:
    lease = mesh.claim(request(1))
    beat = _beat(lease)
    beat_id = mesh.heartbeat(beat, 30).etcd_lease_id
    with pytest.raises(IdentityInUseError):
        mesh.release(host(1), "c" * 32)
    mesh.client.revoke(beat_id)
    clone = replace(beat, boot_id="c" * 32, node_address=IPv4Address("192.0.2.150"))
    mesh.clone_check.announce(
        clone, 30, 0
    )  # it was refused before, whatever the heartbeat does now
    with pytest.raises(IdentityInUseError):
        mesh.release(host(1), "c" * 32)
    assert mesh.snapshot().leases == (lease,)
    assert mesh.release(host(1), beat.boot_id) == lease.subnet


def test_a_heartbeat_ends_by_itself(mesh: Registry) -> None:
    lease = mesh.claim(request(1))
    beat_id = mesh.heartbeat(_beat(lease), 1).etcd_lease_id
    assert mesh.snapshot().heartbeats
    eventually(lambda: not mesh.snapshot().heartbeats, timeout_s=8)
    assert mesh.client.keep_alive(beat_id) == 0
    assert mesh.heartbeat(_beat(lease), 30, beat_id).etcd_lease_id != beat_id


def test_promise_4_a_snapshot_of_many_pages_is_of_one_revision(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        mesh.claim(request(number))
    monkeypatch.setattr("agent.registry.snapshot._PAGE", 3)
    real, calls = mesh.client.range, []

    def busy(*arguments: object, **more: object) -> object:
        page = real(*arguments, **more)  # type: ignore[arg-type]
        calls.append(page.revision)
        if len(calls) == 2:
            mesh.client.txn("w", [], [_put(f"{mesh.keys.prefix}/subnets/10.79.0.0-16", "{}")])
        return page

    monkeypatch.setattr(mesh.client, "range", busy)
    view = mesh.snapshot()
    assert len(calls) > 5
    assert (len(view.leases), view.set_aside) == (12, ())
    assert view.revision == calls[0]


def test_promise_8_huge_values_cost_themselves_only(mesh: Registry) -> None:
    lease = mesh.claim(request(1))
    for number in range(20):
        huge = "x" * 1_400_000
        mesh.client.txn("w", [], [_put(f"{mesh.keys.prefix}/subnets/10.65.{number}.0-24", huge)])
    view = mesh.snapshot()
    assert view.leases == (lease,)
    assert len(view.set_aside) == 20
    assert "more than 16384" in view.set_aside[0].reason


def _beat(lease: Lease) -> Heartbeat:
    assert lease.host_id is not None
    return Heartbeat(
        host_id=lease.host_id,
        host_name=lease.host_name,
        node_address=lease.node_address,
        subnet=lease.subnet,
        docker=DockerState.READY,
        agent_version="0.1.0",
        boot_id="b" * 32,
        started_s=1_700_000_000.0,
    )


def _put(key: str, value: str) -> object:
    from agent.etcd import kv  # noqa: PLC0415  # only here are records written by hand

    return kv.put(key.encode(), value.encode())
