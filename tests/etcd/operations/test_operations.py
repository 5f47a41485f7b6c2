"""The operator's verbs on a real etcd: idempotent, transactional, refusing what does harm."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.errors import ClaimConflict, MeshConfigError, Refused
from agent.etcd import kv
from agent.mesh.config_change import ConfigWish, wished_config
from agent.model import DockerState, Heartbeat, MeshConfig
from agent.model.family import within
from agent.registry.operations.config_change import ConfigChange, change_config
from agent.registry.operations.host_removal import remove_host
from agent.registry.operations.hosts import HostRef, find_host
from agent.registry.operations.reservations import reserve, unreserve
from agent.registry.records import CONFIG, LEASES
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import config, host, renew, request

pytestmark = pytest.mark.etcd

_SUBNET = IPv4Network("10.70.0.0/16")


def test_reserve_is_for_one_host_and_can_be_repeated_and_ended(mesh: Registry) -> None:
    reserve(mesh, host(1), _SUBNET)
    reserve(mesh, host(1), _SUBNET)
    assert mesh.snapshot().reservations == {_SUBNET: host(1)}
    with pytest.raises(ClaimConflict, match="reserved for host"):
        reserve(mesh, host(2), _SUBNET)
    assert mesh.claim(request(2, wanted=_SUBNET)).subnet != _SUBNET
    assert mesh.claim(request(1)).subnet == _SUBNET
    assert unreserve(mesh, _SUBNET)
    assert not unreserve(mesh, _SUBNET)
    assert mesh.snapshot().lease_of(host(1)) is not None


def test_a_host_that_joins_anew_takes_what_is_reserved_for_it(mesh: Registry) -> None:
    had = mesh.claim(request(1)).subnet
    kept = next(each for each in config("10.64.0.0/12").cidr.subnets(new_prefix=16) if each != had)
    reserve(mesh, host(1), kept)
    assert mesh.claim(request(1, wanted=had)).subnet == had, "promise 2: it holds that one"
    mesh.release(host(1))
    assert mesh.claim(request(1, wanted=had, only_wanted=True)).subnet == had, "it is in use"
    mesh.release(host(1))
    assert mesh.claim(request(1, wanted=had)).subnet == kept


def test_reserve_refuses_what_others_hold_and_what_is_not_of_the_mesh(mesh: Registry) -> None:
    mesh.claim(request(1, wanted=_SUBNET))
    reserve(mesh, host(1), _SUBNET)  # what the host itself holds may be made lasting
    for subnet in ("10.70.0.0/16", "10.70.3.0/24", "10.68.0.0/14"):
        with pytest.raises(ClaimConflict):
            reserve(mesh, host(2), IPv4Network(subnet))
    with pytest.raises(MeshConfigError):
        reserve(mesh, host(2), IPv4Network("10.99.0.0/16"))


def test_promise_1_reserve_loses_against_a_claim_made_meanwhile(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = iter([mesh.records()])
    mesh.claim(request(2, wanted=_SUBNET))
    real = mesh.records
    monkeypatch.setattr(mesh, "records", lambda: next(before, None) or real())
    with pytest.raises(ClaimConflict, match="held by host2"):
        reserve(mesh, host(1), _SUBNET)


def test_remove_refuses_a_live_host_and_takes_everything_of_a_dead_one(mesh: Registry) -> None:
    lease = mesh.claim(request(1))
    beat = Heartbeat(
        host_id=host(1),
        host_name="host1",
        node_address=lease.node_address,
        subnet=lease.subnet,
        docker=DockerState.READY,
        agent_version="0.1.0",
        boot_id="b",
        started_s=0.0,
    )
    beat_id = mesh.heartbeat(beat, 30).etcd_lease_id
    with pytest.raises(Refused, match=r"host1 .* is alive"):
        remove_host(mesh, HostRef(host_id=host(1)))
    assert mesh.snapshot().leases == (lease,)
    mesh.client.revoke(beat_id)
    assert remove_host(mesh, HostRef(host_id=host(1))) == (lease.subnet,)
    view = mesh.snapshot()
    assert (view.leases, dict(view.memory), dict(view.heartbeats)) == ((), {}, {})
    assert remove_host(mesh, HostRef(host_id=host(1))) == ()
    mesh.claim(request(1))
    mesh.heartbeat(beat, 30)
    assert remove_host(mesh, HostRef(host_id=host(1)), force=True)


def test_a_host_is_found_by_id_name_address_or_subnet(mesh: Registry) -> None:
    lease = mesh.claim(request(1))
    mesh.claim(request(2))
    view = mesh.snapshot()
    for text in (host(1), host(1)[:8], "host1", str(lease.node_address), str(lease.subnet)):
        assert find_host(view, text).host_id == host(1)
    for text in ("", "unknown", host(7)):
        with pytest.raises(Refused, match="no host"):
            find_host(view, text)
    assert find_host(view, host(7), unknown=True).host_id == host(7)


def test_a_name_that_two_hosts_have_is_refused_with_both(mesh: Registry) -> None:
    for number in (1, 2):
        mesh.claim(replace(request(number), host_name="web"))
    with pytest.raises(Refused) as caught:
        find_host(mesh.snapshot(), "web")
    for each in (host(1), host(2), "192.0.2.2", "192.0.2.3"):
        assert each in str(caught.value)


def test_a_flannel_host_is_removed_by_its_address_and_by_force_only(mesh: Registry) -> None:
    key = mesh.keys.of(LEASES, _SUBNET)
    value = b'{"PublicIP":"192.0.2.77","BackendType":"host-gw"}'
    mesh.client.txn("as flannel does", [], [kv.put(key, value)])
    flannel = find_host(mesh.snapshot(), "192.0.2.77")
    assert flannel.host_id is None
    with pytest.raises(Refused, match="may be alive"):
        remove_host(mesh, flannel)
    assert remove_host(mesh, flannel, force=True, dry=True) == (_SUBNET,)
    assert mesh.snapshot().leases
    assert remove_host(mesh, flannel, force=True) == (_SUBNET,)
    assert mesh.snapshot().leases == ()


def test_dry_runs_write_nothing(mesh: Registry) -> None:
    lease = mesh.claim(request(1))
    before = mesh.snapshot()
    assert reserve(mesh, host(2), IPv4Network("10.71.0.0/16"), dry=True)
    assert remove_host(mesh, HostRef(host_id=host(1)), dry=True) == (lease.subnet,)
    assert set_config(mesh, config("10.64.0.0/10"), dry=True).changed
    assert mesh.snapshot() == before


def test_promise_1_config_set_sees_a_lease_that_came_after_it_looked(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shrinking while a host joins outside: the transaction fails, the second look refuses."""
    early = mesh.records()
    mesh.claim(request(1, wanted=_SUBNET))
    looks = iter([early])
    real = mesh.records
    monkeypatch.setattr(mesh, "records", lambda: next(looks, None) or real())
    with pytest.raises(Refused, match=r"10\.70\.0\.0/16 is not a part"):
        set_config(mesh, config("10.64.0.0/14"))
    assert mesh.snapshot().config == early.view().config


