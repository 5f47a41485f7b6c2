"""--watch: on a terminal a screen, elsewhere a line for each change."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from agent.ctl import watch
from agent.ctl.main import main
from agent.ctl.verbs import leases, status

pytestmark = pytest.mark.unit

Serving = Callable[[Path, Mapping[str, Any]], AbstractContextManager[Any]]


def lease(subnet: str, **more: object) -> dict[str, Any]:
    return {"subnet": subnet, "host_name": "host", "alive": True, "docker": "ready", **more}


def test_changes_of_leases_are_described() -> None:
    before = {"leases": [lease("10.65.0.0/16"), lease("10.66.0.0/16"), lease("10.67.0.0/16")]}
    now = {
        "leases": [
            lease("10.66.0.0/16", alive=False, docker=None),
            lease("10.67.0.0/16", age_s=5, ttl_left_s=7, silent_s=1),
            lease("10.68.0.0/16", host_name="new\x1b[2J"),
        ]
    }
    assert leases.changes(before, now) == [
        "10.68.0.0/16 new\\x1b[2J joined",
        "10.65.0.0/16 host left",
        "10.66.0.0/16 host state: up -> no heartbeat",
        "10.66.0.0/16 host Docker: ready -> -",
    ]
    assert leases.changes(now, now) == []


def test_changes_of_status_are_described() -> None:
    before: dict[str, Any] = {"state": "ready", "etcd": {"connected": True}, "peers": []}
    condition = {"name": "etcd-unreachable", "subject": "", "cause": "no endpoint answered"}
    now = {**before, "state": "degraded", "etcd": {"connected": False}, "conditions": [condition]}
    assert status.changes(before, now) == [
        "state: ready -> degraded",
        "etcd: connected -> unreachable",
        "condition raised: etcd-unreachable: no endpoint answered",
    ]
    assert status.changes(now, before)[-1] == "condition cleared: etcd-unreachable"


def test_off_a_terminal_only_changes_are_printed(
    tmp_path: Path,
    serving: Serving,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(watch, "_EVERY_S", 0.05)
    path = tmp_path / "agent.sock"
    documents: dict[str, Any] = {"GET /v1/leases": {"leases": [lease("10.65.0.0/16")]}}
    with serving(path, documents):
        later = {"leases": [lease("10.65.0.0/16", alive=False)]}
        changing = threading.Timer(0.3, documents.update, [{"GET /v1/leases": later}])
        changing.start()
        words = ["leases", "--watch", "--timeout", "2s", "--socket", str(path)]
        assert main(words) == 0
        changing.join()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "10.65.0.0/16 host state: up -> no heartbeat"
    ]


def test_an_agent_that_goes_is_waited_for(
    tmp_path: Path,
    serving: Serving,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(watch, "_EVERY_S", 0.05)
    path = tmp_path / "agent.sock"
    answer = {"GET /v1/status": {"state": "ready"}}
    first = serving(path, answer)
    first.__enter__()
    second = serving(path, answer)

    def restart() -> None:
        first.__exit__(None, None, None)
        time.sleep(0.2)
        second.__enter__()

    thread = threading.Timer(0.2, restart)
    thread.start()
    words = ["status", "--watch", "--timeout", "4s", "--socket", str(path)]
    assert main(words) == 0
    thread.join()
    second.__exit__(None, None, None)
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    *away, back = lines
    if away[0].startswith("hostmesh-agent broke off"):  # it ended between question and answer
        away.pop(0)
    assert len(away) == 1
    assert away[0].startswith("hostmesh-agent is not running")
    assert back == "hostmesh-agent answers again"


def test_an_agent_that_cannot_tell_yet_is_waited_for(
    tmp_path: Path,
    serving: Serving,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One that was restarted has no view of etcd at first."""
    monkeypatch.setattr(watch, "_EVERY_S", 0.05)
    path = tmp_path / "agent.sock"
    leases = {"leases": [lease("10.65.0.0/16")]}
    answers: dict[str, Any] = {"GET /v1/leases": leases}
    why = {"error": {"message": "no complete view yet", "hint": "", "exit_code": 2}}
    with serving(path, answers):
        timers = [
            threading.Timer(0.3, answers.update, [{"GET /v1/leases": (409, why)}]),
            threading.Timer(0.8, answers.update, [{"GET /v1/leases": leases}]),
        ]
        for timer in timers:
            timer.start()
        words = ["leases", "--watch", "--timeout", "2s", "--socket", str(path)]
        assert main(words) == 0
        for timer in timers:
            timer.join()
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["cannot tell: no complete view yet", "hostmesh-agent answers again"]


