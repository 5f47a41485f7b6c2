"""The history of events: bounded, in order, and whole after kill -9 and a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.daemon.state.conditions import ConditionSource
from agent.daemon.telemetry.condition_registry import ConditionRegistry
from agent.daemon.telemetry.history import History, events_document, read_events
from agent.daemon.telemetry.observer import Observer
from agent.errors import StateError
from agent.model import Condition, HostId, Lease, View

pytestmark = pytest.mark.unit


def texts(folder: Path) -> list[str]:
    return [each.text for each in read_events(folder)]


def test_numbers_go_on_over_restarts(tmp_path: Path) -> None:
    first = History(tmp_path, wall_clock=lambda: 5.0)
    first.record("agent-started", "one")
    first.flush()
    second = History(tmp_path)
    second.record("agent-started", "two")
    assert [each.number for each in second.events()] == [1, 2]  # one on disk, one not yet
    second.flush()
    assert texts(tmp_path) == ["one", "two"]
    assert [e["id"] for e in events_document(read_events(tmp_path), after=1)["events"]] == [2]


def test_promise_10_the_ring_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    history = History(tmp_path, limit_bytes=10_000)
    for number in range(2000):
        history.record("x", f"event {number}")
        if number % 7 == 0:
            history.flush()
    history.flush()
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 22_000
    kept = texts(tmp_path)
    assert kept[-1] == "event 1999"
    assert kept == [f"event {number}" for number in range(2000 - len(kept), 2000)]
    assert len(kept) > 80


def test_a_line_that_was_cut_off_costs_that_line(tmp_path: Path) -> None:
    history = History(tmp_path)
    for text in ("one", "two"):
        history.record("x", text)
    history.flush()
    path = tmp_path / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    again = History(tmp_path)
    again.record("x", "three")
    again.flush()
    assert texts(tmp_path) == ["one", "three"]
    (tmp_path / "events.old.jsonl").write_bytes(b'{"id": "x"}\n[1]\n\xff\xfe\n' + b"[" * 9000)
    assert texts(tmp_path) == ["one", "three"]


def test_kill_9_at_any_time_leaves_whole_events(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from agent.daemon.telemetry.history import History\n"
        f"h = History(Path({str(tmp_path)!r}), limit_bytes=4000)\n"
        "n = 0\nwhile True:\n n += 1\n h.record('x', f'event {n} ' + 'y' * 50); h.flush()\n"
        " print(n, flush=True)\n"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        reported = 0
        while reported < 60:
            reported = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        reported = int((process.stdout.read().split() or [b"%d" % reported])[-1])
        process.wait(10)
        process.stdout.close()
        kept = read_events(tmp_path)
        assert int(kept[-1].text.split()[1]) >= reported
        numbers = [each.number for each in kept]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))


def test_a_full_disk_is_a_condition_and_nothing_is_lost_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    observer = Observer(History(tmp_path), clock=lambda: now_s[0])
    conditions = ConditionRegistry(lambda: now_s[0], observer)
    observer.happened("x", "before")
    assert observer.flush() == ()
    size = (tmp_path / "events.jsonl").stat().st_size
    write = os.write
    written: list[int] = []

    def full(file: int, data: bytes) -> int:
        if not written:
            written.append(write(file, data[:10]))
            return 10
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    observer.happened("x", "while full")
    found = observer.flush()
    assert found is not None
    conditions.replace(ConditionSource.EVENTS, found)
    assert found[0].name == "events-not-written"
    assert "No space left" in found[0].cause
    assert (tmp_path / "events.jsonl").stat().st_size == size  # no half line
    assert observer.flush() is None  # not at once again
    monkeypatch.undo()
    now_s[0] = 6.0
    found = observer.flush()
    assert found == ()
    conditions.replace(ConditionSource.EVENTS, found)
    observer.flush()
    kinds = [each.kind for each in read_events(tmp_path)]
    assert kinds == ["x", "x", "condition-raised", "condition-cleared"]


def test_a_folder_that_is_a_file_is_an_error_for_operators(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    history = History(tmp_path / "else")
    history.record("x", "one")
    history._newer = tmp_path / "state" / "events.jsonl"
    with pytest.raises(StateError) as caught:
        history.flush()
    assert caught.value.hint


def test_secrets_are_struck_out(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.record("x", "https://root:hunter2@etcd:2379 is away")
    history.flush()
    assert "hunter2" not in (tmp_path / "events.jsonl").read_text()


def lease(number: int) -> Lease:
    return Lease(
        subnet=IPv4Network(f"10.{number}.0.0/16"),
        node_address=IPv4Address(f"192.0.2.{number}"),
        backend="host-gw",
        host_id=HostId(f"{number:032x}"),
        host_name=f"host{number}",
    )


def test_joins_and_leaves_are_recorded_and_bounded(tmp_path: Path) -> None:
    observer = Observer(History(tmp_path))
    own = HostId(f"{1:032x}")
    before = View(cluster_id=1, revision=1, leases=(lease(1), lease(2)))
    now = View(cluster_id=1, revision=2, leases=tuple(lease(n) for n in (1, *range(3, 33))))
    observer.view_seen(None, before, own)  # the first view is no news
    observer.view_seen(before, now, own)
    observer.flush()
    reported = texts(tmp_path)
    assert reported[0] == "host3 at 192.0.2.3 joined with 10.3.0.0/16"
    assert reported[10:] == ["and 20 hosts more", "host2 at 192.0.2.2 left with 10.2.0.0/16"]


def test_conditions_are_logged_once_each(tmp_path: Path) -> None:
    observer = Observer(History(tmp_path))
    conditions = ConditionRegistry(lambda: 0.0, observer)
    condition = Condition(name="etcd-unreachable", cause="no endpoint answered", hint="look")
    for found in ((condition,), (condition,), ()):
        conditions.replace(ConditionSource.ETCD, found)
    observer.flush()
    raw = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(each)["text"] for each in raw] == [
        "etcd-unreachable: no endpoint answered",
        "etcd-unreachable is over after 0 s",
    ]
