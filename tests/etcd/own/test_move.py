"""A mesh moves to another CIDR, host by host, on a real etcd: promises 1, 2 and 3 all the way."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from agent.errors import Refused
from agent.etcd import kv
from agent.mesh.config_change import ConfigWish, wished_config
from agent.model import DockerState, Lease, MeshConfig
from agent.model.family import Network, within
from agent.registry.directory import Directory
from agent.registry.operations.config_change import change_config
from agent.registry.own.keeper import Keeper, Registration
from agent.registry.records import LEASES, encode_lease
from agent.registry.registry import LeaseLostError, Registry
from agent.settings import LeaseSettings
from tests.etcd.support.etcdlab import Etcd, Heard, config, host, registry, renew, request
from tests.waiting import eventually

pytestmark = [pytest.mark.etcd]

OLD, NEW = IPv4Network("10.64.0.0/12"), IPv4Network("10.32.0.0/12")
_REGISTRATION = Registration(
    node_address=IPv4Address("192.0.2.2"), host_name="host1", docker_state=DockerState.READY
)


def change(mesh: Registry, **wish: object) -> MeshConfig:
    def wished(now: MeshConfig | None) -> MeshConfig:
        assert now is not None
        return wished_config(now, ConfigWish(**wish))  # type: ignore[arg-type]

    return change_config(mesh, wished).after


class Host:
    """A keeper, and what it said last; the daemon's part is played by the test."""

    def __init__(self, etcd: Etcd, prefix: str, stack: contextlib.ExitStack) -> None:
        self.heard = Heard()
        self.mesh = stack.enter_context(registry(etcd, prefix=prefix))
        self.keeper = Keeper(
            self.mesh,
            host_id=host(1),
            boot_id="1" * 32,
            agent_version="0.1.0",
            settings=LeaseSettings(ttl_s=60, heartbeat_ttl_s=5, memory_ttl_s=3600),
            on_lease=self.heard,
        )
        directory = Directory(self.mesh, self.keeper.notice, Heard())
        stack.callback(self.keeper.stop)
        stack.callback(directory.stop)
        self.keeper.start()
        directory.start()

    def holds(self) -> tuple[Lease | None, Lease | None]:
        """Own and former lease."""
        last = self.heard.last or (None, (), None)
        return last[0], last[2]

    def update(self, **changes: object) -> None:
        self.keeper.update(replace(_REGISTRATION, **changes))  # type: ignore[arg-type]

    def eventually(self, own: Network | None, former: Network | None) -> tuple[Lease, Lease]:
        """Wait for an own lease in ``own`` and a former one in ``former``; None: anything, none."""

        def look() -> bool:
            mine, before = self.holds()
            return (
                mine is not None
                and (own is None or within(mine.subnet, own))
                and (before is None if former is None else before is not None)
                and (before is None or former is None or within(before.subnet, former))
            )

        eventually(look)
        return self.holds()  # type: ignore[return-value]  # look() said so


@pytest.fixture
def new_host(shared_etcd: Etcd, prefix: str) -> Iterator[Callable[[], Host]]:
    with contextlib.ExitStack() as stack:
        yield lambda: Host(shared_etcd, prefix, stack)


@pytest.fixture
def mesh(shared_etcd: Etcd, prefix: str) -> Iterator[Registry]:
    with registry(shared_etcd, prefix=prefix) as found:
        found.create_config(config(str(OLD)))
        yield found


def moving(mesh: Registry, one: Host) -> tuple[Lease, Lease]:
    """The host has one lease, then the mesh moves and it has two."""
    one.update()
    own, _ = one.eventually(OLD, None)
    change(mesh, cidr=NEW, move=True)
    one.update(wanted_subnet=own.subnet, may_change_subnet=False, move_into=NEW)
    new, former = one.eventually(NEW, OLD)
    assert former.subnet == own.subnet
    return new, former


def subnets(mesh: Registry) -> set[Network]:
    return {each.subnet for each in mesh.snapshot().leases}


