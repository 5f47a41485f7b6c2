"""Verbs about this host: leaving, joining, waiting, differences, rules, settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.membership.leave import Outcome
from agent.errors import CannotTell
from agent.settings import Settings
from agent.standalone import leave as membership
from tests.unit.ctl.asked import STATUS, Serving, run

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("state", "status"), [("equal", 0), ("drift", 1), ("unknown", 3), ("x", 3)]
)
def test_diff_tells_equal_drift_and_unknown_apart(
    socket_path: Path, serving: Serving, state: str, status: int
) -> None:
    document = {
        "version": 1,
        "state": state,
        "operations": [
            {
                "action": "add",
                "destination": "10.65.0.0/16",
                "reason": "lost",
                "route": "10.65.0.0/16 via x",
            }
        ],
        "conflicts": ["foreign"],
        "firewall": [],
    }
    with serving(socket_path, {"GET /v1/diff": document}):
        assert run(socket_path, "diff") == status


def test_diff_without_an_agent_cannot_tell(socket_path: Path) -> None:
    assert run(socket_path, "diff") == 3


def test_wait_returns_when_the_host_is_ready_and_names_why_it_is_not(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(socket_path, {"GET /v1/status": STATUS}):
        assert run(socket_path, "wait", "--ready") == 0
    condition = {"name": "docker-pending", "cause": "containers run"}
    joiner = {**STATUS, "state": "joining", "conditions": [condition]}
    with serving(socket_path, {"GET /v1/status": joiner}):
        assert run(socket_path, "wait", "--ready", "--timeout", "1s") == 1
    assert run(socket_path, "wait", "--timeout", "100ms") == 3
    out, err = capsys.readouterr()
    assert out == "ready: 10.64.0.0/16\n"
    assert "not ready after 1 s: joining (docker-pending: containers run)" in err


def test_leave_and_join_go_through_the_agent(
    socket_path: Path,
    serving: Serving,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    answers = {
        "POST /v1/leave": {"done": ["gave back 10.64.0.0/16"], "todo": ["restart dockerd"]},
        "POST /v1/join": {"done": [], "todo": []},
    }
    with serving(socket_path, answers) as agent:
        assert run(socket_path, "leave", "--force") == 1
        assert run(socket_path, "join") == 0
    assert agent.asked == [("POST /v1/leave", {"force": True}), ("POST /v1/join", {})]
    out, err = capsys.readouterr()
    assert out == "gave back 10.64.0.0/16\nnothing to do\n"
    assert err == "left to do: restart dockerd\n"


def test_leave_join_and_cleanup_work_without_an_agent(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in ("leave_offline", "join_offline", "cleanup"):
        done = Outcome(done=[f"{name} ran"])
        monkeypatch.setattr(membership, name, lambda _settings, done=done, **_how: done)
    for verb in ("leave", "join", "cleanup"):
        assert run(socket_path, verb) == 0
    out, err = capsys.readouterr()
    assert out == "leave_offline ran\njoin_offline ran\ncleanup ran\n"
    assert err.count("hostmesh-agent is not running") == 2


@pytest.mark.parametrize("verb", ["leave", "join"])
def test_an_agent_that_is_slow_is_not_worked_around(
    socket_path: Path, verb: str, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_settings: Settings, **_how: object) -> None:
        pytest.fail("the agent runs")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in ("leave_offline", "join_offline"):
        monkeypatch.setattr(membership, name, fail)
    with serving(socket_path, {f"POST /v1/{verb}": 1.0}):
        assert run(socket_path, verb, "--timeout", "100ms") == 23


@pytest.mark.parametrize("verb", ["leave", "join", "cleanup"])
def test_changing_the_host_needs_root(
    socket_path: Path,
    verb: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run(socket_path, verb) == 11
    assert capsys.readouterr().err.startswith("agentctl: only root may ")


def test_firewall_show_prints_rules_or_what_would_be_written(
    socket_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from agent.daemon.api.connection import Paths  # noqa: PLC0415
    from agent.daemon.api.server import ControlServer  # noqa: PLC0415

    document: dict[str, Any] = {"rules": ["iptables-nft"], "restore": ["*raw", "COMMIT\x1b[1m"]}
    server = ControlServer(socket_path, "", Paths({"/v1/firewall": lambda: document}, {}))
    server.start()
    try:
        assert run(socket_path, "firewall", "show") == 0
        assert capsys.readouterr().out == "iptables-nft\n"
        assert run(socket_path, "firewall", "show", "--dry-run") == 0
        assert capsys.readouterr().out == "*raw\nCOMMIT\\x1b[1m\n"
        document["restore"] = None
        assert run(socket_path, "firewall", "show", "--dry-run") == CannotTell.exit_code
        assert "holds no subnet" in capsys.readouterr().err
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("config", "status", "said"),
    [("written", 0, "written: 10.64.0.0/16"), ("held", 0, "not written: "), ("waiting", 1, "")],
)
def test_the_gate_waits_until_daemon_json_is_decided(
    socket_path: Path,
    serving: Serving,
    capsys: pytest.CaptureFixture[str],
    config: str,
    status: int,
    said: str,
) -> None:
    document = {"state": "joining", "subnet": "10.64.0.0/16", "docker": {"config": config}}
    with serving(socket_path, {"GET /v1/status": document}):
        argv = ("wait", "--docker-config", "--timeout", "1s")
        assert run(socket_path, *argv) == status
    assert capsys.readouterr().out.startswith(said)


def test_the_gate_does_not_wait_for_a_host_that_has_left(
    socket_path: Path, serving: Serving
) -> None:
    document = {"state": "left", "subnet": None, "docker": {"config": "waiting"}}
    with serving(socket_path, {"GET /v1/status": document}):
        assert run(socket_path, "wait", "--docker-config", "--timeout", "1s") == 0


def test_a_reload_that_is_refused_says_every_mistake(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    error = {"message": "agent.toml:3: routes.x: unknown key", "hint": "h", "exit_code": 10}
    with serving(socket_path, {"POST /v1/reload": (409, {"error": error})}):
        assert run(socket_path, "reload") == 10
    assert "agent.toml:3: routes.x" in capsys.readouterr().err
    done = {"version": 1, "done": ["in force now: log.level"], "todo": ["etcd.endpoints changed"]}
    with serving(socket_path, {"POST /v1/reload": done}):
        assert run(socket_path, "reload") == 0
    out, err = capsys.readouterr()
    assert "log.level" in out
    assert "etcd.endpoints" in err
