"""The operator's verbs on a real etcd: idempotent, transactional, refusing what does harm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.errors import ClaimConflict, MeshConfigError, Refused
from agent.leases.operator import Operator
from agent.leases.registry import Registry
from agent.model import DockerState, Heartbeat
from tests.etcd.support.etcdlab import Etcd, config, host, registry, request

pytestmark = pytest.mark.etcd

_SUBNET = IPv4Network("10.70.0.0/16")


@pytest.fixture
def mesh(shared_etcd: Etcd, prefix: str) -> Iterator[Registry]:
    """Sixteen /16s."""
    with registry(shared_etcd, prefix=prefix) as found:
        found.create_config(config("10.64.0.0/12"))
        yield found


@pytest.fixture
def operator(mesh: Registry) -> Operator:
    return Operator(mesh)


def test_reserve_is_for_one_host_and_can_be_repeated_and_ended(
    mesh: Registry, operator: Operator
) -> None:
    operator.reserve(host(1), _SUBNET)
    operator.reserve(host(1), _SUBNET)
    assert mesh.snapshot().reservations == {_SUBNET: host(1)}
    with pytest.raises(ClaimConflict, match="reserved for host"):
        operator.reserve(host(2), _SUBNET)
    assert mesh.claim(request(2, wanted=_SUBNET)).subnet != _SUBNET
    assert mesh.claim(request(1)).subnet == _SUBNET
    assert operator.unreserve(_SUBNET)
    assert not operator.unreserve(_SUBNET)
    assert mesh.snapshot().lease_of(host(1)) is not None


def test_reserve_refuses_what_others_hold_and_what_is_not_of_the_mesh(
    mesh: Registry, operator: Operator
) -> None:
    mesh.claim(request(1, wanted=_SUBNET))
    operator.reserve(host(1), _SUBNET)  # what the host itself holds may be made lasting
    for subnet in ("10.70.0.0/16", "10.70.3.0/24", "10.68.0.0/14"):
        with pytest.raises(ClaimConflict):
            operator.reserve(host(2), IPv4Network(subnet))
    with pytest.raises(MeshConfigError):
        operator.reserve(host(2), IPv4Network("10.99.0.0/16"))


def test_promise_1_reserve_loses_against_a_claim_made_meanwhile(
    mesh: Registry, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = mesh.snapshot()
    mesh.claim(request(2, wanted=_SUBNET))
    views = iter([before])
    real = mesh.snapshot
    monkeypatch.setattr(mesh, "snapshot", lambda: next(views, None) or real())
    with pytest.raises(ClaimConflict, match="held by host2"):
        operator.reserve(host(1), _SUBNET)


def test_remove_refuses_a_live_host_and_takes_everything_of_a_dead_one(
    mesh: Registry, operator: Operator
) -> None:
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
    beat_id = mesh.heartbeat(beat, 30)
    with pytest.raises(Refused, match="host1 at"):
        operator.remove_host(host(1))
    assert mesh.snapshot().leases == (lease,)
    mesh.client.revoke(beat_id)
    assert operator.remove_host(host(1)) == (lease.subnet,)
    view = mesh.snapshot()
    assert (view.leases, dict(view.memory), dict(view.heartbeats)) == ((), {}, {})
    assert operator.remove_host(host(1)) == ()
    mesh.claim(request(1))
    mesh.heartbeat(beat, 30)
    assert operator.remove_host(host(1), force=True)


def test_a_host_is_found_by_id_name_address_or_subnet(mesh: Registry, operator: Operator) -> None:
    lease = mesh.claim(request(1))
    mesh.claim(request(2))
    for text in (host(1), host(1)[:8], "host1", str(lease.node_address), str(lease.subnet)):
        assert operator.find_host(text) == host(1)
    for text in ("", "nobody"):
        with pytest.raises(Refused):
            operator.find_host(text)


def test_config_set_enlarges_a_running_mesh_and_keeps_unknown_fields(
    mesh: Registry, operator: Operator
) -> None:
    lease = mesh.claim(request(1))
    found, text = operator.config_show()
    assert found is not None
    assert '"SubnetLen":16' in text
    _write(mesh, text.replace("{", '{"Flannels":"own",', 1))
    larger = replace(
        found,
        cidr=IPv4Network("10.64.0.0/10"),
        subnet_len=20,
        subnet_max=IPv4Address("10.127.240.0"),
    )
    changed = operator.config_set(larger)
    assert operator.config_set(larger) == changed == mesh.config()
    assert '"Flannels":"own"' in operator.config_show()[1]
    assert mesh.snapshot().leases == (lease,)
    assert mesh.claim(request(2)).subnet.prefixlen == 20


def test_config_set_refuses_what_would_leave_somebody_outside(
    mesh: Registry, operator: Operator
) -> None:
    mesh.claim(request(1, wanted=_SUBNET))
    with pytest.raises(Refused, match=r"10\.70\.0\.0/16 is not a part"):
        operator.config_set(config("10.96.0.0/12"))
    near = replace(request(2), node_address=IPv4Address("10.200.0.1"))
    mesh.claim(near)
    with pytest.raises(Refused, match=r"10\.200\.0\.1 is inside"):
        operator.config_set(config("10.0.0.0/8"))
    with pytest.raises(MeshConfigError, match="four"):
        operator.config_set(config("10.64.0.0/15"))
    mesh.release(host(1))
    mesh.release(host(2))
    operator.reserve(host(1), _SUBNET)
    with pytest.raises(Refused, match="reservation"):
        operator.config_set(config("10.96.0.0/12"))


def test_config_set_repairs_garbage(mesh: Registry, operator: Operator) -> None:
    _write(mesh, "garbage")
    assert operator.config_show() == (None, "garbage")
    operator.config_set(config("10.64.0.0/12"))
    assert mesh.config() is not None


def _write(mesh: Registry, text: str) -> None:
    from agent.leases import kv  # noqa: PLC0415  # only here are records written by hand

    mesh.client.txn("w", [], [kv.put(mesh.keys.config, text.encode())])