def test_a_host_holds_both_subnets_until_the_former_is_empty(
    mesh: Registry, new_host: Callable[[], Host]
) -> None:
    one = new_host()
    new, former = moving(mesh, one)
    assert subnets(mesh) == {new.subnet, former.subnet}
    assert mesh.snapshot().memory[host(1)] == new.subnet
    with pytest.raises(Refused, match=str(former.subnet)):
        change(mesh, finish=True)
    one.update(wanted_subnet=new.subnet, move_into=NEW, former=former, give_back=True)
    one.eventually(NEW, None)
    assert subnets(mesh) == {new.subnet}
    # The loop's view may be older than that: nothing is claimed again.
    one.update(wanted_subnet=new.subnet, move_into=NEW, former=former)
    one.update(wanted_subnet=new.subnet, move_into=NEW, former=former, host_name="again")
    eventually(lambda: {each.host_name for each in mesh.snapshot().leases} == {"again"})
    assert subnets(mesh) == {new.subnet}
    assert change(mesh, finish=True).previous == ()


def test_promise_6_killed_in_the_middle_it_goes_on_with_the_same_two(
    mesh: Registry, new_host: Callable[[], Host]
) -> None:
    one = new_host()
    new, former = moving(mesh, one)
    one.keeper.stop()
    # The copy was written before the second lease was reported, or after.
    for copied, other in ((former, None), (new, former)):
        again = new_host()
        again.update(
            wanted_subnet=copied.subnet, may_change_subnet=False, move_into=NEW, former=other
        )
        own, before = again.eventually(NEW, OLD)
        assert (own.subnet, before.subnet) == (new.subnet, former.subnet)
        again.keeper.stop()
        # Never, not for a moment, the new one alone: rules and routes of the previous would go.
        reported = [(each[0].subnet, each[2]) for each in again.heard.items]
        assert (new.subnet, None) not in reported
    assert subnets(mesh) == {new.subnet, former.subnet}


def test_promise_3_a_former_lease_that_is_deleted_is_claimed_again(
    mesh: Registry, new_host: Callable[[], Host]
) -> None:
    one = new_host()
    new, former = moving(mesh, one)
    one.update(wanted_subnet=new.subnet, may_change_subnet=False, move_into=NEW, former=former)
    mesh.client.txn("delete", [], [kv.delete(mesh.keys.of(LEASES, former.subnet))])
    eventually(lambda: subnets(mesh) == {new.subnet, former.subnet})


def test_promise_1_a_former_lease_that_another_host_has_by_now_is_gone(
    mesh: Registry, new_host: Callable[[], Host]
) -> None:
    one = new_host()
    new, former = moving(mesh, one)
    thief = replace(
        former, host_id=host(9), host_name="host9", node_address=IPv4Address("192.0.2.10")
    )
    mesh.client.txn("w", [], [kv.put(mesh.keys.of(LEASES, former.subnet), encode_lease(thief))])
    own, _ = one.eventually(NEW, None)
    assert own.subnet == new.subnet


def test_a_move_that_is_turned_round_gives_every_host_its_old_subnet(
    mesh: Registry, new_host: Callable[[], Host]
) -> None:
    one = new_host()
    new, former = moving(mesh, one)
    back = change(mesh, cidr=OLD, move=True)
    assert (back.cidr, back.previous) == (OLD, (NEW,))
    one.update(wanted_subnet=new.subnet, may_change_subnet=False, move_into=OLD, former=former)
    own, before = one.eventually(OLD, NEW)
    assert (own.subnet, before.subnet) == (former.subnet, new.subnet)
    one.update(wanted_subnet=own.subnet, move_into=OLD, former=before, give_back=True)
    one.eventually(OLD, None)
    assert subnets(mesh) == {former.subnet}


def test_promise_4_no_second_subnet_while_etcd_is_in_doubt(
    mesh: Registry, new_host: Callable[[], Host]
) -> None:
    one = new_host()
    one.update()
    own, _ = one.eventually(OLD, None)
    change(mesh, cidr=NEW, move=True)
    one.keeper.hold()
    one.update(wanted_subnet=own.subnet, may_change_subnet=False, move_into=NEW, host_name="held")
    eventually(lambda: {each.host_name for each in mesh.snapshot().leases} == {"held"})
    assert subnets(mesh) == {own.subnet}
    one.keeper.resume()
    one.eventually(NEW, OLD)


def test_a_third_cidr_waits_until_the_first_move_is_over(
    mesh: Registry, new_host: Callable[[], Host]
) -> None:
    """Promise 3: a host never drops a lease that Docker may still have networks in."""
    third = IPv4Network("10.96.0.0/12")
    one = new_host()
    new, former = moving(mesh, one)
    change(mesh, cidr=third, move=True)
    one.update(
        wanted_subnet=new.subnet, may_change_subnet=False, move_into=third, former=former,
        host_name="waits",
    )  # fmt: skip
    eventually(lambda: {each.host_name for each in mesh.snapshot().leases} == {"waits"})
    assert subnets(mesh) == {new.subnet, former.subnet}
    one.update(wanted_subnet=new.subnet, move_into=third, former=former, give_back=True)
    own, before = one.eventually(third, NEW)
    assert subnets(mesh) == {own.subnet, before.subnet}


