"""Claiming, on a real etcd."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from agent.errors import ClaimConflict, NoFreeSubnet
from agent.etcd import kv
from agent.model import View
from agent.model.family import Network, within
from agent.registry.records import CONFIG, MEMORY, RESERVATIONS, encode_config, encode_reservation
from agent.registry.registry import IdentityInUseError, Registry
from tests.etcd.support.etcdlab import Etcd, Heard, config, host, registry, request
from tests.waiting import eventually

pytestmark = pytest.mark.etcd

_MEMORY_S = 3600
_FLANNEL = '{"PublicIP":"192.0.2.200","PublicIPv6":null,"BackendType":"host-gw"}'


def _overlaps(view: View) -> list[tuple[Network, Network]]:
    subnets = [lease.subnet for lease in view.leases]
    return [(a, b) for a in subnets for b in subnets if str(a) < str(b) and a.overlaps(b)]


def test_a_claim_writes_lease_and_memory_and_is_seen_in_a_view(mesh: Registry) -> None:
    lease = mesh.claim(request(1, ttl_s=60, memory_ttl_s=_MEMORY_S))
    view = mesh.snapshot()
    assert view.leases == (lease,)
    assert view.memory == {host(1): lease.subnet}
    assert mesh.client.time_to_live_s(lease.etcd_lease_id) in range(50, 61)


def test_promise_1_every_subnet_can_be_claimed_and_then_refusal_says_who_holds_them(
    mesh: Registry,
) -> None:
    leases = [mesh.claim(request(number)) for number in range(16)]
    assert len({lease.subnet for lease in leases}) == 16
    assert not _overlaps(mesh.snapshot())
    with pytest.raises(NoFreeSubnet) as refused:
        mesh.claim(request(16))
    assert "16 are held" in refused.value.message
    assert f"{leases[0].subnet}, held by host0 at 192.0.2.1" in refused.value.message
    assert "agentctl remove" in refused.value.hint


def test_promise_2_the_same_host_gets_the_same_subnet_in_a_rebuilt_mesh(
    shared_etcd: Etcd, prefix: str
) -> None:
    found = []
    for run in ("one", "two"):
        with registry(shared_etcd, prefix=f"{prefix}/{run}") as mesh:
            mesh.create_config(config())
            found.append(mesh.claim(request(7)).subnet)
    assert found[0] == found[1]


def test_promise_2_a_host_that_claims_again_keeps_its_subnet_with_new_address_and_name(
    mesh: Registry,
) -> None:
    first = mesh.claim(request(1))
    moved = replace(
        request(1), node_address=IPv4Address("192.0.2.99"), host_name="renamed", boot_id="f" * 32
    )
    with pytest.raises(IdentityInUseError) as refused:  # it could be a clone's
        mesh.claim(moved)
    assert (refused.value.node_address, refused.value.beating) == (first.node_address, False)
    assert mesh.snapshot().leases == (first,)
    second = mesh.claim(replace(moved, cleared=frozenset({first.node_address})))
    assert second.subnet == first.subnet
    assert second.create_revision == first.create_revision
    assert second.claimed_s == first.claimed_s
    seen = mesh.snapshot().leases
    assert [(each.node_address, each.host_name) for each in seen] == [
        (IPv4Address("192.0.2.99"), "renamed")
    ]


def test_promise_2_a_subnet_of_the_last_30_days_is_taken_last_by_others(mesh: Registry) -> None:
    past = mesh.claim(request(0)).subnet
    mesh.release(host(0))
    others = [mesh.claim(request(number)).subnet for number in range(1, 16)]
    assert past not in others
    assert mesh.claim(request(0)).subnet == past
    mesh.release(host(0))
    assert mesh.claim(request(99)).subnet == past  # now the only one left


def test_promise_2_the_wanted_subnet_is_taken_when_it_is_free(mesh: Registry) -> None:
    wanted = IPv4Network("10.70.0.0/16")
    assert mesh.claim(request(1, wanted=wanted)).subnet == wanted
    assert mesh.claim(request(2, wanted=wanted)).subnet != wanted
    with pytest.raises(ClaimConflict, match=r"held by host1 at 192\.0\.2\.2"):
        mesh.claim(request(3, wanted=wanted, only_wanted=True))


def test_what_the_host_itself_sees_is_skipped(mesh: Registry) -> None:
    avoid = (IPv4Network("10.64.0.0/13"), IPv4Network("10.72.3.0/24"))
    for number in range(7):
        lease = mesh.claim(request(number, avoid=avoid))
        assert not any(lease.subnet.overlaps(each) for each in avoid)
    with pytest.raises(NoFreeSubnet, match="2 networks seen by this host"):
        mesh.claim(request(7, avoid=avoid))


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("subnets", "10.70.128.0-17"),
        ("subnets", "10.70.7.0-24"),
        ("subnets", "10.68.0.0-14"),
        ("subnets", "10.70.0.0-16&fc00:1::-64"),
        ("subnets", "10.68.0.0-14&fc00:1::-64"),
        ("reservations", "10.70.0.0-16"),
        ("reservations", "10.70.128.0-17"),
        ("reservations", "10.68.0.0-14"),
    ],
)
def test_promise_1_overlap_of_any_length_is_refused_inside_the_transaction(
    mesh: Registry, kind: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record appears after the claim's snapshot, so that only the compares can see it."""
    value = _FLANNEL if kind == "subnets" else encode_reservation(host(50)).decode()
    records = mesh.records()
    mesh.client.txn("w", [], [_put(f"{mesh.keys.prefix}/{kind}/{key}", value)])
    reads = iter([records])
    monkeypatch.setattr(mesh._claims, "_read", lambda: next(reads, None) or mesh.records())
    wanted = IPv4Network("10.70.0.0/16")
    with pytest.raises(ClaimConflict):
        mesh.claim(request(1, wanted=wanted, only_wanted=True))
    assert not [lease for lease in mesh.snapshot().leases if lease.host_id]


