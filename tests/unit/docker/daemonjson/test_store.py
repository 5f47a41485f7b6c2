"""daemon.json on disk: kept, journalled, given back."""

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from agent.docker.daemonjson.desired import BIP, MTU, NETWORK_MTU, desired_docker, keys_for
from agent.docker.daemonjson.document import JsonValue, KeyPath
from agent.docker.daemonjson.store import DaemonJsonStore
from agent.docker.daemonjson.undo_journal import Failure, Phase, dump, load
from agent.errors import DockerConfigError, StateError

pytestmark = pytest.mark.unit

KEYS = keys_for(desired_docker(IPv4Network("10.64.0.0/16"), 1450), "26.1")
OTHER = keys_for(desired_docker(IPv4Network("10.65.0.0/16"), 1400), "26.1")
TEXT = '{\n  "debug": true,\n  "bip": "192.168.5.1/24"\n}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "etc/docker/daemon.json"


@pytest.fixture
def store(tmp_path: Path, file: Path) -> DaemonJsonStore:
    return DaemonJsonStore(file, tmp_path / "state")


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode())


def change(store: DaemonJsonStore, values: dict[KeyPath, JsonValue] | None = None) -> None:
    store.change(store.read(), KEYS if values is None else values)


def test_folder_and_file_are_made_and_go_again(store: DaemonJsonStore, file: Path) -> None:
    change(store)
    assert json.loads(file.read_text())["bip"] == "10.64.0.1/17"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert store.restore()
    assert not file.parent.exists()
    assert store.journal() is None


def test_a_folder_with_another_file_stays(store: DaemonJsonStore, file: Path) -> None:
    change(store)
    (file.parent / "key.json").write_text("{}")
    store.restore()
    assert not file.exists()
    assert (file.parent / "key.json").exists()


@pytest.mark.parametrize("text", ["", "\n", "{}", "{ }\n", "{\n\n}", TEXT, TEXT.strip()])
def test_promise_7_leave_restores_the_original_byte_for_byte(
    store: DaemonJsonStore, file: Path, text: str
) -> None:
    write(file, text)
    change(store)
    change(store, dict(OTHER))
    change(store, {BIP: "10.66.0.1/17"})
    assert file.read_text() != text
    assert store.restore()
    assert file.read_bytes() == text.encode()
    assert not store.restore()


def test_promise_7_leave_keeps_what_the_operator_wrote_since(
    store: DaemonJsonStore, file: Path
) -> None:
    write(file, TEXT)
    change(store)
    edited = file.read_text().replace('"debug": true', '"debug":  false,\n  "ipv6": true')
    file.write_text(edited)
    store.restore()
    assert file.read_text() == TEXT.replace('"debug": true', '"debug":  false,\n  "ipv6": true')


def test_promise_7_a_written_key_that_the_operator_changed_is_theirs(
    store: DaemonJsonStore, file: Path
) -> None:
    write(file, TEXT)
    change(store)
    file.write_text(file.read_text().replace("10.64.0.1/17", "10.9.9.9/24"))
    store.restore()
    assert json.loads(file.read_text()) == {"debug": True, "bip": "10.9.9.9/24"}


def test_what_the_operator_added_beside_the_nested_key_stays(
    store: DaemonJsonStore, file: Path
) -> None:
    change(store)
    document = json.loads(file.read_text())
    document["default-network-opts"]["bridge"]["x"] = "y"
    file.write_text(json.dumps(document))
    store.restore()
    assert json.loads(file.read_text()) == {"default-network-opts": {"bridge": {"x": "y"}}}


def test_a_file_the_operator_removed_stays_removed(store: DaemonJsonStore, file: Path) -> None:
    write(file, TEXT)
    change(store)
    file.unlink()
    assert not store.restore()
    assert not file.exists()


def test_the_operators_later_value_is_what_comes_back(store: DaemonJsonStore, file: Path) -> None:
    write(file, TEXT)
    change(store)
    file.write_text(file.read_text().replace("10.64.0.1/17", "10.9.9.9/24"))
    change(store)
    store.restore()
    assert json.loads(file.read_text()) == {"debug": True, "bip": "10.9.9.9/24"}