def test_a_screen_follows_the_terminals_size_and_says_how_old_it_is(
    tmp_path: Path, serving: Serving
) -> None:
    path = tmp_path / "agent.sock"
    many = [lease(f"10.66.{number}.0/24", host_name=f"host{number}-" * 30) for number in range(100)]
    answers: dict[str, Any] = {"GET /v1/leases": {"leases": many}}
    main_side, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (30, 100))
    environ = {k: v for k, v in os.environ.items() if k not in ("LINES", "COLUMNS")}
    words = ["leases", "--watch", "-o", "wide", "--socket", str(path)]
    server = serving(path, answers)
    server.__enter__()
    with subprocess.Popen(
        [sys.executable, "-m", "agent.ctl", *words],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**environ, "TERM": "xterm"},
        cwd=Path(__file__).parents[3],
    ) as process:
        first = screen(main_side)
        termios.tcsetwinsize(terminal, (12, 60))
        process.send_signal(signal.SIGWINCH)
        while not (second := screen(main_side)).startswith(b"\x1b[2J"):
            continue
        server.__exit__(None, None, None)
        while b"as of" not in (third := screen(main_side)):
            continue
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    os.close(terminal)
    os.close(main_side)
    for seen, size in ((first, (29, 100)), (second, (11, 60)), (third, (11, 60))):
        lines = re.sub(rb"\x1b\[[0-9]*[A-Z]", b"", seen).decode().splitlines()
        assert len(lines) == size[0]
        assert max(len(line) for line in lines) == size[1]
    assert b"hostmesh-agent is not running" in third
    assert b"\r\nas of " in third
    assert b"host3-" in third, "the last document stays on the screen"


def screen(main_side: int) -> bytes:
    """The next screen that is drawn."""
    seen, until_s = b"", time.monotonic() + 20
    while not seen.endswith(b"\x1b[J"):
        assert time.monotonic() < until_s, seen
        if select.select([main_side], [], [], 0.2)[0]:
            seen += os.read(main_side, 1)
    return seen


def test_on_a_terminal_it_is_one_screen_and_ends_with_ctrl_c(
    tmp_path: Path, serving: Serving
) -> None:
    """Promise 8 as well: only text of a host's name reaches the terminal."""
    path = tmp_path / "agent.sock"
    hostile = lease("10.65.0.0/16", host_name="x\x1b]0;title\x07\x1b[31m")
    many = [lease(f"10.66.{number}.0/24") for number in range(100)]
    main_side, terminal = pty.openpty()
    with serving(path, {"GET /v1/leases": {"leases": [hostile, *many]}}):
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.ctl", "leases", "--watch", "--socket", str(path)],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, "TERM": "xterm", "LINES": "20", "COLUMNS": "80"},
            cwd=Path(__file__).parents[3],
        )
        os.close(terminal)
        seen = b""
        until_s = time.monotonic() + 60
        while seen.count(b"Ctrl-C ends") < 2 and time.monotonic() < until_s:
            if select.select([main_side], [], [], 0.2)[0]:
                seen += os.read(main_side, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    os.close(main_side)
    first = seen[: seen.index(b"\x1b[J")]
    assert first.count(b"\n") <= 19
    assert b"more lines" in first
    assert seen.count(b"\x1b[2J") == 1
    plain = seen.replace(b"\x1b[2J", b"").replace(b"\x1b[H", b"").replace(b"\x1b[K", b"")
    assert b"\x1b" not in plain.replace(b"\x1b[J", b"")
    assert b"\x07" not in plain
