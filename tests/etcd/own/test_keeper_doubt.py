"""A host writes again what it held, and no more, if etcd lost it or is in doubt."""

from __future__ import annotations

import contextlib
import os
import random
import time
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from agent.errors import EtcdUnavailable
from agent.etcd import kv
from agent.model import Condition, Lease, View
from agent.registry import trust
from agent.registry.directory import Directory
from agent.registry.own.keeper import Keeper
from agent.registry.records import CONFIG
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import Etcd, Heard, config, host, registry, request
from tests.etcd.support.keeping import REGISTRATION, SHORT, condition, held, keep
from tests.waiting import eventually

pytestmark = pytest.mark.etcd


def test_a_deleted_lease_is_claimed_again_at_once_with_the_same_subnet(mesh: Registry) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        mesh.client.revoke(lease.etcd_lease_id)
        again = eventually(lambda: mesh.snapshot().lease_of(host(1)), timeout_s=3)
        assert (again.subnet, again.etcd_lease_id) != (lease.subnet, lease.etcd_lease_id)
        assert again.subnet == lease.subnet


@pytest.mark.parametrize("kind", ["hosts", "memory", "subnets"])
def test_a_key_that_is_deleted_while_its_etcd_lease_lives_is_written_again(
    mesh: Registry, shared_etcd: Etcd, kind: str
) -> None:
    """Keeping the etcd lease alive goes on as if nothing were missing."""
    heard = Heard()
    with keep(mesh, heard, settings=replace(SHORT, ttl_s=86_400)) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        eventually(lambda: mesh.snapshot().heartbeats.get(host(1)))
        shared_etcd.ctl("del", "--prefix", f"{mesh.keys.prefix}/{kind}/")

        def whole() -> bool:
            view = mesh.snapshot()
            known = host(1) in view.heartbeats and view.memory.get(host(1)) == lease.subnet
            return known and lease.subnet in view.by_subnet

        eventually(whole, timeout_s=3)
        assert len(mesh.snapshot().leases) == 1


def test_a_wiped_prefix_is_filled_again_and_then_left_alone(
    mesh: Registry, shared_etcd: Etcd
) -> None:
    heard = Heard()
    with keep(mesh, heard, settings=replace(SHORT, ttl_s=86_400)) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        eventually(lambda: mesh.snapshot().heartbeats.get(host(1)))
        shared_etcd.ctl("del", "--prefix", f"{mesh.keys.prefix}/")
        mesh.create_config(config("10.64.0.0/12"))
        eventually(lambda: mesh.snapshot().lease_of(host(1)), timeout_s=5)
        eventually(lambda: mesh.snapshot().heartbeats.get(host(1)), timeout_s=5)
        assert heard.last[0].subnet == lease.subnet
        time.sleep(1.0)  # what is still to be written
        before = _written(mesh)
        time.sleep(1.5)
        assert _written(mesh) == before


