"""--watch: on a terminal a screen, elsewhere a line for each change."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
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


def test_changes_of_leases_are_told_in_words() -> None:
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
        "10.66.0.0/16 host heartbeat: alive -> none",
        "10.66.0.0/16 host Docker: ready -> -",
    ]
    assert leases.changes(now, now) == []


def test_changes_of_status_are_told_in_words() -> None:
    before: dict[str, Any] = {"state": "ready", "etcd": {"connected": True}, "peers": []}
    condition = {"name": "etcd-unreachable", "subject": "", "cause": "no endpoint answered"}
    now = {**before, "state": "degraded", "etcd": {"connected": False}, "conditions": [condition]}
    assert status.changes(before, now) == [
        "state: ready -> degraded",
        "etcd: connected -> away",
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
        "10.65.0.0/16 host heartbeat: alive -> none"
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
    told = [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert told[0].startswith("hostmesh-agent is not running here")
    assert told[1:] == ["hostmesh-agent answers again"]


def test_on_a_terminal_it_is_one_screen_and_ends_with_ctrl_c(
    tmp_path: Path, serving: Serving
) -> None:
    """Promise 8 as well: of what a host calls itself nothing but text reaches the terminal."""
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
        until_s = time.monotonic() + 15
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
