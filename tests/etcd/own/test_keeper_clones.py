"""Two live hosts with one machine-id: found out, reported on both, never shared."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from agent.registry.records import HEARTBEATS
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import Heard, host
from tests.etcd.support.keeping import REGISTRATION, SHORT, condition, held, keep
from tests.waiting import eventually

pytestmark = pytest.mark.etcd


def test_a_cloned_machine_id_is_reported_and_never_shared(mesh: Registry) -> None:
    first, second = Heard(), Heard()
    clone = replace(REGISTRATION, node_address=IPv4Address("192.0.2.150"), host_name="clone")
    with keep(mesh, first) as original, keep(mesh, second, boot_id="2" * 32) as copied:
        original.update(REGISTRATION)
        lease = eventually(held(first))
        copied.update(clone)
        eventually(lambda: condition(second) == "machine-id-cloned")
        assert "host1" in second.last[1][0].cause
        assert second.last[0] is None
        assert mesh.snapshot().leases == (lease,)
        (beat,) = eventually(lambda: mesh.snapshot().clones)  # the original's view says it too
        assert (beat.host_id, beat.node_address) == (host(1), clone.node_address)
        assert condition(first) == ""  # the keeper's own: it has its lease
    # The original keeps both alive; the report ends with the clone.
    eventually(lambda: not mesh.snapshot().clones, timeout_s=10)


def test_promise_1_a_clone_that_starts_while_the_original_is_cut_off_gets_nothing(
    mesh: Registry,
) -> None:
    """Its heartbeat has lapsed; its lease and an answer at its address are what is left."""
    first, second = Heard(), Heard()
    clone = replace(REGISTRATION, node_address=IPv4Address("192.0.2.150"), host_name="clone")
    asked: list[tuple[IPv4Address, bool]] = []

    def somebody_answers(address: IPv4Address, beating: bool) -> bool:
        asked.append((address, beating))
        return False

    with keep(mesh, first) as original:
        original.update(REGISTRATION)
        lease = eventually(held(first))
    eventually(lambda: not mesh.snapshot().heartbeats, timeout_s=10)  # cut off for long
    key = mesh.keys.of(HEARTBEATS, host(1))
    beats = mesh.client.watch([(key, key + b"\0")], mesh.snapshot().revision)
    with keep(mesh, second, boot_id="2" * 32, earlier_life=somebody_answers) as copied:
        copied.update(clone)
        eventually(lambda: condition(second) == "machine-id-cloned")
        assert beats.next(0.5) is None  # not even the heartbeat's place is taken for a moment
        beats.close()
        assert asked[0] == (REGISTRATION.node_address, False)
        assert mesh.snapshot().leases == (lease,)
        assert mesh.snapshot().clones
        again = Heard()
        with keep(mesh, again) as back:  # contact is there again
            back.update(REGISTRATION)
            assert eventually(held(again)).subnet == lease.subnet
            assert [each.node_address for each in mesh.snapshot().clones] == [clone.node_address]


def test_promise_1_an_original_that_was_cut_off_from_everything_does_not_share_when_it_is_back(
    mesh: Registry,
) -> None:
    """No host answered at its address, so the clone took the lease: then the original has none."""
    first, second = Heard(), Heard()
    clone = replace(REGISTRATION, node_address=IPv4Address("192.0.2.150"), host_name="clone")
    cut = {REGISTRATION.node_address}

    def is_silent(address: IPv4Address, _beating: bool) -> bool:
        return address in cut

    with keep(mesh, first, earlier_life=is_silent) as original:
        original.update(REGISTRATION)
        lease = eventually(held(first))
        with keep(mesh, second, boot_id="2" * 32, earlier_life=is_silent) as copied:
            copied.update(clone)
            adopted = eventually(held(second))
            assert adopted.subnet == lease.subnet
            cut.clear()
            eventually(lambda: condition(first) == "machine-id-cloned")
            assert first.last[0] is None
            assert "clone" in first.last[1][0].cause
            time.sleep(2 * SHORT.heartbeat_ttl_s / 3)  # rounds of both
            assert mesh.snapshot().lease_of(host(1)).node_address == clone.node_address  # type: ignore[union-attr]
            assert [each.node_address for each in mesh.snapshot().clones] == [
                REGISTRATION.node_address
            ]


def test_a_reboot_with_a_new_address_is_no_clone_when_nobody_answers_at_the_old(
    mesh: Registry,
) -> None:
    first, second, asked = Heard(), Heard(), Heard()
    with keep(mesh, first) as before:
        before.update(REGISTRATION)
        lease = eventually(held(first))

    def nobody_there(address: IPv4Address, beating: bool) -> bool:
        asked((address, beating))
        return True

    rebooted = replace(REGISTRATION, node_address=IPv4Address("192.0.2.150"))
    with keep(mesh, second, boot_id="2" * 32, earlier_life=nobody_there) as after:
        after.update(rebooted)
        eventually(held(second), timeout_s=3)
        assert second.last[0].subnet == lease.subnet
        assert asked.items == [(REGISTRATION.node_address, True)]
        assert mesh.snapshot().clones == ()
