"""agentctl with a real HTTP server on a unix socket, with another program, and with none."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.ctl.client import AgentClient
from agent.ctl.main import main
from agent.daemon.state.freshness import Freshness
from agent.errors import AgentUnavailable, EtcdUnavailable
from agent.model import View
from agent.settings import AgentSettings, Settings
from agent.standalone import offline
from agent.standalone.inspection import OfflineView
from tests.unit.ctl.asked import LEASES, STATUS, Serving, agentctl, run
from tests.waiting import remarks

pytestmark = pytest.mark.unit


def test_leases_come_through_the_socket(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(socket_path, {"GET /v1/leases": LEASES}):
        assert run(socket_path, "leases") == 0
        assert run(socket_path, "leases", "-o", "json") == 0
    out, err = capsys.readouterr()
    table, _, document = out.partition("{")
    assert table.splitlines() == [
        "  HOST   SUBNET        NODE ADDRESS  BACKEND    AGE  STATE",
        "* host1  10.64.0.0/16  192.0.2.1     host-gw  3h12m  up",
    ]
    assert json.loads("{" + document) == LEASES
    assert err == ""


def test_options_count_before_and_after_the_verb(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(socket_path, {"GET /v1/leases": LEASES}):
        assert main(["-o", "json", "--socket", str(socket_path), "leases"]) == 0
    assert json.loads(capsys.readouterr().out) == LEASES


@pytest.mark.parametrize(("problem", "cached"), [("", False), ("no endpoint answered", True)])
def test_leases_ask_etcd_or_the_copy_when_no_agent_answers_and_say_so(
    socket_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: str,
    cached: bool,
) -> None:
    view = View(cluster_id=1, revision=2, cached=cached)
    freshness = Freshness(stale=cached, as_of_s=1.0, cached=cached)
    seen = OfflineView(view, EtcdUnavailable(problem) if problem else None, freshness)
    monkeypatch.setattr(offline, "view_offline", lambda _settings: seen)
    assert run(socket_path, "leases") == 0
    out, err = capsys.readouterr()
    copy = "! etcd unreachable: this host's own copy of the last known state, saved "
    *above, answer = out.splitlines()
    assert answer == "no host has a lease"
    assert [line.startswith(copy) for line in above] == ([True] if cached else [])
    first, *rest = remarks(err).splitlines()
    assert first == (
        f"hostmesh-agent is not running: nothing listens on {socket_path};"
        " from etcd, the kernel and this host's files instead"
    )
    assert rest == ([problem] if cached else [])


def test_without_any_source_stdout_is_empty_and_the_error_is_etcds(socket_path: Path) -> None:
    absent = ["--set", "etcd.endpoints=http://127.0.0.1:1", "--set", "etcd.call_timeout_s=0.2"]
    done = agentctl("leases", "-o", "json", "--socket", str(socket_path), *absent)
    assert (done.returncode, done.stdout) == (EtcdUnavailable.exit_code, "")
    _, error, hint = remarks(done.stderr).splitlines()
    assert error.startswith("agentctl: ")
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    "words",
    [
        ("status", "--watch"),
        ("leases", "--watch"),
        ("etcd", "accept"),
        ("firewall", "show", "--dry-run"),
        ("docker", "restart", "--now"),
    ],
)
def test_verbs_that_need_the_agent_say_that_it_is_not_running(
    socket_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(socket_path, *words) == 23
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert err[0].startswith("agentctl: hostmesh-agent is not running: ")
    assert err[1].startswith("hint: ")


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (
            (409, {"error": {"message": "no", "hint": "do", "exit_code": 24}}),
            24,
            "agentctl: no\nhint: do\n",
        ),
        (
            (403, {"error": {"message": "a\x1b[2Jb", "hint": "", "exit_code": 11}}),
            11,
            "agentctl: a\\x1b[2Jb\n",
        ),
        ((500, {"error": {"message": "odd", "exit_code": 99}}), 1, "agentctl: odd\n"),
        (
            (409, {"error": {"code": "cannot-tell", "message": "x", "exit_code": 2}}),
            3,
            "agentctl: x\n",
        ),
        # A class that only a newer agent has, with and without a number that is known here.
        ((409, {"error": {"code": "new", "message": "x", "exit_code": 21}}), 21, "agentctl: x\n"),
        ((409, {"error": {"code": "new", "message": "x", "exit_code": 99}}), 1, "agentctl: x\n"),
        (
            (409, {"error": {"code": ["refused"], "message": "x", "exit_code": {}}}),
            1,
            "agentctl: x\n",
        ),
        # An older agent has no code, and one number for two classes.
        ((409, {"error": {"message": "x", "exit_code": 2}}), 3, "agentctl: x\n"),
        ((404, {"error": {"message": "x", "exit_code": 2}}), 2, "agentctl: x\n"),
        ((500, {}), 23, "agentctl: hostmesh-agent answered with status 500 and no reason\n"),
    ],
)
def test_promise_12_errors_of_agents_of_any_version_keep_their_status(
    socket_path: Path,
    serving: Serving,
    answer: object,
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving(socket_path, {"GET /v1/status": answer}):
        assert run(socket_path, "status") == status
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"", b"[" * 100_000])
def test_another_programs_socket_is_recognised(
    socket_path: Path, serving: Serving, body: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(socket_path, {"GET /v1/status": (200, body)}):
        assert run(socket_path, "status") == 23
    assert "does not answer as hostmesh-agent does" in capsys.readouterr().err


@pytest.mark.parametrize("begin", [b"x" * 100_000, b"HTTP/1.1 200 OK\r\n\r\n{}"])
def test_a_program_that_speaks_other_http_is_not_waited_for(
    socket_path: Path, begin: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(socket_path))
        server.listen(1)
        done = threading.Event()

        def answer() -> None:
            one, _ = server.accept()
            one.sendall(begin)
            done.wait(20)
            one.close()

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with pytest.raises(AgentUnavailable, match="not hostmesh-agent's HTTP"):
                AgentClient(socket_path, 15).get("/v1/status")
        finally:
            done.set()
            thread.join()


def test_an_error_without_a_hint_gets_the_agents(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def view(_settings: Settings) -> None:
        raise EtcdUnavailable("no endpoint answered")

    monkeypatch.setattr(offline, "view_offline", view)
    assert run(socket_path, "leases") == EtcdUnavailable.exit_code
    assert remarks(capsys.readouterr().err).splitlines()[1:] == [
        "agentctl: no endpoint answered",
        "hint: systemctl status hostmesh-agent; journalctl -u hostmesh-agent -n 20",
    ]


def test_a_silent_agent_is_given_up_in_time(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    before_s = time.monotonic()
    with serving(socket_path, {"POST /v1/reload": 5.0}):
        assert run(socket_path, "reload", "--timeout", "200ms") == 23
    assert time.monotonic() - before_s < 3
    assert "did not answer" in capsys.readouterr().err


def test_an_answer_without_end_is_refused(
    socket_path: Path,
    serving: Serving,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("agent.ctl.client._MAX_BODY_BYTES", 10)
    with serving(socket_path, {"GET /v1/status": STATUS}):
        assert run(socket_path, "status") == 23
    assert "answer larger than 10 bytes" in capsys.readouterr().err


def test_the_daemons_own_server_and_agentctl_understand_each_other(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from agent.daemon.api.connection import Paths  # noqa: PLC0415
    from agent.daemon.api.server import ControlServer  # noqa: PLC0415
    from agent.errors import Refused  # noqa: PLC0415

    def refuse(_body: Mapping[str, Any]) -> Mapping[str, Any]:
        raise Refused("containers run", hint="--force")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    server = ControlServer(
        socket_path, "", Paths({"/v1/leases": lambda: LEASES}, {"/v1/leave": refuse})
    )
    server.start()
    try:
        assert run(socket_path, "leases", "-o", "json") == 0
        assert json.loads(capsys.readouterr().out) == LEASES
        refused = run(socket_path, "leave")
        err = capsys.readouterr().err
        assert run(socket_path, "firewall", "show") == 2
    finally:
        server.stop()
    if os.getuid() == 0:
        assert (refused, err) == (24, "agentctl: containers run\nhint: --force\n")
    else:
        assert refused == 11


def test_with_wrong_settings_the_agent_that_runs_is_asked_all_the_same(
    socket_path: Path,
    serving: Serving,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It goes on with those of before, and its status says what is the matter."""
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[log]\nlevl = 1\n")
    monkeypatch.setattr(AgentSettings, "socket", socket_path)
    assert main(["--settings", str(wrong), "status"]) == 10
    with serving(socket_path, {"GET /v1/status": STATUS}):
        assert main(["--settings", str(wrong), "status"]) == 0
    out, err = capsys.readouterr()
    assert "10.64.0.0/16" in out
    assert "log.levl: unknown key" in err


def test_an_answer_that_comes_before_the_question_is_read(socket_path: Path) -> None:
    """An agent that serves as many as it can says so at once, and hangs up."""
    busy = json.dumps({"error": {"message": "as many as it can", "hint": "", "exit_code": 23}})
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(socket_path))
        server.listen(1)

        class Late(AgentClient):
            def _connect(self, connection: socket.socket) -> None:
                super()._connect(connection)
                assert answered.wait(5)

        def refuse() -> None:
            one, _ = server.accept()
            head = f"HTTP/1.1 503 Busy\r\nContent-Length: {len(busy)}\r\n\r\n"
            one.sendall(head.encode() + busy.encode())
            one.close()
            answered.set()

        answered = threading.Event()
        threading.Thread(target=refuse).start()
        with pytest.raises(AgentUnavailable, match="as many as it can"):
            Late(socket_path, 5).get("/v1/status")
