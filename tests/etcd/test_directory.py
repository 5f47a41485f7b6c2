"""Following the mesh on a real etcd: complete views only, whatever ends the watch."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from agent.errors import EtcdUnavailable
from agent.etcd import kv
from agent.etcd.kv import Page
from agent.etcd.watch import WatchStream
from agent.model import View
from agent.registry import follower
from agent.registry.directory import Directory
from agent.registry.records import LEASES
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import Etcd, Heard, cluster, config, host, registry, renew, request
from tests.waiting import eventually

pytestmark = pytest.mark.etcd

_FLANNEL = '{"PublicIP":"192.0.2.200","PublicIPv6":null,"BackendType":"host-gw"}'


@contextlib.contextmanager
def follow(found: Registry) -> Iterator[tuple[Heard, Heard]]:
    """A directory with what it called back with: views, problems."""
    views, problems = Heard(), Heard()
    following = Directory(found, views, problems)
    following.start()
    try:
        eventually(lambda: len(views) > 0 and len(problems) > 0)
        yield views, problems
    finally:
        started_s = time.monotonic()
        following.stop()
        assert time.monotonic() - started_s < 2.1


@pytest.fixture
def mesh(etcd: Etcd) -> Iterator[Registry]:
    """A mesh on an etcd that the test may stop."""
    with registry(etcd) as found:
        found.create_config(config("10.64.0.0/12"))
        yield found


def _current(views: Heard, mesh: Registry) -> bool:
    """The last view says what etcd says now."""
    truth = mesh.snapshot()
    last: View = views.last
    return (last.leases, last.memory, last.config, last.set_aside) == (
        truth.leases,
        truth.memory,
        truth.config,
        truth.set_aside,
    )


def wakes_of(*names: str) -> int:
    """How often threads of these names have waited and gone on."""
    found = 0
    for thread in threading.enumerate():
        if thread.name in names:
            status = Path(f"/proc/self/task/{thread.native_id}/status").read_text(encoding="ascii")
            found += int(status.rpartition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return found


def test_promise_10_nothing_wakes_while_nothing_comes(mesh: Registry) -> None:
    with follow(mesh):
        before = wakes_of("etcd-directory", "etcd-watch-reader")
        assert before
        time.sleep(2)
        assert wakes_of("etcd-directory", "etcd-watch-reader") - before < 8


def test_changes_are_seen_at_once_and_by_value(mesh: Registry) -> None:
    with follow(mesh) as (views, problems):
        assert problems.last[0] is None
        lease = mesh.claim(request(1))
        eventually(lambda: views.last.lease_of(host(1)) == lease)
        written_s = time.monotonic()
        moved = renew(mesh, lease, node_address=IPv4Address("192.0.2.99"), memory_ttl_s=3600)
        eventually(lambda: views.last.lease_of(host(1)) == moved, every_s=0.005)
        assert time.monotonic() - written_s < 0.5
        mesh.release(host(1))
        eventually(lambda: views.last.leases == ())


def test_promise_4_a_wipe_is_seen_although_holders_are_back_before_it_is(mesh: Registry) -> None:
    """Else those who are not back yet would be taken for gone, one by one."""
    for number in range(3):
        mesh.claim(request(number))
    seen, stuck, go_on = Heard(), threading.Event(), threading.Event()

    def on_view(view: View) -> None:
        seen(view)
        if len(view.leases) == 4:
            stuck.set()
            assert go_on.wait(20)

    following = Directory(mesh, on_view, Heard())
    following.start()
    try:
        eventually(lambda: len(seen) > 0)
        mesh.claim(request(3))
        assert stuck.wait(20)
        keys = [mesh.keys.of(LEASES, lease.subnet) for lease in seen.last.leases]
        mesh.client.txn("w", [], [kv.delete(key) for key in keys])
        mesh.claim(request(0, registering=True))
        go_on.set()
        eventually(lambda: len(seen.last.leases) == 1)
    finally:
        go_on.set()
        following.stop()
    assert 0 in [len(view.leases) for view in seen.items]


def test_a_backlog_is_one_view_on_a_host_that_is_short_of_processor_time(mesh: Registry) -> None:
    """Else such a host would make one view of each change, and fall further behind."""
    seen, stuck, go_on, slow = Heard(), threading.Event(), threading.Event(), itertools.count()

    def on_view(view: View) -> None:
        seen(view)
        if view.leases:
            stuck.set()
            assert go_on.wait(20)

    late_s = 2 * follower._COALESCE_S
    following = Directory(
        mesh, on_view, Heard(), clock=lambda: time.monotonic() + late_s * next(slow)
    )
    following.start()
    try:
        eventually(lambda: len(seen) > 0)
        mesh.claim(request(0))
        assert stuck.wait(20)
        before = len(seen)
        for number in range(1, 13):
            mesh.claim(request(number))
        stream = following._stream
        assert stream is not None
        eventually(lambda: stream.waiting >= 12)
        go_on.set()
        eventually(lambda: len(seen.last.leases) == 13)
        assert len(seen) - before <= 2
    finally:
        go_on.set()
        following.stop()


def test_promise_4_a_malformed_record_removes_nothing(mesh: Registry, etcd: Etcd) -> None:
    leases = tuple(sorted((mesh.claim(request(n)) for n in range(3)), key=lambda e: e.subnet))
    with follow(mesh) as (views, _):
        for key, value in {
            "subnets/10.70.0.0-16": "not json",
            "subnets/nonsense": _FLANNEL,
            "subnets/10.71.0.0-16": '{"PublicIP":"10.64.0.1"}',
            "subnets/99.0.0.0-16": _FLANNEL,
            "hosts/x": "{}",
            "memory/x": "{}",
            "reservations/10.0.0.0-33": "{}",
        }.items():
            etcd.put(f"/hostmesh/{key}", value)
        eventually(lambda: len(views.last.set_aside) == 7)
        assert all(view.leases == leases for view in views.items)


def test_promise_4_a_config_that_becomes_garbage_costs_no_lease(mesh: Registry, etcd: Etcd) -> None:
    lease = mesh.claim(request(1))
    with follow(mesh) as (views, _):
        etcd.put("/hostmesh/config", "garbage")
        eventually(lambda: views.last.config_problem)
        assert (views.last.config, views.last.leases) == (None, (lease,))
        etcd.ctl("del", "/hostmesh/config")
        eventually(lambda: not views.last.config_problem)
        assert (views.last.config, views.last.leases) == (None, (lease,))


def test_a_gap_in_the_watch_ends_in_a_complete_view(mesh: Registry, etcd: Etcd) -> None:
    """A change of a peer while the watch was broken is seen although its subnet is the same."""
    lease = mesh.claim(request(1))
    gone = mesh.claim(request(2))
    with follow(mesh) as (views, problems):
        etcd.kill()
        eventually(lambda: problems.last[0] is not None, timeout_s=15)
        etcd.start()
        etcd.wait_healthy(mesh.client)
        moved = renew(mesh, lease, node_address=IPv4Address("192.0.2.99"), memory_ttl_s=3600)
        mesh.release(host(2))
        eventually(lambda: views.last.leases == (moved,), timeout_s=15)
        assert gone.subnet not in {each.subnet for each in views.last.leases}
        eventually(lambda: problems.last[0] is None)
        assert all(view.leases for view in views.items)


def test_compaction_inside_a_gap_ends_in_a_complete_view(
    mesh: Registry, etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot that the watch goes on from is compacted away before the watch starts."""
    mesh.claim(request(1))
    stale = mesh.records()
    for number in range(2, 6):
        mesh.claim(request(number))
    revision = mesh.snapshot().revision
    etcd.ctl("compact", str(revision))
    reads = iter([stale])
    real = mesh.records
    monkeypatch.setattr(mesh, "records", lambda *arguments: next(reads, None) or real(*arguments))
    with follow(mesh) as (views, _):
        eventually(lambda: len(views.last.leases) == 5)
        assert _current(views, mesh)