def test_a_lease_in_neither_place_is_not_taken_for_the_new_one(mesh: Registry) -> None:
    first = mesh.claim(request(1))
    change(mesh, cidr=NEW, move=True)
    second = mesh.claim(request(1, beside=first.subnet))
    third = IPv4Network("10.96.0.0/12")
    change(mesh, cidr=third, move=True)
    assert within(mesh.claim(request(1, beside=second.subnet)).subnet, third)


_HOSTS = st.integers(0, 4)
_RANGES = [
    IPv4Network(each)
    for each in ("10.64.0.0/27", "10.64.0.64/27", "10.64.0.0/26", "10.64.0.128/27")
]
_prefixes = itertools.count()


class Moving(RuleBasedStateMachine):
    """Hosts claim, move, give back and lose leases while the operator moves the mesh about."""

    etcd: Etcd

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.registry: Registry = self.stack.enter_context(
            registry(self.etcd, prefix=f"/moving/{next(_prefixes)}")
        )
        self.own: dict[int, Lease] = {}
        self.former: dict[int, Lease] = {}

    def teardown(self) -> None:
        self.stack.close()

    @initialize()
    def create(self) -> None:
        self.registry.create_config(config(str(_RANGES[0]), 30))

    def config(self) -> MeshConfig:
        found = self.registry.snapshot().config
        assert found is not None
        return found

    @rule(number=_HOSTS)
    def join(self, number: int) -> None:
        had = self.own.get(number)
        lease = self.registry.claim(request(number, wanted=had.subnet if had else None))
        assert had is None or lease.subnet == had.subnet, "promise 2"
        assert had is not None or within(lease.subnet, self.config().cidr)
        self.own[number] = lease

    @rule(number=_HOSTS)
    def move(self, number: int) -> None:
        own, former, cidr = self.own.get(number), self.former.get(number), self.config().cidr
        back = former is None or within(former.subnet, cidr)
        if own is None or not back or within(own.subnet, cidr):
            return
        new = self.registry.claim(request(number, beside=own.subnet))
        assert within(new.subnet, cidr)
        assert former is None or new.subnet == former.subnet, "it goes back"
        self.own[number], self.former[number] = new, own

    @rule(number=_HOSTS)
    def give_back(self, number: int) -> None:
        former = self.former.pop(number, None)
        if former is not None:
            self.registry.give_back(former)
            self.registry.give_back(former)

    @rule(number=_HOSTS, which=st.booleans())
    def expire(self, number: int, which: bool) -> None:
        held = self.former if which or number in self.former else self.own
        lease = held.pop(number, None)
        if lease is not None:
            there = self.registry.client.range(self.registry.keys.of(LEASES, lease.subnet)).records[
                0
            ]
            self.registry.client.revoke(there.lease_id)
            with pytest.raises(LeaseLostError):
                renew(self.registry, lease, memory_ttl_s=3600)

    @rule(cidr=st.sampled_from(_RANGES))
    def operator_moves(self, cidr: Network) -> None:
        change(self.registry, cidr=cidr, move=True)

    @rule()
    def operator_finishes(self) -> None:
        now = self.registry.snapshot().config
        assert now is not None
        outside = [each for each in self.registry.snapshot().leases if now.must_move(each.subnet)]
        if outside:
            with pytest.raises(Refused):
                change(self.registry, finish=True)
        else:
            assert change(self.registry, finish=True).previous == ()

    @invariant()
    def promises_1_and_8(self) -> None:
        view = self.registry.snapshot()
        if view.config is None:
            return
        assert view.set_aside == ()  # an overlap, or a lease outside, would be set aside
        held = {each.subnet for each in (*self.own.values(), *self.former.values())}
        assert {each.subnet for each in view.leases} == held
        for one, other in itertools.combinations(view.leases, 2):
            assert not one.subnet.overlaps(other.subnet)
        for lease in view.leases:
            assert view.config.holds(lease.subnet)


def test_promise_1_holds_while_the_mesh_moves(shared_etcd: Etcd) -> None:
    Moving.etcd = shared_etcd
    run_state_machine_as_test(
        Moving,
        settings=settings(
            max_examples=10,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
