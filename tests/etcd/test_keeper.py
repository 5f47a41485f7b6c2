"""The keeper: what is this host's stays this host's, on a real etcd."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from agent.leases import trust
from agent.leases.directory import Directory
from agent.leases.keeper import Keeper, Registration
from agent.leases.registry import ClaimRequest, Registry
from agent.model import Condition, DockerState, Lease, View
from agent.settings import LeaseSettings
from tests.etcd.support.etcdlab import Etcd, Heard, config, eventually, host, registry, request

pytestmark = pytest.mark.etcd

_REGISTRATION = Registration(
    node_address=IPv4Address("192.0.2.2"), host_name="host1", docker_state=DockerState.PENDING
)
_SHORT = LeaseSettings(ttl_s=60, heartbeat_ttl_s=5, memory_ttl_s=3600)


@contextlib.contextmanager
def keep(mesh: Registry, heard: Heard, **more: Any) -> Iterator[Keeper]:  # noqa: ANN401  # handed on
    """A keeper that is told what a directory sees, as the daemon does."""
    keeper = Keeper(
        mesh,
        **{
            "host_id": host(1),
            "boot_id": "1" * 32,
            "agent_version": "0.1.0",
            "settings": _SHORT,
            "on_lease": heard,
            **more,
        },
    )
    directory = Directory(mesh, keeper.notice, Heard())
    keeper.start()
    directory.start()
    try:
        yield keeper
    finally:
        keeper.stop()
        directory.stop()


@pytest.fixture
def mesh(shared_etcd: Etcd, prefix: str) -> Iterator[Registry]:
    """Sixteen /16s."""
    with registry(shared_etcd, prefix=prefix) as found:
        found.create_config(config("10.64.0.0/12"))
        yield found


def _held(heard: Heard) -> Callable[[], Lease | None]:
    return lambda: heard.last[0] if heard.last else None


def _condition(heard: Heard) -> str:
    return heard.last[1][0].name if heard.last and heard.last[1] else ""


def test_nothing_is_written_before_there_is_a_config(shared_etcd: Etcd, prefix: str) -> None:
    heard = Heard()
    with registry(shared_etcd, prefix=prefix) as mesh, keep(mesh, heard) as keeper:
        keeper.update(_REGISTRATION)
        eventually(lambda: _condition(heard) == "mesh-config-missing")
        whole = mesh.keys.everything
        assert not mesh.client.range(whole.start, whole.end).records
        mesh.create_config(config())
        lease = eventually(_held(heard))
        assert heard.last[1] == ()
        assert mesh.snapshot().lease_of(host(1)) == lease


def test_lease_heartbeat_and_memory_are_kept(mesh: Registry) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(_REGISTRATION)
        lease = eventually(_held(heard))
        beat = eventually(lambda: mesh.snapshot().heartbeats.get(host(1)))
        eventually(lambda: mesh.snapshot().heartbeats[host(1)].subnet == lease.subnet)
        assert (beat.docker, beat.boot_id) == (DockerState.PENDING, "1" * 32)
        keeper.update(replace(_REGISTRATION, docker_state=DockerState.READY))
        eventually(lambda: mesh.snapshot().heartbeats[host(1)].docker is DockerState.READY)
    assert mesh.snapshot().leases
    eventually(lambda: not mesh.snapshot().heartbeats, timeout_s=10)
    assert mesh.snapshot().leases  # promise 3: a stopped agent gives nothing back


def test_promise_2_a_new_node_address_keeps_the_subnet(mesh: Registry) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(_REGISTRATION)
        lease = eventually(_held(heard))
        keeper.update(replace(_REGISTRATION, node_address=IPv4Address("192.0.2.88")))
        eventually(lambda: heard.last[0].node_address == IPv4Address("192.0.2.88"))
        assert heard.last[0].subnet == lease.subnet
        assert mesh.snapshot().lease_of(host(1)) == heard.last[0]


def test_a_deleted_lease_is_claimed_again_at_once_with_the_same_subnet(mesh: Registry) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(_REGISTRATION)
        lease = eventually(_held(heard))
        mesh.client.revoke(lease.etcd_lease_id)
        again = eventually(lambda: mesh.snapshot().lease_of(host(1)), timeout_s=3)
        assert (again.subnet, again.etcd_lease_id) != (lease.subnet, lease.etcd_lease_id)
        assert again.subnet == lease.subnet


def test_promise_3_a_taken_subnet_is_reported_and_not_announced_until_it_is_free(
    mesh: Registry,
) -> None:
    """While Docker runs on the subnet the host takes no other, and gets its own back."""
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(_REGISTRATION)
        lease = eventually(_held(heard))
        keeper.update(replace(_REGISTRATION, wanted_subnet=lease.subnet, may_change_subnet=False))
        _steal(mesh, lease)
        eventually(lambda: _condition(heard) == "lease-taken")
        assert _held(heard)() is None
        assert "host9 at" in heard.last[1][0].cause
        eventually(lambda: mesh.snapshot().heartbeats[host(1)].subnet is None)
        assert mesh.snapshot().lease_of(host(1)) is None
        mesh.release(host(9))
        eventually(_held(heard), timeout_s=20)
        assert (heard.last[0].subnet, heard.last[1]) == (lease.subnet, ())


def test_promise_3_a_container_that_has_just_started_keeps_the_host_from_another_subnet(
    mesh: Registry,
) -> None:
    """The registration is older than the container: Docker is asked again before a claim."""
    heard, idle = Heard(), threading.Event()
    with keep(mesh, heard, may_leave=idle.is_set) as keeper:
        keeper.update(_REGISTRATION)
        lease = eventually(_held(heard))
        keeper.update(replace(_REGISTRATION, wanted_subnet=lease.subnet))
        _steal(mesh, lease)
        eventually(lambda: _condition(heard) == "lease-taken")
        assert mesh.snapshot().lease_of(host(1)) is None
        idle.set()
        assert eventually(_held(heard), timeout_s=20).subnet != lease.subnet


def test_another_subnet_is_taken_when_docker_may_be_restarted(mesh: Registry) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.update(_REGISTRATION)
        lease = eventually(_held(heard))
        _steal(mesh, lease)
        eventually(lambda: heard.last[0] and heard.last[0].subnet != lease.subnet)
        assert mesh.snapshot().lease_of(host(9)) is not None


def test_a_host_that_has_left_and_joins_again_takes_another_subnet_if_its_own_is_gone(
    mesh: Registry,
) -> None:
    """What ran on the subnet of before is no reason to wait for it: the host is new here."""
    heard = Heard()
    with keep(mesh, heard, may_leave=lambda: False) as keeper:
        keeper.update(_REGISTRATION)
        lease = eventually(_held(heard))
        assert keeper.pause()
        mesh.release(host(1))
        mesh.claim(request(9, wanted=lease.subnet))
        keeper.update(_REGISTRATION)
        again = eventually(lambda: mesh.snapshot().lease_of(host(1)), timeout_s=10)
        assert again.subnet != lease.subnet
        eventually(lambda: heard.last[:2] == (mesh.snapshot().lease_of(host(1)), ()))


def test_a_host_that_leaves_and_joins_while_etcd_hangs_is_told_its_lease_anew(
    etcd: Etcd, prefix: str
) -> None:
    """The loop forgot the lease when the host left; a keeper that was busy then forgets it, too."""
    heard = Heard()
    with registry(etcd, prefix=prefix) as mesh:
        mesh.create_config(config())
        with keep(mesh, heard, settings=replace(_SHORT, ttl_s=86_400)) as keeper:
            keeper.update(_REGISTRATION)
            eventually(_held(heard))
            told = len(heard)
            etcd.pause()
            try:
                keeper.update(replace(_REGISTRATION, docker_state=DockerState.READY))
                eventually(keeper._busy.locked)
                assert not keeper.pause(timeout_s=0.3)
                keeper.update(_REGISTRATION)
            finally:
                etcd.resume()
            eventually(lambda: len(heard) > told and _held(heard)(), timeout_s=20)


def test_promise_4_on_hold_only_what_was_held_is_registered_again(mesh: Registry) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.hold()
        keeper.update(_REGISTRATION)
        eventually(lambda: _condition(heard) == "claims-held-back")
        assert mesh.snapshot().leases == ()
        wanted = IPv4Network("10.70.0.0/16")
        keeper.update(replace(_REGISTRATION, wanted_subnet=wanted))
        lease = eventually(_held(heard))
        assert lease.subnet == wanted


def test_promise_4_a_claim_held_back_goes_ahead_when_the_alarm_ends(mesh: Registry) -> None:
    heard = Heard()
    with keep(mesh, heard) as keeper:
        keeper.hold()
        keeper.update(_REGISTRATION)
        eventually(lambda: _condition(heard) == "claims-held-back")
        keeper.resume()
        eventually(_held(heard))


def test_a_cloned_machine_id_is_reported_and_never_shared(mesh: Registry) -> None:
    first, second = Heard(), Heard()
    clone = replace(_REGISTRATION, node_address=IPv4Address("192.0.2.150"), host_name="clone")
    with keep(mesh, first) as original, keep(mesh, second, boot_id="2" * 32) as copied:
        original.update(_REGISTRATION)
        lease = eventually(_held(first))
        copied.update(clone)
        eventually(lambda: _condition(second) == "machine-id-cloned")
        assert "host1" in second.last[1][0].cause
        assert second.last[0] is None
        assert mesh.snapshot().leases == (lease,)
        (told,) = eventually(lambda: mesh.snapshot().clones)  # the original's view says it too
        assert (told.host_id, told.node_address) == (host(1), clone.node_address)
        assert _condition(first) == ""  # the keeper's own: it has its lease
    # The original keeps both alive; the report ends with the clone.
    eventually(lambda: not mesh.snapshot().clones, timeout_s=10)


def test_promise_1_a_clone_that_starts_while_the_original_is_cut_off_gets_nothing(
    mesh: Registry,
) -> None:
    """Its heartbeat has lapsed; its lease and an answer at its address are what is left."""
    first, second = Heard(), Heard()
    clone = replace(_REGISTRATION, node_address=IPv4Address("192.0.2.150"), host_name="clone")
    asked: list[tuple[IPv4Address, bool]] = []

    def somebody_answers(address: IPv4Address, beating: bool) -> bool:
        asked.append((address, beating))
        return False

    with keep(mesh, first) as original:
        original.update(_REGISTRATION)
        lease = eventually(_held(first))
    eventually(lambda: not mesh.snapshot().heartbeats, timeout_s=10)  # cut off for long
    key = mesh.keys.heartbeat(host(1))
    beats = mesh.client.watch(key, key + b"\0", mesh.snapshot().revision + 1)
    with keep(mesh, second, boot_id="2" * 32, earlier_life=somebody_answers) as copied:
        copied.update(clone)
        eventually(lambda: _condition(second) == "machine-id-cloned")
        assert beats.next(0.5) is None  # not even the heartbeat's place is taken for a moment
        beats.close()
        assert asked[0] == (_REGISTRATION.node_address, False)
        assert mesh.snapshot().leases == (lease,)
        assert mesh.snapshot().clones
        again = Heard()
        with keep(mesh, again) as back:  # contact is there again
            back.update(_REGISTRATION)
            assert eventually(_held(again)).subnet == lease.subnet
            assert [each.node_address for each in mesh.snapshot().clones] == [clone.node_address]


def test_promise_1_an_original_that_was_cut_off_from_everything_does_not_share_when_it_is_back(
    mesh: Registry,
) -> None:
    """Nobody answered at its address, so the clone took the lease: then the original has none."""
    first, second = Heard(), Heard()
    clone = replace(_REGISTRATION, node_address=IPv4Address("192.0.2.150"), host_name="clone")
    cut = {_REGISTRATION.node_address}

    def nobody_answers(address: IPv4Address, _beating: bool) -> bool:
        return address in cut

    with keep(mesh, first, earlier_life=nobody_answers) as original:
        original.update(_REGISTRATION)
        lease = eventually(_held(first))
        with keep(mesh, second, boot_id="2" * 32, earlier_life=nobody_answers) as copied:
            copied.update(clone)
            adopted = eventually(_held(second))
            assert adopted.subnet == lease.subnet
            cut.clear()
            eventually(lambda: _condition(first) == "machine-id-cloned")
            assert first.last[0] is None
            assert "clone" in first.last[1][0].cause
            time.sleep(2 * _SHORT.heartbeat_ttl_s / 3)  # rounds of both
            assert mesh.snapshot().lease_of(host(1)).node_address == clone.node_address  # type: ignore[union-attr]
            assert [each.node_address for each in mesh.snapshot().clones] == [
                _REGISTRATION.node_address
            ]


def test_a_reboot_with_a_new_address_is_no_clone_when_nobody_answers_at_the_old(
    mesh: Registry,
) -> None:
    first, second, asked = Heard(), Heard(), Heard()
    with keep(mesh, first) as before:
        before.update(_REGISTRATION)
        lease = eventually(_held(first))

    def nobody_there(address: IPv4Address, beating: bool) -> bool:
        asked((address, beating))
        return True

    rebooted = replace(_REGISTRATION, node_address=IPv4Address("192.0.2.150"))
    with keep(mesh, second, boot_id="2" * 32, earlier_life=nobody_there) as after:
        after.update(rebooted)
        eventually(_held(second), timeout_s=3)
        assert second.last[0].subnet == lease.subnet
        assert asked.items == [(_REGISTRATION.node_address, True)]
        assert mesh.snapshot().clones == ()


def test_what_is_released_after_pause_is_not_claimed_again_by_a_write_under_way(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    entered, go_on = threading.Event(), threading.Event()
    real = mesh.claim

    def slow(wanted: ClaimRequest) -> Lease:
        entered.set()
        go_on.wait(5)
        return real(wanted)

    monkeypatch.setattr(mesh, "claim", slow)
    with keep(mesh, heard) as keeper:
        keeper.update(_REGISTRATION)
        assert entered.wait(5)
        assert not keeper.pause(0.1)
        threading.Timer(0.3, go_on.set).start()
        assert keeper.pause()
        mesh.release(host(1))
        time.sleep(0.5)
        assert (mesh.snapshot().leases, dict(mesh.snapshot().heartbeats)) == ((), {})
        keeper.update(_REGISTRATION)
        eventually(lambda: mesh.snapshot().leases)


def test_an_outage_longer_than_the_heartbeat_is_made_good(etcd: Etcd) -> None:
    heard = Heard()
    with registry(etcd) as mesh:
        mesh.create_config(config())
        with keep(mesh, heard) as keeper:
            keeper.update(_REGISTRATION)
            lease = eventually(_held(heard))
            etcd.kill()
            etcd.start()
            etcd.wait_healthy()
            beat_id = keeper._beat._lease_id
            mesh.client.revoke(beat_id)
            eventually(lambda: mesh.snapshot().heartbeats, timeout_s=15)
            found = mesh.snapshot().lease_of(host(1))
            assert found is not None
            assert found.subnet == lease.subnet


def test_stop_is_bounded_while_etcd_hangs(etcd: Etcd) -> None:
    heard = Heard()
    with registry(etcd) as mesh:
        mesh.create_config(config())
        with keep(mesh, heard) as keeper:
            keeper.update(_REGISTRATION)
            eventually(_held(heard))
            etcd.pause()
            keeper.update(replace(_REGISTRATION, host_name="other"))
            time.sleep(0.2)
            started_s = time.monotonic()
            keeper.stop()
            assert time.monotonic() - started_s < 2.5
            etcd.resume()


def _steal(mesh: Registry, lease: Lease) -> None:
    """Another host gets the subnet as after a partition longer than the TTL: in one step."""
    from agent.leases import kv, wire  # noqa: PLC0415  # only here are records written by hand

    thief = replace(
        lease,
        host_id=host(9),
        host_name="host9",
        node_address=request(9).node_address,
        etcd_lease_id=0,
    )
    mesh.client.txn("w", [], [kv.put(mesh.keys.subnet(lease.subnet), wire.encode_lease(thief))])


class _Host:
    """A host as far as leases go: believes views or raises the alarm, as the daemon does."""

    def __init__(self, etcd: Etcd, stack: contextlib.ExitStack, number: int) -> None:
        self.heard = Heard()
        self.believed: View | None = None
        self.alarm = False
        mesh = stack.enter_context(registry(etcd))
        self.mesh = mesh
        self.registration = replace(
            _REGISTRATION, node_address=request(number).node_address, host_name=f"host{number}"
        )
        self.keeper = Keeper(
            mesh,
            host_id=host(number),
            boot_id=f"{number:032x}",
            agent_version="0.1.0",
            settings=_SHORT,
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


def test_promise_4_etcd_replaced_by_an_empty_one_with_a_fifth_host_joining_at_once(
    etcd: Etcd,
) -> None:
    """Every holder registers what it held; the joiner waits and takes nobody's subnet."""
    with contextlib.ExitStack() as stack:
        first = _Host(etcd, stack, 0)
        eventually(lambda: _condition(first.heard) == "mesh-config-missing")
        first.mesh.create_config(config("10.64.0.0/14"))  # four subnets for four hosts
        hosts = [first, *(_Host(etcd, stack, number) for number in range(1, 4))]
        eventually(lambda: all(each.subnet for each in hosts))
        before = [each.subnet for each in hosts]
        eventually(lambda: all(each.believed and len(each.believed.leases) == 4 for each in hosts))
        etcd.kill()
        etcd.wipe()
        etcd.arguments += ["--initial-cluster-token", "another"]
        etcd.start()
        etcd.wait_healthy()
        fifth = _Host(etcd, stack, 4)
        eventually(lambda: len(first.mesh.snapshot().leases) == 4, timeout_s=20)
        eventually(lambda: all(each.alarm for each in hosts), timeout_s=20)  # each at its own time
        assert [each.subnet for each in hosts] == before
        held = {first.mesh.snapshot().lease_of(host(number)) for number in range(4)}
        assert {lease.subnet for lease in held if lease} == set(before)
        eventually(lambda: _condition(fifth.heard) == "no-free-subnet", timeout_s=20)
        assert fifth.subnet is None