def test_compaction_under_a_running_watch_is_survived(mesh: Registry, etcd: Etcd) -> None:
    with follow(mesh) as (views, _):
        for number in range(5):
            mesh.claim(request(number))
            etcd.ctl("compact", str(mesh.snapshot().revision))
        eventually(lambda: len(views.last.leases) == 5)
        assert _current(views, mesh)


def test_a_cancelled_watch_ends_in_a_new_snapshot(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.etcd import watch  # noqa: PLC0415  # only here is a response forged

    with follow(mesh) as (views, _):
        real = watch._events
        cancelled: list[object] = []

        def cancel_once(response: object) -> object:
            if not cancelled:
                cancelled.append(response)
                raise EtcdUnavailable("cancelled by the test")
            return real(response)

        monkeypatch.setattr(watch, "_events", cancel_once)
        lease = mesh.claim(request(1))
        eventually(lambda: views.last.lease_of(host(1)) == lease)
        assert cancelled


@pytest.mark.parametrize("created", [False, True], ids=["not created", "ended at once"])
def test_promise_9_an_etcd_that_can_be_read_and_not_watched_is_told_and_read_ever_less_often(
    mesh: Registry, monkeypatch: pytest.MonkeyPatch, created: bool
) -> None:
    """As behind a proxy that lets no stream pass. Views go on; and so they do when it is mended."""
    real, tries = mesh.client.watch, Heard()

    def broken(ranges: Sequence[tuple[bytes, bytes]], after: int) -> WatchStream:
        tries(after)
        if not created:
            raise EtcdUnavailable("no stream here")
        stream = real(ranges, after)
        stream._call.cancel()
        return stream

    monkeypatch.setattr(follower, "_STEADY_S", 1.0)
    monkeypatch.setattr(mesh.client, "watch", broken)
    with follow(mesh) as (views, problems):
        eventually(lambda: problems.last[0] is not None)
        assert "can be read and not be watched" in problems.last[0].message
        lease = mesh.claim(request(1))
        eventually(lambda: views.last.lease_of(host(1)) == lease)
        assert len(tries) <= 10  # 0.2 s, doubled each time
        before = len(problems)
        monkeypatch.undo()
        monkeypatch.setattr(follower, "_STEADY_S", 1.0)
        eventually(lambda: problems.last[0] is None, timeout_s=15)
        assert len(problems) == before + 1


def test_a_stopped_etcd_is_noticed_within_15_s_and_its_return_too(
    mesh: Registry, etcd: Etcd
) -> None:
    lease = mesh.claim(request(1))
    with follow(mesh) as (views, problems):
        etcd.pause()
        stopped_s = time.monotonic()
        eventually(lambda: problems.last[0] is not None, timeout_s=16)
        assert time.monotonic() - stopped_s < 15
        assert isinstance(problems.last[0], EtcdUnavailable)
        assert etcd.endpoint in str(problems.last[0])
        assert stopped_s - 5 < problems.last[1] < stopped_s + 1
        etcd.resume()
        eventually(lambda: problems.last[0] is None, timeout_s=15)
        assert views.last.leases == (lease,)


def test_a_member_without_a_leader_is_left_although_it_accepts_connections() -> None:
    """One of three alone still accepts connections; with hasleader it refuses."""
    with cluster() as members, registry(members[0]) as mesh:
        mesh.create_config(config())
        with follow(mesh) as (views, problems):
            members[1].pause()
            members[2].pause()
            eventually(lambda: problems.last[0] is not None, timeout_s=15)
            members[1].resume()
            members[2].resume()
            eventually(lambda: problems.last[0] is None, timeout_s=15)
            lease = mesh.claim(request(1))
            eventually(lambda: views.last.lease_of(host(1)) == lease, timeout_s=15)


def test_promise_4_an_empty_etcd_in_place_of_the_old_is_another_cluster(
    mesh: Registry, etcd: Etcd
) -> None:
    from agent.registry import trust  # noqa: PLC0415  # only here

    for number in range(4):
        mesh.claim(request(number))
    believed = mesh.snapshot()
    etcd.kill()
    etcd.wipe()
    etcd.arguments += ["--initial-cluster-token", "another"]
    etcd.start()
    etcd.wait_healthy(mesh.client)
    verdict = trust.judge(believed, mesh.snapshot())
    assert verdict.kind is trust.VerdictKind.OTHER_CLUSTER
    mesh.client.txn("w", [], [kv.put(b"/hostmesh/x", b"")])


def test_promise_10_a_flood_of_unknown_keys_neither_grows_memory_nor_slows_a_change(
    mesh: Registry,
) -> None:
    """100,000 of them, while the mesh is followed; the next list passes over them, too."""
    batch, of_each = kv.MAX_OPERATIONS, 50_000
    with follow(mesh) as (views, _):
        count = len(views)
        tracemalloc.start()
        try:
            at_first, _ = tracemalloc.get_traced_memory()
            for folder in ("middle", "zebra"):
                for first in range(0, of_each, batch):
                    numbers = range(first, min(first + batch, of_each))
                    keys = [f"{mesh.keys.prefix}/{folder}/{number}" for number in numbers]
                    mesh.client.txn("w", [], [kv.put(key.encode(), b"x" * 40) for key in keys])
            started_s = time.monotonic()
            mesh.claim(request(1))
            claimed_s = time.monotonic()
            eventually(lambda: views.last.lease_of(host(1)))
            seen_s = time.monotonic()
            grown, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert grown - at_first < 4 * 1024 * 1024
        assert len(views) - count <= 2, "no view for what no view shows"
        assert claimed_s - started_s < 5, "a claim lists the mesh"
        assert seen_s - claimed_s < 5
        assert _current(views, mesh)
    pages = []
    real = mesh.client.range

    def counted(*args: Any, **more: Any) -> Page:  # noqa: ANN401  # handed on
        pages.append(real(*args, **more))
        return pages[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh.client, "range", counted)
        records = mesh.records()
    assert len(pages) <= 4
    assert 0 < records.unknown.count <= 2_000
    assert records.view().lease_of(host(1)) is not None