def test_a_renewal_does_not_hold_up_config_set(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = mesh.claim(request(1, wanted=_SUBNET))
    early = mesh.records()
    renew(mesh, lease, memory_ttl_s=60)
    monkeypatch.setattr(mesh, "records", lambda: early)
    assert set_config(mesh, config("10.64.0.0/13")).changed


def test_a_move_keeps_the_old_cidr_until_its_last_lease_is_gone(mesh: Registry) -> None:
    old = mesh.claim(request(1))
    new, moving = (
        IPv4Network("10.32.0.0/12"),
        ConfigWish(cidr=IPv4Network("10.32.0.0/12"), move=True),
    )
    change = change_config(mesh, lambda now: wished_config(now, moving) if now else config())
    assert (change.after.cidr, change.after.previous) == (new, (IPv4Network("10.64.0.0/12"),))
    assert change.not_moved == (old,)
    assert '"Previous":["10.64.0.0/12"]' in _text(mesh)
    assert mesh.snapshot().leases == (old,)
    assert within(mesh.claim(request(2)).subnet, new)
    finish = ConfigWish(finish=True)
    with pytest.raises(Refused, match=str(old.subnet)):
        change_config(mesh, lambda now: wished_config(now, finish) if now else config())
    mesh.release(host(1))
    done = change_config(mesh, lambda now: wished_config(now, finish) if now else config())
    assert done.after.previous == ()
    assert "Hostmesh" not in _text(mesh)


def test_config_set_enlarges_a_running_mesh_and_keeps_unknown_fields(mesh: Registry) -> None:
    lease = mesh.claim(request(1))
    found, text = mesh.snapshot().config, _text(mesh)
    assert found is not None
    assert '"SubnetLen":16' in text
    _write(mesh, text.replace("{", '{"Flannels":"own",', 1))
    larger = replace(
        found,
        cidr=IPv4Network("10.64.0.0/10"),
        subnet_len=20,
        subnet_max=IPv4Address("10.127.240.0"),
    )
    changed = set_config(mesh, larger)
    assert changed.changed
    again = set_config(mesh, larger)
    assert not again.changed
    assert again.after == changed.after == mesh.snapshot().config
    assert '"Flannels":"own"' in _text(mesh)
    assert mesh.snapshot().leases == (lease,)
    assert mesh.claim(request(2)).subnet.prefixlen == 20


def test_config_set_refuses_what_would_leave_somebody_outside(mesh: Registry) -> None:
    mesh.claim(request(1, wanted=_SUBNET))
    with pytest.raises(Refused, match=r"10\.70\.0\.0/16 is not a part"):
        set_config(mesh, config("10.96.0.0/12"))
    near = replace(request(2), node_address=IPv4Address("10.200.0.1"))
    mesh.claim(near)
    with pytest.raises(Refused, match=r"10\.200\.0\.1 is inside"):
        set_config(mesh, config("10.0.0.0/8"))
    with pytest.raises(MeshConfigError, match="four"):
        set_config(mesh, config("10.64.0.0/15"))
    mesh.release(host(1))
    mesh.release(host(2))
    reserve(mesh, host(1), _SUBNET)
    with pytest.raises(Refused, match="reservation"):
        set_config(mesh, config("10.96.0.0/12"))


def _beat(mesh: Registry, number: int, level: int) -> None:
    address = IPv4Address(f"192.0.2.{number}")
    heartbeat = Heartbeat(
        host_id=host(number),
        host_name=f"host{number}",
        node_address=address,
        subnet=None,
        docker=DockerState.READY,
        agent_version="0.1.1",
        boot_id="b",
        started_s=1.0,
        level=level,
    )
    mesh.heartbeat(heartbeat, 60)


def test_promise_12_config_set_refuses_a_level_that_some_host_cannot_read(mesh: Registry) -> None:
    mesh.claim(request(9))  # without a heartbeat: it shows its level when it is back
    for number, level in ((1, 2), (2, 1), (3, 1)):
        _beat(mesh, number, level)
    higher = replace(config("10.64.0.0/12"), level=2)
    named = r"level 2 cannot be read by host2 \(level 1\), host3 \(level 1\)"
    with pytest.raises(Refused, match=named):
        set_config(mesh, higher)
    assert "Level" not in _text(mesh)
    for number in (2, 3):
        remove_host(mesh, HostRef(host_id=host(number)), force=True)
    assert set_config(mesh, higher).changed
    assert '"Hostmesh":{"Level":2' in _text(mesh)
    _beat(mesh, 2, 1)
    wider = replace(higher, cidr=IPv4Network("10.64.0.0/11"))
    assert set_config(mesh, wider).after.level == 2, "it has that level already"
    with pytest.raises(MeshConfigError, match="this version reads up to 3"):
        set_config(mesh, replace(higher, level=4))
    assert set_config(mesh, replace(wider, level=1)).changed
    assert "Level" not in _text(mesh)


def test_names_need_the_level_at_which_hosts_publish_endpoints(mesh: Registry) -> None:
    wished = replace(config("10.64.0.0/12"), level=2, domain="mesh.example")
    with pytest.raises(Refused, match="names need level 3 and the config has level 2"):
        set_config(mesh, wished)
    assert set_config(mesh, replace(wished, level=3)).after.domain == "mesh.example"
    assert '"Names":"mesh.example"' in _text(mesh)
    with pytest.raises(Refused, match="names need level 3"):
        set_config(mesh, wished)
    assert set_config(mesh, replace(wished, domain="")).after.domain == ""
    assert "Names" not in _text(mesh)


def test_config_set_repairs_garbage(mesh: Registry) -> None:
    _write(mesh, "garbage")
    set_config(mesh, config("10.64.0.0/12"))
    assert mesh.snapshot().config is not None


def set_config(mesh: Registry, wished: MeshConfig, **more: bool) -> ConfigChange:
    return change_config(mesh, lambda _now: wished, **more)


def _text(mesh: Registry) -> str:
    """Return the config as it is in etcd."""
    record = mesh.records().get(mesh.keys.of(CONFIG))
    assert record is not None
    return record.value.decode()


def _write(mesh: Registry, text: str) -> None:
    mesh.client.txn("w", [], [kv.put(mesh.keys.of(CONFIG), text.encode())])
