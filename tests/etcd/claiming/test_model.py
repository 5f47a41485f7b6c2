"""Claims, renewals, expiry, partitions, releases and reservations in any order, on a real etcd.

A model says what must be true after each step: promise 1 (no two leases overlap, no host has
what is reserved for another) and promise 2 (a host keeps its subnet; no other host gets it
while others are free).
"""

from __future__ import annotations

import contextlib
import itertools
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent.errors import ClaimConflict, NoFreeSubnet
from agent.model import Lease
from agent.model.family import Network
from agent.registry.operations.config_change import change_config
from agent.registry.operations.reservations import reserve, unreserve
from agent.registry.records import LEASES
from agent.registry.registry import LeaseLostError, Registry
from tests.etcd.support.etcdlab import Etcd, config, host, registry, renew, request

pytestmark = pytest.mark.etcd

_CIDR = "10.64.0.0/27"  # eight /30s, 32 addresses
_SUBNETS = tuple(IPv4Network(_CIDR).subnets(new_prefix=30))
_HOSTS = st.integers(0, 5)
_prefixes = itertools.count()


class Mesh(RuleBasedStateMachine):
    """The registry next to a model of it."""

    etcd: Etcd

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.registry: Registry = self.stack.enter_context(
            registry(self.etcd, prefix=f"/model/{next(_prefixes)}")
        )
        self.owners: dict[Network, int] = {}
        self.memory: dict[int, Network] = {}
        self.reserved: dict[Network, int] = {}
        self.held: dict[int, Lease] = {}  # what each host believes, right or wrong
        self.length = 30

    def teardown(self) -> None:
        self.stack.close()

    @initialize()
    def create(self) -> None:
        self.registry.create_config(config(_CIDR, 30))

    def _owned(self, number: int) -> Network | None:
        return next((each for each, owner in self.owners.items() if owner == number), None)

    def _free(self, number: int) -> set[Network]:
        """The subnets of today's length that this host may have."""
        taken = [*self.owners, *(s for s, owner in self.reserved.items() if owner != number)]
        wanted = set(IPv4Network(_CIDR).subnets(new_prefix=self.length))
        mine = {each for each, owner in self.reserved.items() if owner == number}
        mine |= {self.memory[number]} if number in self.memory else set()
        return {each for each in wanted | mine if not any(each.overlaps(other) for other in taken)}

    @rule(number=_HOSTS, wanted=st.none() | st.sampled_from(_SUBNETS))
    def claim(self, number: int, wanted: Network | None) -> None:
        owned, free = self._owned(number), self._free(number)
        if wanted is not None and not any(
            wanted.overlaps(each) for each in [*self.owners, *self.reserved]
        ):
            free = free | {wanted}
        try:
            lease = self.registry.claim(request(number, wanted=wanted))
        except NoFreeSubnet:
            assert owned is None
            assert not free
            return
        self.held[number] = lease
        if owned is not None:
            assert lease.subnet == owned  # promise 2
            return
        assert lease.subnet in free
        elsewhere = {s for n, s in self.memory.items() if n != number}
        fresh = {
            each
            for each in free
            if each.prefixlen == self.length and not any(each.overlaps(s) for s in elsewhere)
        }
        if fresh and lease.subnet not in {wanted, self.memory.get(number), *self.reserved}:
            assert not any(lease.subnet.overlaps(s) for s in elsewhere)  # promise 2
        self.owners[lease.subnet] = number
        self.memory[number] = lease.subnet

    @rule(number=_HOSTS)
    def renew_what_the_host_believes(self, number: int) -> None:
        """After a partition the belief may be wrong; then nothing may be written."""
        lease = self.held.get(number)
        if lease is None:
            return
        truth = self.owners.get(lease.subnet)
        try:
            self.held[number] = renew(self.registry, lease, memory_ttl_s=3600)
        except LeaseLostError:
            assert truth is None
        except ClaimConflict:
            assert truth not in {None, number}
        else:
            assert truth == number
            self.memory[number] = lease.subnet

    @rule(number=_HOSTS)
    def expire(self, number: int) -> None:
        subnet = self._owned(number)
        if subnet is not None:
            record = self.registry.client.range(self.registry.keys.of(LEASES, subnet)).records[0]
            self.registry.client.revoke(record.lease_id)
            del self.owners[subnet]

    @rule(number=_HOSTS)
    def release(self, number: int) -> None:
        assert self.registry.release(host(number)) == self._owned(number)
        self.owners = {each: owner for each, owner in self.owners.items() if owner != number}

    @rule(number=_HOSTS, subnet=st.sampled_from(_SUBNETS))
    def reserve(self, number: int, subnet: Network) -> None:
        held = any(s.overlaps(subnet) and owner != number for s, owner in self.owners.items())
        promised = any(
            s.overlaps(subnet) and (s, owner) != (subnet, number)
            for s, owner in self.reserved.items()
        )
        try:
            reserve(self.registry, host(number), subnet)
        except ClaimConflict:
            assert held or promised
        else:
            assert not held
            assert not promised
            self.reserved[subnet] = number

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def unreserve(self, data: Any) -> None:  # noqa: ANN401  # hypothesis' DataObject
        subnet = data.draw(st.sampled_from(sorted(self.reserved)))
        assert unreserve(self.registry, subnet)
        del self.reserved[subnet]

    @rule(length=st.sampled_from((29, 30)))
    def change_subnet_len(self, length: int) -> None:
        change_config(self.registry, lambda _now: config(_CIDR, length))
        self.length = length

    @invariant()
    def etcd_says_what_the_model_says(self) -> None:
        view = self.registry.snapshot()
        if view.config is None:
            return
        names = {host(number): number for number in range(6)}
        assert {
            lease.subnet: names[lease.host_id] for lease in view.leases if lease.host_id
        } == self.owners
        assert view.set_aside == ()  # promise 1: an overlap would be set aside
        assert {names[each]: subnet for each, subnet in view.memory.items()} == self.memory
        assert {s: names[owner] for s, owner in view.reservations.items()} == self.reserved
        for one, other in itertools.combinations(self.owners, 2):
            assert not one.overlaps(other)


@pytest.fixture
def machine(shared_etcd: Etcd) -> type[Mesh]:
    Mesh.etcd = shared_etcd
    return Mesh


def _run(machine: type[Mesh], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_promises_1_and_2_hold_after_every_step(machine: type[Mesh]) -> None:
    _run(machine, 12, 25)


@pytest.mark.full
def test_promises_1_and_2_hold_after_every_step_of_many(machine: type[Mesh]) -> None:
    _run(machine, 200, 60)
