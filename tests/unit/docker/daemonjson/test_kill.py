"""kill -9 and power cut at every step of a write: the old file or the new, a way on from both."""

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from agent.docker.daemonjson.desired import desired_docker, keys_for
from agent.docker.daemonjson.store import DaemonJsonStore
from agent.docker.daemonjson.undo_journal import Failure, Phase
from tests.unit.docker.daemonjson.powercut import Disk

pytestmark = pytest.mark.unit

KEYS = keys_for(desired_docker(IPv4Network("10.64.0.0/16"), 1450), "26.1")
OTHER = keys_for(desired_docker(IPv4Network("10.65.0.0/16"), 1400), "26.1")
TEXT = b'{\n  "debug": true,\n  "bip" : "192.168.5.1/24"\n}\n'
# Every write goes through these; a kill comes before and after each.
STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown"}


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do ``work`` in a child that dies at its ``step``-th step; whether it died there."""
    child = os.fork()
    if child == 0:
        seen = 0

        def count() -> None:
            nonlocal seen
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

        def audit(event: str, args: tuple[object, ...]) -> None:
            if event in STEPS and str(args[0]).find("hostmesh-kill") >= 0:
                count()

        real_sync = os.fsync

        def fsync(descriptor: int) -> None:
            count()
            real_sync(descriptor)
            count()

        os.fsync = fsync  # type: ignore[assignment]
        sys.addaudithook(audit)
        try:
            work()
        except BaseException:  # noqa: BLE001 - a child of a test must never return into pytest
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def kill_everywhere(
    folder: Path,
    prepare: Callable[[DaemonJsonStore, Path], None],
    work: Callable[[DaemonJsonStore], object],
    check: Callable[[DaemonJsonStore, Path], None],
) -> int:
    """Kill ``work`` at its first step, its second, … until it ends unkilled; return how many."""
    step = 0
    while True:
        step += 1
        base = folder / f"hostmesh-kill-{step}"
        file = base / "etc/docker/daemon.json"
        store = DaemonJsonStore(file, base / "state")
        prepare(store, file)
        died = killed_at(step, partial(work, DaemonJsonStore(file, base / "state")))
        check(DaemonJsonStore(file, base / "state"), file)
        if not died:
            return step


def cut_everywhere(
    folder: Path,
    prepare: Callable[[DaemonJsonStore, Path], None],
    work: Callable[[DaemonJsonStore], object],
    check: Callable[[DaemonJsonStore, Path], None],
) -> int:
    """Cut the power at every moment of ``work``; return how many states that can leave."""
    base = folder / "cut"
    base.mkdir()
    file = base / "etc/docker/daemon.json"
    prepare(DaemonJsonStore(file, base / "state"), file)
    disk = Disk(base)
    with disk.watched():
        work(DaemonJsonStore(file, base / "state"))
    for state in disk.states:
        disk.put(state)
        check(DaemonJsonStore(file, base / "state"), file)
    return len(disk.states)


Everywhere = Callable[..., int]
everywhere = pytest.mark.parametrize("everywhere", [kill_everywhere, cut_everywhere])


def put(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    file.chmod(0o640)


def bip_of(file: Path) -> str | None:
    return json.loads(file.read_bytes())["bip"] if file.exists() else None


@everywhere
@pytest.mark.parametrize("existed", [True, False])
def test_promise_6_a_cut_while_writing_leaves_old_or_new_and_both_undoable(
    tmp_path: Path, existed: bool, everywhere: Everywhere
) -> None:
    seen: set[str | None] = set()

    def prepare(_: DaemonJsonStore, file: Path) -> None:
        if existed:
            put(file, TEXT)

    def check(store: DaemonJsonStore, file: Path) -> None:
        seen.add(bip_of(file))
        assert not file.exists() or file.stat().st_mode & 0o777 == (0o640 if existed else 0o644)
        store.change(store.read(), KEYS)
        assert bip_of(file) == "10.64.0.1/17"
        store.restore()
        assert (file.read_bytes() if file.exists() else None) == (TEXT if existed else None)
        assert file.parent.exists() == existed

    steps = everywhere(tmp_path, prepare, lambda s: s.change(s.read(), KEYS), check)
    assert steps > 5
    assert seen == {"192.168.5.1/24" if existed else None, "10.64.0.1/17"}


@everywhere
def test_promise_6_a_cut_while_the_lease_changes_keeps_the_written_keys_known(
    tmp_path: Path, everywhere: Everywhere
) -> None:
    def prepare(store: DaemonJsonStore, file: Path) -> None:
        put(file, TEXT)
        store.change(store.read(), KEYS)
        store.mark(Phase.APPLIED)

    def check(store: DaemonJsonStore, file: Path) -> None:
        assert bip_of(file) in {"10.64.0.1/17", "10.65.0.1/17"}
        snapshot = store.read()
        assert snapshot.journal is not None
        for change in snapshot.journal.changes:
            assert change.is_ours(snapshot.document.value(change.path)), "taken for the operator's"
        store.restore()
        assert file.read_bytes() == TEXT

    assert everywhere(tmp_path, prepare, lambda s: s.change(s.read(), OTHER), check) > 5


@everywhere
def test_promise_6_a_cut_while_restoring_can_be_restored_again(
    tmp_path: Path, everywhere: Everywhere
) -> None:
    def prepare(store: DaemonJsonStore, file: Path) -> None:
        put(file, TEXT)
        store.change(store.read(), KEYS)

    def check(store: DaemonJsonStore, file: Path) -> None:
        assert bip_of(file) in {"10.64.0.1/17", "192.168.5.1/24"}
        store.restore()
        assert file.read_bytes() == TEXT
        assert store.journal() is None

    assert everywhere(tmp_path, prepare, lambda s: s.restore(), check) > 5


@everywhere
def test_promise_6_a_cut_while_rolling_back_can_be_rolled_back_again(
    tmp_path: Path, everywhere: Everywhere
) -> None:
    failure = Failure("name", "why")

    def prepare(store: DaemonJsonStore, file: Path) -> None:
        put(file, TEXT)
        store.change(store.read(), KEYS)
        store.mark(Phase.RESTARTING)

    def check(store: DaemonJsonStore, file: Path) -> None:
        assert bip_of(file) in {"10.64.0.1/17", "192.168.5.1/24"}
        store.roll_back(failure)
        assert file.read_bytes() == TEXT
        store.restore()
        assert file.read_bytes() == TEXT

    assert everywhere(tmp_path, prepare, lambda s: s.roll_back(failure), check) > 5


@everywhere
def test_promise_6_a_cut_while_keys_are_taken_out_can_be_done_again(
    tmp_path: Path, everywhere: Everywhere
) -> None:
    failure = Failure("name", "why")

    def prepare(store: DaemonJsonStore, file: Path) -> None:
        put(file, TEXT)
        store.change(store.read(), KEYS)
        store.mark(Phase.APPLIED)
        store.change(store.read(), OTHER)
        store.roll_back(failure)

    def check(store: DaemonJsonStore, file: Path) -> None:
        assert bip_of(file) in {"10.64.0.1/17", "192.168.5.1/24"}
        store.take_out()
        assert file.read_bytes() == TEXT
        store.change(store.read(), KEYS)
        store.restore()
        assert file.read_bytes() == TEXT

    assert everywhere(tmp_path, prepare, lambda s: s.take_out(), check) > 5


def test_what_a_kill_left_behind_is_cleared_by_the_next_write(tmp_path: Path) -> None:
    file = tmp_path / "etc/docker/daemon.json"
    store = DaemonJsonStore(file, tmp_path / "state")
    put(file, TEXT)
    (file.parent / ".daemon.json.hostmesh-new").write_text("half")
    store.change(store.read(), KEYS)
    assert [entry.name for entry in file.parent.iterdir()] == ["daemon.json"]