def test_a_key_no_longer_wanted_goes_back_and_the_others_stay(
    store: DaemonJsonStore, file: Path
) -> None:
    write(file, '{"mtu": 9000}')
    change(store)
    few = {path: value for path, value in KEYS.items() if path not in {MTU, NETWORK_MTU}}
    store.change(store.read(), few, drop=(MTU, NETWORK_MTU))
    document = json.loads(file.read_text())
    assert document["mtu"] == 9000
    assert "default-network-opts" not in document
    store.restore()
    assert file.read_text() == '{"mtu": 9000}'


def test_the_same_again_writes_nothing(store: DaemonJsonStore, file: Path) -> None:
    change(store)
    before = file.stat()
    change(store)
    after = file.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_values_the_operator_had_already_stay_theirs(store: DaemonJsonStore, file: Path) -> None:
    write(file, '{"bip": "10.64.0.1/17"}')
    change(store)
    store.restore()
    assert file.read_text() == '{"bip": "10.64.0.1/17"}'


def test_mode_and_owner_are_kept(store: DaemonJsonStore, file: Path) -> None:
    write(file, TEXT)
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 12, 34)
    before = file.stat()
    change(store)
    after = file.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    store.restore()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to give up")
@pytest.mark.parametrize(("uid", "gid"), [(0, 34), (12, 34)])
def test_mode_and_owner_are_kept_with_no_more_than_the_units_capabilities(
    file: Path, tmp_path: Path, uid: int, gid: int
) -> None:
    unit = (Path(__file__).parents[4] / "systemd/hostmesh-agent.service").read_text()
    allowed = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)[-1].lower()
    bounds = ",".join(f"+{name.removeprefix('cap_')}" for name in allowed.split())
    write(file, TEXT)
    file.chmod(0o644)
    os.setxattr(file, "user.note", b"mine")
    file.chmod(0o640 if uid == 0 else 0o644)
    os.chown(file, uid, gid)
    program = (
        "import sys; from ipaddress import IPv4Network as N; from pathlib import Path\n"
        "from agent.docker.daemonjson.store import DaemonJsonStore\n"
        "from agent.docker.daemonjson.desired import keys_for, desired_docker\n"
        "store = DaemonJsonStore(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "store.change(store.read(), keys_for(desired_docker(N('10.64.0.0/16'), None), '26.1'))\n"
    )
    drop = ["setpriv", f"--bounding-set=-all,{bounds}", "--inh-caps=-all", "--no-new-privs"]
    subprocess.run(
        [*drop, sys.executable, "-c", program, str(file), str(tmp_path / "state")],
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[4],
    )
    after = file.stat()
    assert json.loads(file.read_text())["bip"] == "10.64.0.1/17"
    assert (after.st_uid, after.st_gid) == (uid, gid)
    assert stat.S_IMODE(after.st_mode) == (0o640 if uid == 0 else 0o644)
    assert os.getxattr(file, "user.note") == b"mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize(
    ("mount", "hint"),
    [
        ("mount --bind {0} {0} && mount -o remount,bind,ro {0}", "ReadWritePaths="),
        ("mount --bind {1} {1}", "mount its folder instead"),
    ],
)
def test_a_link_to_where_the_agent_may_not_write_is_an_error_and_changes_nothing(
    file: Path, tmp_path: Path, mount: str, hint: str
) -> None:
    """The hardened unit has every folder read-only but those of ReadWritePaths=."""
    target = tmp_path / "srv/daemon.json"
    write(target, TEXT)
    file.parent.mkdir(parents=True)
    file.symlink_to(target)
    program = (
        "import sys; from ipaddress import IPv4Network as N; from pathlib import Path\n"
        "from agent.docker.daemonjson.store import DaemonJsonStore\n"
        "from agent.docker.daemonjson.desired import keys_for, desired_docker\n"
        "from agent.errors import DockerConfigError\n"
        "store = DaemonJsonStore(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "wanted = keys_for(desired_docker(N('10.64.0.0/16'), None), '26.1')\n"
        "try: store.change(store.read(), wanted)\n"
        "except DockerConfigError as error: print(error.message, error.hint)\n"
    )
    argv = [sys.executable, "-c", program, str(file), str(tmp_path / "state")]
    inside = f"{mount.format(target.parent, target)} && exec {shlex.join(argv)}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inside],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[4],
    )
    assert str(target) in done.stdout
    assert hint in done.stdout
    assert (file.is_symlink(), target.read_text()) == (True, TEXT)
    assert [each.name for each in target.parent.iterdir()] == ["daemon.json"]