def test_promise_10_a_loser_goes_on_to_its_next_candidate_without_listing_again(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but one of sixteen subnets went to others after it looked."""
    records = mesh.records()
    first = mesh.claim(request(1)).subnet  # what it would like best
    mesh.release(host(1))
    mesh.client.txn("w", [], [kv.delete(mesh.keys.of(MEMORY, host(1)))])
    for number in range(2, 17):
        wanted = first if number == 2 else None
        mesh.claim(request(number, wanted=wanted))
    reads, tries = [records], Heard()
    real = mesh.client.txn

    def counted(action: str, *parts: Any) -> kv.TxnResult:  # noqa: ANN401 - handed on
        if action.startswith("claim "):
            tries(action)
        return real(action, *parts)

    monkeypatch.setattr(mesh._claims, "_read", reads.pop)
    monkeypatch.setattr(mesh.client, "txn", counted)
    lease = mesh.claim(request(1))
    assert lease.subnet != first
    assert len(tries) == 2


def test_promise_1_a_claim_does_not_rest_on_a_config_that_has_changed(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = mesh.records()
    smaller = encode_config(config("10.96.0.0/12"))
    mesh.client.txn("w", [], [_put(mesh.keys.of(CONFIG).decode(), smaller.decode())])
    reads = iter([records])
    monkeypatch.setattr(mesh._claims, "_read", lambda: next(reads, None) or mesh.records())
    assert within(mesh.claim(request(1)).subnet, IPv4Network("10.96.0.0/12"))


def test_promise_1_a_claim_given_up_on_that_arrives_late_does_not_give_a_second_lease(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes of one host: the second's snapshot is from before the first's claim."""
    records = mesh.records()
    first = mesh.claim(request(1, wanted=IPv4Network("10.70.0.0/16")))
    reads = iter([records])
    monkeypatch.setattr(mesh._claims, "_read", lambda: next(reads, None) or mesh.records())
    second = mesh.claim(request(1, wanted=IPv4Network("10.71.0.0/16")))
    assert second.subnet == first.subnet
    assert len(mesh.snapshot().leases) == 1


def test_a_claim_whose_answer_was_lost_is_recognised_as_won(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = mesh.client.txn

    def twice(*arguments: object) -> object:
        real(*arguments)  # type: ignore[arg-type]
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(mesh.client, "txn", twice)
    lease = mesh.claim(request(1))
    monkeypatch.undo()
    assert mesh.snapshot().leases == (lease,)
    assert mesh.client.time_to_live_s(lease.etcd_lease_id) is not None


def test_a_reserved_subnet_goes_to_its_host_and_to_nobody_else(mesh: Registry) -> None:
    reserved = IPv4Network("10.79.0.0/16")
    key = mesh.keys.of(RESERVATIONS, reserved).decode()
    mesh.client.txn("w", [], [_put(key, encode_reservation(host(5)).decode())])
    for number in range(10, 25):
        assert mesh.claim(request(number)).subnet != reserved
    with pytest.raises(NoFreeSubnet, match="1 reserved"):
        mesh.claim(request(25))
    assert mesh.claim(request(5)).subnet == reserved


def test_an_expired_lease_frees_the_subnet_and_the_owner_gets_it_again(mesh: Registry) -> None:
    lease = mesh.claim(request(1, ttl_s=1))
    eventually(lambda: not mesh.snapshot().leases, timeout_s=8)
    assert mesh.claim(request(1)).subnet == lease.subnet


def test_the_lease_of_flannel_on_this_host_is_taken_over_with_its_subnet(mesh: Registry) -> None:
    key = f"{mesh.keys.prefix}/subnets/10.66.0.0-16"
    mesh.client.txn("w", [], [_put(key, _FLANNEL)])
    lease = mesh.claim(replace(request(1), node_address=IPv4Address("192.0.2.200")))
    assert lease.subnet == IPv4Network("10.66.0.0/16")
    assert mesh.snapshot().lease_of(host(1)) == lease


def test_promise_1_an_overlap_made_by_flannel_is_set_aside_and_the_older_lease_used(
    mesh: Registry,
) -> None:
    lease = mesh.claim(request(1, wanted=IPv4Network("10.66.0.0/16")))
    mesh.client.txn("w", [], [_put(f"{mesh.keys.prefix}/subnets/10.66.9.0-24", _FLANNEL)])
    view = mesh.snapshot()
    assert view.leases == (lease,)
    assert [each.reason for each in view.set_aside] == ["it overlaps the older lease 10.66.0.0/16"]


def _put(key: str, value: str) -> object:
    from agent.etcd import kv  # noqa: PLC0415  # only here are records written by hand

    return kv.put(key.encode(), value.encode())