def test_promise_4_a_doubt_outlives_an_error_in_between(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that an alarm registers again is written even if etcd fails just then."""
    heard, failures = Heard(), iter(range(3))
    with keep(mesh, heard, settings=replace(SHORT, ttl_s=86_400)) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        eventually(lambda: mesh.snapshot().heartbeats.get(host(1)))
        real = mesh.renew

        def failing(*arguments: Any, **more: Any) -> Lease:  # noqa: ANN401  # handed on
            if next(failures, None) is not None:
                raise EtcdUnavailable("just now")
            return real(*arguments, **more)

        monkeypatch.setattr(mesh, "renew", failing)
        keeper.hold()
        eventually(
            lambda: mesh.snapshot().by_subnet[lease.subnet].mod_revision > lease.mod_revision
        )


def test_a_repair_that_etcd_refuses_for_a_while_is_not_called_overwritten_again(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, refused = Heard(), []
    with keep(mesh, heard, settings=replace(SHORT, ttl_s=86_400)) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        eventually(lambda: mesh.snapshot().heartbeats.get(host(1)))
        past = replace(lease, mod_revision=lease.mod_revision - 1)
        denial = replace(mesh.snapshot(), leases=(past,))

        def failing(*_arguments: Any, **_more: Any) -> Lease:  # noqa: ANN401  # as renew takes them
            refused.append(lease)
            raise EtcdUnavailable("just now")

        def is_refused_often() -> bool:
            keeper.notice(denial)
            return len(refused) >= 5

        with monkeypatch.context() as patched:
            patched.setattr(mesh, "renew", failing)
            eventually(is_refused_often)
        eventually(lambda: heard.last[0].mod_revision > lease.mod_revision)
        assert not any(found for _, found, _ in heard.items)


def test_promise_4_a_record_from_before_a_restore_is_written_again(mesh: Registry) -> None:
    """By now etcd counts past where it was: no revision went back for anybody to see."""
    heard = Heard()
    with keep(mesh, heard, settings=replace(SHORT, ttl_s=86_400)) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))
        eventually(lambda: mesh.snapshot().heartbeats.get(host(1)))
        past = replace(lease, mod_revision=lease.mod_revision - 1)
        keeper.notice(replace(mesh.snapshot(), leases=(past,)))
        eventually(
            lambda: mesh.snapshot().by_subnet[lease.subnet].mod_revision > lease.mod_revision
        )


def test_promise_3_however_often_a_key_is_deleted_it_is_back_within_the_grace_time(
    mesh: Registry, shared_etcd: Etcd
) -> None:
    """A mesh that was wiped several times in a minute: peers hold its routes for that time."""
    heard, grace_s = Heard(), 1.0
    settings = replace(SHORT, ttl_s=86_400, empty_cluster_grace_s=grace_s)
    with keep(mesh, heard, settings=settings) as keeper:
        keeper.update(REGISTRATION)
        lease = eventually(held(heard))

        def is_back() -> bool:
            return lease.subnet in mesh.snapshot().by_subnet

        for _ in range(8):
            shared_etcd.ctl("del", "--prefix", f"{mesh.keys.prefix}/subnets/")
            eventually(is_back, timeout_s=grace_s)


def test_promise_10_a_view_that_goes_on_to_deny_the_lease_costs_few_writes(
    mesh: Registry,
) -> None:
    """If views keep showing it missing, a fault elsewhere must not make a host write on and on."""
    heard = Heard()
    with keep(mesh, heard, settings=replace(SHORT, ttl_s=86_400)) as keeper:
        keeper.update(REGISTRATION)
        eventually(held(heard))
        eventually(lambda: mesh.snapshot().heartbeats.get(host(1)))
        before = mesh.snapshot().revision
        until_s = time.monotonic() + 4
        while time.monotonic() < until_s:
            view = mesh.snapshot()
            keeper.notice(replace(view, leases=(), heartbeats={}))
            time.sleep(0.02)
        # About five looks of two writes (0.2 s, doubled each time); the store is shared.
        assert mesh.snapshot().revision - before <= 30


def test_promise_4_on_hold_only_what_was_held_is_registered_again(mesh: Registry) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.hold()
        keeper.update(REGISTRATION)
        eventually(lambda: condition(heard) == "claims-held-back")
        assert mesh.snapshot().leases == ()
        wanted = IPv4Network("10.70.0.0/16")
        keeper.update(replace(REGISTRATION, wanted_subnet=wanted))
        lease = eventually(held(heard))
        assert lease.subnet == wanted


def test_promise_4_a_claim_held_back_goes_ahead_when_the_alarm_ends(mesh: Registry) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.hold()
        keeper.update(REGISTRATION)
        eventually(lambda: condition(heard) == "claims-held-back")
        keeper.resume()
        eventually(held(heard))


def _written(mesh: Registry) -> dict[bytes, int]:
    """When each key was written last."""
    whole = mesh.keys.everything
    return {
        each.key: each.mod_revision for each in mesh.client.range(whole.start, whole.end).records
    }


def test_promises_1_and_2_whatever_is_deleted_is_there_again_and_nobody_has_anothers(
    mesh: Registry,
) -> None:
    """Keys, and etcd leases under them, are taken away at random from hosts that live."""
    chance = random.Random(os.environ.get("HOSTMESH_TEST_SEED", "1"))  # noqa: S311 - a test's
    heard = [Heard() for _ in range(4)]
    with contextlib.ExitStack() as stack:
        for number, each in enumerate(heard):
            keeper = stack.enter_context(
                keep(
                    mesh, each, host_id=host(number), boot_id=f"{number:032x}",
                    settings=replace(SHORT, ttl_s=86_400),
                )
            )  # fmt: skip
            keeper.update(
                replace(
                    REGISTRATION,
                    node_address=request(number).node_address,
                    host_name=f"host{number}",
                )
            )
        subnets = [eventually(held(each)).subnet for each in heard]
        whole = mesh.keys.everything
        until_s = time.monotonic() + 3
        while time.monotonic() < until_s:
            records = mesh.client.range(whole.start, whole.end).records
            ours = [each for each in records if each.key != mesh.keys.of(CONFIG)]
            for record in chance.sample(ours, chance.randint(0, len(ours))):
                if chance.choice((True, False, False)):
                    mesh.client.revoke(record.lease_id)
                else:
                    mesh.client.txn("w", [], [kv.delete(record.key)])
            time.sleep(chance.random() * 0.4)

        def all_there() -> bool:
            view = mesh.snapshot()
            return (
                {host(number): subnet for number, subnet in enumerate(subnets)}
                == {each.host_id: each.subnet for each in view.leases}
                == dict(view.memory)
                == {each.host_id: each.subnet for each in view.heartbeats.values()}
            )

        eventually(all_there, timeout_s=20)
        assert [each.last[0].subnet for each in heard] == subnets


class _Host:
    """A host as far as leases go: believes views or raises the alarm, as the daemon does."""

    def __init__(self, etcd: Etcd, stack: contextlib.ExitStack, number: int) -> None:
        self.heard = Heard()
        self.believed: View | None = None
        self.alarm = False
        mesh = stack.enter_context(registry(etcd))
        self.mesh = mesh
        self.registration = replace(
            REGISTRATION, node_address=request(number).node_address, host_name=f"host{number}"
        )
        self.keeper = Keeper(
            mesh,
            host_id=host(number),
            boot_id=f"{number:032x}",
            agent_version="0.1.0",
            settings=SHORT,
            on_lease=self._on_lease,
        )
        directory = Directory(mesh, self._on_view, Heard())
        stack.callback(self.keeper.stop)
        stack.callback(directory.stop)
        self.keeper.start()
        directory.start()
        self.keeper.update(self.registration)

    def _on_lease(
        self, lease: Lease | None, conditions: tuple[Condition, ...], _former: Lease | None
    ) -> None:
        self.heard(lease, conditions)
        if lease is not None and self.registration.wanted_subnet is None:
            self.registration = replace(
                self.registration, wanted_subnet=lease.subnet, may_change_subnet=False
            )
            self.keeper.update(self.registration)

    def _on_view(self, view: View) -> None:
        if trust.judge(self.believed, view).alarm:
            self.alarm = True
            self.keeper.hold()
            if view.config is None and self.believed is not None and self.believed.config:
                self.mesh.create_config(self.believed.config, grace_s=3)
        else:
            self.believed = view
        self.keeper.notice(view)

    @property
    def subnet(self) -> IPv4Network | None:
        lease = self.heard.last[0] if self.heard.last else None
        return lease.subnet if lease else None


@pytest.mark.parametrize("brings_config", [False, True], ids=["", "[mesh]"])
def test_promise_4_etcd_replaced_by_an_empty_one_with_a_fifth_host_joining_at_once(
    etcd: Etcd, brings_config: bool
) -> None:
    """Every holder registers what it held; the joiner waits and takes no other host's subnet."""
    with contextlib.ExitStack() as stack:
        first = _Host(etcd, stack, 0)
        eventually(lambda: condition(first.heard) == "mesh-config-missing")
        first.mesh.create_config(config("10.64.0.0/14"))  # four subnets for four hosts
        hosts = [first, *(_Host(etcd, stack, number) for number in range(1, 4))]
        eventually(lambda: all(each.subnet for each in hosts))
        before = [each.subnet for each in hosts]
        eventually(lambda: all(each.believed and len(each.believed.leases) == 4 for each in hosts))
        etcd.kill()
        etcd.wipe()
        etcd.arguments += ["--initial-cluster-token", "another"]
        etcd.start()
        etcd.wait_healthy(first.mesh.client)
        if brings_config:  # as agent.daemon.membership.join does
            first.mesh.create_config(config("10.64.0.0/14"), grace_s=3)
        fifth = _Host(etcd, stack, 4)
        eventually(lambda: len(first.mesh.snapshot().leases) == 4, timeout_s=20)
        eventually(lambda: all(each.alarm for each in hosts), timeout_s=20)  # each at its own time
        assert [each.subnet for each in hosts] == before
        held = {first.mesh.snapshot().lease_of(host(number)) for number in range(4)}
        assert {lease.subnet for lease in held if lease} == set(before)
        eventually(lambda: condition(fifth.heard) == "no-free-subnet", timeout_s=20)
        assert fifth.subnet is None