def test_extended_attributes_are_kept(store: DaemonJsonStore, file: Path) -> None:
    write(file, TEXT)
    try:
        os.setxattr(file, "user.note", b"mine")
    except OSError:
        pytest.skip("no extended attributes on this file system")
    change(store)
    assert os.getxattr(file, "user.note") == b"mine"


@pytest.mark.parametrize("dangling", [True, False])
def test_a_symlink_is_followed_and_stays_one(
    store: DaemonJsonStore, file: Path, tmp_path: Path, dangling: bool
) -> None:
    target = tmp_path / "srv/daemon.json"
    if not dangling:
        write(target, TEXT)
    file.parent.mkdir(parents=True)
    file.symlink_to("../../srv/daemon.json")
    change(store)
    assert file.is_symlink()
    assert json.loads(target.read_text())["mtu"] == 1450
    store.restore()
    assert file.is_symlink()
    assert target.exists() is not dangling


def test_a_circle_of_symlinks_is_refused(store: DaemonJsonStore, file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.symlink_to("other.json")
    (file.parent / "other.json").symlink_to("daemon.json")
    with pytest.raises(DockerConfigError, match="symbolic link"):
        store.read()


@pytest.mark.parametrize("kind", ["folder", "fifo", "device"])
def test_what_is_no_file_is_refused_without_hanging(
    store: DaemonJsonStore, file: Path, kind: str
) -> None:
    file.parent.mkdir(parents=True)
    if kind == "folder":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/null")
    with pytest.raises(DockerConfigError):
        store.read()


def test_damage_is_refused_and_nothing_written(
    store: DaemonJsonStore, file: Path, tmp_path: Path
) -> None:
    write(file, '{\n  "debug": true,\n}\n')
    with pytest.raises(DockerConfigError, match=r"daemon\.json:3:1"):
        store.read()
    assert not (tmp_path / "state").exists()
    assert [entry.name for entry in file.parent.iterdir()] == ["daemon.json"]


def test_a_file_that_changed_meanwhile_is_not_overwritten(
    store: DaemonJsonStore, file: Path
) -> None:
    write(file, TEXT)
    snapshot = store.read()
    write(file, '{"debug": false}')
    with pytest.raises(DockerConfigError, match="changed while"):
        store.change(snapshot, KEYS)
    assert file.read_text() == '{"debug": false}'


def test_a_journal_that_cannot_be_written_leaves_the_file_alone(tmp_path: Path, file: Path) -> None:
    (tmp_path / "state").write_text("a file, not a folder")
    store = DaemonJsonStore(file, tmp_path / "state")
    write(file, TEXT)
    with pytest.raises((StateError, DockerConfigError)):
        store.change(store.read(), KEYS)
    assert file.read_text() == TEXT


def test_a_damaged_journal_is_an_error_not_a_guess(store: DaemonJsonStore, tmp_path: Path) -> None:
    change(store)
    journal = tmp_path / "state/daemon.json.journal"
    journal.write_text(journal.read_text()[:-20])
    with pytest.raises(StateError, match="damaged"):
        store.journal()
    journal.write_text('{"format": 99}')
    with pytest.raises(StateError, match="later"):
        store.journal()


def test_the_first_original_is_kept_for_people_to_see(
    store: DaemonJsonStore, file: Path, tmp_path: Path
) -> None:
    write(file, TEXT)
    change(store)
    change(store, dict(OTHER))
    copy = tmp_path / "state/daemon.json.before-hostmesh"
    assert copy.read_text() == TEXT
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    store.restore()
    assert not copy.exists()


def test_the_journal_survives_being_stored(store: DaemonJsonStore, file: Path) -> None:
    write(file, TEXT)
    change(store)
    journal = store.journal()
    assert journal is not None
    assert load(dump(journal), source="x") == journal
    older = json.loads(dump(journal))
    assert older["pristine"] is False, "versions before 0.2 then undo keys, as this one does"
    assert load(json.dumps({**older, "pristine": True}), source="x") == journal


def test_promise_7_roll_back_returns_the_file_before_the_last_change(
    store: DaemonJsonStore, file: Path
) -> None:
    write(file, TEXT)
    change(store)
    store.mark(Phase.APPLIED)
    first = file.read_bytes()
    change(store, dict(OTHER))
    assert store.roll_back(Failure("name", "why"))
    assert file.read_bytes() == first
    journal = store.journal()
    assert journal is not None
    assert journal.failure == Failure("name", "why")
    assert journal.phase is Phase.ROLLED_BACK
    assert not store.roll_back(Failure("name", "why"))
    store.restore()
    assert file.read_text() == TEXT


def test_roll_back_of_the_first_change_removes_a_file_that_was_not_there(
    store: DaemonJsonStore, file: Path
) -> None:
    change(store)
    store.roll_back(Failure("name", "why"))
    assert not file.exists()


def test_promise_7_roll_back_keeps_what_the_operator_wrote_since(
    store: DaemonJsonStore, file: Path
) -> None:
    write(file, TEXT)
    change(store)
    file.write_text(file.read_text().replace('"debug": true', '"debug": false'))
    store.roll_back(Failure("name", "why"))
    assert file.read_text() == TEXT.replace('"debug": true', '"debug": false')


def test_a_failure_is_forgotten_once_a_change_is_applied(store: DaemonJsonStore) -> None:
    change(store)
    store.roll_back(Failure("name", "why"))
    store.mark(Phase.APPLIED)
    journal = store.journal()
    assert journal is not None
    assert journal.failure is not None
    change(store, dict(OTHER))
    store.mark(Phase.APPLIED)
    journal = store.journal()
    assert journal is not None
    assert journal.failure is None


def test_promise_7_written_keys_are_known_after_a_roll_back(
    store: DaemonJsonStore, file: Path
) -> None:
    """Else the previous lease would be taken for the operator's, and block for ever."""
    write(file, TEXT)
    change(store)
    store.mark(Phase.APPLIED)
    change(store, dict(OTHER))
    store.roll_back(Failure("name", "why"))
    store.mark(Phase.APPLIED)
    snapshot = store.read()
    assert snapshot.journal is not None
    for each in snapshot.journal.changes:
        assert each.is_ours(snapshot.document.value(each.path)), each.path
    file.write_text(file.read_text().replace('"debug": true', '"debug": false'))
    store.restore()
    assert file.read_text() == TEXT.replace('"debug": true', '"debug": false')


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("edited", [True, False])
def test_promise_7_roll_back_skips_files_that_no_engine_was_seen_with(
    store: DaemonJsonStore, file: Path, applied: bool, edited: bool
) -> None:
    """Several changes while the restart waits: none of them is known to start."""
    write(file, TEXT)
    if applied:
        change(store)
        store.mark(Phase.APPLIED)
    known = file.read_text()
    change(store, dict(OTHER))
    if edited:
        file.write_text(file.read_text().replace('"debug": true', '"debug": false'))
        known = TEXT.replace('"debug": true', '"debug": false')
    change(store, {BIP: "10.66.0.1/17"})
    change(store, {BIP: "10.67.0.1/17"})
    assert store.roll_back(Failure("name", "why"))
    assert file.read_text() == known
    snapshot = store.read()
    assert snapshot.journal is not None
    for each in snapshot.journal.changes:
        assert each.is_ours(snapshot.document.value(each.path)), each.path
    store.restore()
    assert file.read_text() == (known if edited else TEXT)


def test_the_last_resort_is_what_the_operator_wrote(store: DaemonJsonStore, file: Path) -> None:
    write(file, TEXT)
    change(store)
    store.mark(Phase.APPLIED)
    change(store, dict(OTHER))
    store.roll_back(Failure("name", "why"))
    assert store.take_out()
    assert file.read_text() == TEXT
    journal = store.journal()
    assert journal is not None
    assert (journal.changes, journal.failure) == ((), Failure("name", "why"))
    assert not store.take_out()
    change(store)
    store.restore()
    assert file.read_text() == TEXT
