"""``hostmesh-agent join FILE``: whole or not at all, only on the host that it is for, resumable."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.store.host_lock import HostLock
from agent.daemon.store.state_file import StateFile
from agent.main import main
from agent.model import HostId
from agent.registry.copy import CopyFile
from agent.settings import load_settings
from agent.settings.join_token import token_text
from tests.unit.registry.test_identity_copy_trust import _VIEW, _lease
from tests.unit.settings.tokens import ID, token

pytestmark = pytest.mark.unit

_TEMPLATE = Path(__file__).parents[3] / "deploy/deb/agent.toml"
_OTHER = HostId("f" * 32)
_NOW_S = int(time.time())


class Machine:
    """A host's files, and a token that lies there."""

    def __init__(self, folder: Path) -> None:
        self.etc, self.state = folder / "etc", folder / "state"
        self.etc.mkdir()
        self.settings = self.etc / "agent.toml"
        folders = f'state_dir = "{self.state}"\nrun_dir = "{folder / "run"}"'
        self._sections = f'\n[agent]\n{folders}\n[host]\nname = "a"\n'
        self.settings.write_text(_TEMPLATE.read_text() + self._sections)
        self.token = folder / "token"
        self.put()

    def put(self, **changes: Any) -> None:  # noqa: ANN401 - fields of a token
        now_s = int(time.time())
        made = token(**{"created_s": now_s - 60, "expires_s": now_s + 60, **changes})
        self.token.write_text(token_text(made))
        self.token.chmod(0o600)

    def configure(self, etcd: str) -> None:
        self.settings.write_text(f"[etcd]\n{etcd}\n{self._sections}")

    def join(self, *words: str) -> int:
        return main(["--settings", str(self.settings), "join", *words, str(self.token)])

    def files(self) -> dict[str, tuple[str, int]]:
        """Everything but the lock, with modes."""
        return {
            str(path.relative_to(self.etc.parent)): (path.read_text(), path.stat().st_mode & 0o777)
            for folder in (self.etc, self.state)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_join_writes_account_id_and_settings_and_keeps_the_rest(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert machine.join() == 0
    said = capsys.readouterr()
    assert "now: systemctl restart hostmesh-agent, and delete" in said.out
    assert "BEGIN" not in said.out + said.err
    settings = load_settings(machine.settings)
    files = token().files
    assert settings.etcd.endpoints == token().endpoints
    assert settings.etcd.ca_file
    assert settings.etcd.ca_file.read_text() == files["ca_file"]
    assert (machine.etc / "etcd.crt").read_text() == files["cert_file"]
    assert (machine.etc / "etcd.key").read_text() == files["key_file"]
    assert (machine.etc / "etcd.key").stat().st_mode & 0o777 == 0o600
    assert (machine.state / "host-id").read_text() == f"{ID}\n"
    assert machine.state.stat().st_mode & 0o777 == 0o700
    assert (settings.host.id, settings.host.name) == (ID, "a")
    comments = [line for line in _TEMPLATE.read_text().splitlines() if line.startswith("#")]
    assert all(line in machine.settings.read_text().splitlines() for line in comments)
    assert main(["--settings", str(machine.settings), "--host-id"]) == 0
    assert capsys.readouterr().out == f"{ID}\n"


def test_a_join_on_a_bare_machine(machine: Machine) -> None:
    machine.settings.unlink()
    words = ["--settings", str(machine.settings), "--set", f"agent.state_dir={machine.state}"]
    words += ["--set", f"agent.run_dir={machine.etc.parent}/run"]
    assert main([*words, "join", str(machine.token)]) == 0
    assert tomllib.loads(machine.settings.read_text())["host"] == {"id": ID}


def test_promise_6_a_second_run_changes_nothing_and_a_lost_file_comes_back(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert machine.join() == 0
    before = machine.files()
    capsys.readouterr()
    assert machine.join() == 0
    assert capsys.readouterr().out.startswith("nothing to do")
    (machine.etc / "etcd.key").unlink()
    (machine.etc / "etcd.crt").chmod(0o666)
    assert machine.join() == 0
    assert machine.files() == before


def test_a_dry_run_checks_and_writes_nothing(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    before = machine.files()
    assert machine.join("--dry-run") == 0
    assert f"would write {machine.state}/host-id" in capsys.readouterr().out
    assert machine.files() == before
    machine.put(created_s=_NOW_S - 9, expires_s=_NOW_S - 1)
    assert machine.join("--dry-run") == 24


def _newer_version(machine: Machine) -> None:
    found = json.loads(machine.token.read_text())
    machine.token.write_text(json.dumps({**found, "hostmesh_token": 2}))


def _linked(machine: Machine) -> None:
    machine.token.rename(machine.token.with_name("elsewhere"))
    machine.token.symlink_to(machine.token.with_name("elsewhere"))


def _pipe(machine: Machine) -> None:
    machine.token.unlink()
    os.mkfifo(machine.token)


def _member_without_token(machine: Machine) -> None:
    lease = _lease(1)
    CopyFile(machine.state / "copy.json").save(view=_VIEW, lease=lease)


def _other_id(machine: Machine) -> None:
    machine.state.mkdir()
    (machine.state / "host-id").write_text(_OTHER)


def _other_file(machine: Machine) -> None:
    (machine.etc / "etcd.key").write_text("another account's\n")


def _leaving(machine: Machine) -> None:
    StateFile(machine.state).change(left=True, leaving=True)


@pytest.mark.parametrize(
    ("spoil", "status", "why"),
    [
        (lambda m: m.token.unlink(), 10, "cannot be read"),
        (lambda m: m.token.chmod(0o640), 24, "is not private"),
        (lambda m: os.chown(m.token, 65534, 65534), 24, "is not private"),
        (_linked, 10, "cannot be read"),
        (lambda m: (m.token.unlink(), m.token.mkdir()), 10, "cannot be read"),
        (_pipe, 10, "no regular file"),
        (lambda m: m.token.write_bytes(b"x" * 70_000), 10, "larger than"),
        (lambda m: m.token.write_text(m.token.read_text()[:-9]), 10, "not JSON"),
        (_newer_version, 10, "version 2"),
        (lambda m: m.put(created_s=_NOW_S - 9, expires_s=_NOW_S - 1), 24, "expired at"),
        (lambda m: m.put(created_s=_NOW_S + 4000, expires_s=_NOW_S + 5000), 24, "clock says"),
        (_other_id, 24, f"id is {_OTHER}"),
        (lambda m: m.configure('endpoints = ["http://a:1"]'), 24, "another etcd or account"),
        (lambda m: m.configure('domain = "example.org"'), 24, "another etcd or account"),
        (_member_without_token, 24, "is a member with the subnet"),
        (_other_file, 24, "has another"),
        (_leaving, 24, "not finished its last leave"),
        (lambda m: m.settings.write_text("[etcd\n"), 10, "agent.toml:1"),
        (lambda m: m.configure("[docker]\nmanage = 3"), 10, "docker.manage"),
        (lambda m: m.settings.write_text(f"etcd = {{}}\n{m._sections}"), 10, "as a section"),
    ],
)  # fmt: skip
def test_a_refused_join_changes_nothing(
    machine: Machine,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Machine], object],
    status: int,
    why: str,
) -> None:
    spoil(machine)
    before = machine.files()
    assert machine.join() == status
    said = capsys.readouterr()
    assert why in said.err
    assert "hint: " in said.err or status == 10
    assert "BEGIN" not in said.out + said.err
    assert machine.files() == before


def test_only_root_joins(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert machine.join() == 11


def test_a_running_agent_keeps_its_id(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    with HostLock(machine.etc.parent / "run", "hostmesh-agent"):
        assert machine.join() == 24
        assert "systemctl stop hostmesh-agent" in capsys.readouterr().err
    assert machine.join() == 0
    with HostLock(machine.etc.parent / "run", "hostmesh-agent"):  # renewed credentials
        machine.put(files={"ca_file": token().files["ca_file"]})
        assert machine.join() == 0
    assert "cert_file" not in tomllib.loads(machine.settings.read_text())["etcd"]


@pytest.mark.parametrize("spoil", [_other_id, _member_without_token, _other_file, _leaving])
def test_what_a_host_was_is_given_up_where_the_operator_says_so(
    machine: Machine, spoil: Callable[[Machine], object]
) -> None:
    machine.configure('endpoints = ["http://a:1"]\ncall_timeout_s = 1')
    spoil(machine)
    assert machine.join() == 24
    assert machine.join("--replace") == 0
    assert load_settings(machine.settings).etcd.endpoints == token().endpoints
    assert (machine.etc / "etcd.key").read_text() == token().files["key_file"]
    assert (machine.state / "host-id").read_text() == f"{ID}\n"
    assert not (machine.state / "copy.json").exists()
    assert not StateFile(machine.state).now.left


def test_a_host_that_had_left_joins_again(machine: Machine) -> None:
    assert machine.join() == 0
    StateFile(machine.state).change(left=True)
    assert machine.join() == 0
    assert not StateFile(machine.state).now.left


def test_the_same_open_etcd_in_agent_toml_is_no_obstacle(machine: Machine) -> None:
    machine.put(endpoints=("http://192.0.2.1:2379",), files={})
    machine.configure('endpoints = ["http://192.0.2.1:2379"]\ncall_timeout_s = 1')
    assert machine.join() == 0
    etcd = tomllib.loads(machine.settings.read_text())["etcd"]
    assert etcd == {"endpoints": ["http://192.0.2.1:2379"], "call_timeout_s": 1}


def _killed_at(number: int, machine: Machine, *words: str) -> bool:
    """Join in a process of its own that is killed at its n-th step on the disk."""
    child = os.fork()
    if child == 0:
        left = [number]

        def step(event: str, arguments: tuple[Any, ...]) -> None:
            written = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
            if written or event in {"os.rename", "os.remove", "os.mkdir", "os.truncate"}:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - of the child
        sys.addaudithook(step)
        os._exit(machine.join(*words))
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_promise_6_a_full_disk_leaves_the_old_settings_whole(machine: Machine) -> None:
    machine.put(endpoints=("http://192.0.2.1:2379",), files={})
    before = machine.settings.read_text()
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - of the child
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        os._exit(machine.join())
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 26
    assert machine.settings.read_text() == before
    assert machine.join() == 0


def _once_more(machine: Machine) -> None:
    """Make it a member of another mesh, with another token's id."""
    machine.put(host_id=_OTHER, endpoints=("http://a:1",), files={})
    assert machine.join() == 0
    _member_without_token(machine)
    machine.put()


@pytest.mark.parametrize(
    ("words", "before"), [((), lambda _: None), (("--replace",), _once_more)], ids=["", "replace"]
)
def test_promise_6_a_join_that_was_killed_anywhere_is_completed_by_the_next(
    tmp_path: Path, words: tuple[str, ...], before: Callable[[Machine], None]
) -> None:
    def fresh(name: str) -> Machine:
        (tmp_path / name).mkdir()
        machine = Machine(tmp_path / name)
        before(machine)
        return machine

    whole = fresh("whole")
    untouched = whole.settings.read_text()
    assert whole.join(*words) == 0
    kills = 0
    while _killed_at(kills, machine := fresh(f"killed{kills}"), *words):
        kills += 1
        text = machine.settings.read_text()
        if text != untouched.replace("/whole/", f"/{machine.etc.parent.name}/"):
            # The agent would start with these settings, so everything else is there.
            assert load_settings(machine.settings).etcd.key_file
            assert (machine.state / "host-id").read_text() == f"{ID}\n"
        assert machine.join(*words) == 0
        done = {
            name: (text.replace(str(machine.etc.parent), str(whole.etc.parent)), mode)
            for name, (text, mode) in machine.files().items()
        }
        assert done == whole.files()
    assert kills > 10
