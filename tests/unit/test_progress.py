"""A command that takes its time says on stderr what it waits for, and how long that may take."""

from __future__ import annotations

import io
import os
import pty
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.progress import Progress
from tests.unit.ctl.asked import LEASES, agentctl
from tests.unit.ctl.conftest import serving
from tests.waiting import eventually

pytestmark = pytest.mark.unit

TICK_S = 0.01


class Clock:
    """Seconds that the test passes."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(name="clock")
def clock_fixture() -> Clock:
    return Clock()


@pytest.fixture(name="plain")
def plain_fixture(clock: Clock) -> Iterator[tuple[Progress, io.StringIO]]:
    stream = io.StringIO()
    with closing(Progress(stream, clock=clock, tick_s=TICK_S)) as progress:
        yield progress, stream


def said(stream: io.StringIO, lines: int) -> list[str]:
    eventually(lambda: stream.getvalue().count("\n") >= lines, 10)
    return stream.getvalue().splitlines()


def test_off_a_terminal_each_message_is_one_line_and_the_last_has_the_limit(
    plain: tuple[Progress, io.StringIO], clock: Clock
) -> None:
    progress, stream = plain
    with progress.waiting_for("Docker to restart", 180.0):
        clock.now_s += 12
        assert said(stream, 2) == [
            "waiting for Docker to restart",
            "waiting for Docker to restart (12 s so far, it may take 3 min)",
        ]
    assert stream.getvalue().count("\n") == 2


def test_the_innermost_wait_is_shown_with_the_nearest_limit(
    plain: tuple[Progress, io.StringIO],
) -> None:
    progress, stream = plain
    with progress.waiting_for("the report", 60.0):
        said(stream, 1)
        with progress.waiting_for("etcd") as now_for:
            said(stream, 2)
            now_for("host2\x1b[2J")
            said(stream, 3)
    assert stream.getvalue().splitlines()[:3] == [
        "waiting for the report",
        "waiting for etcd",
        "waiting for host2\\x1b[2J",
    ]


def test_short_waits_one_after_the_other_are_not_silent(
    plain: tuple[Progress, io.StringIO],
) -> None:
    """The first tick counts from the first wait: nine waits of 0.9 s are 8 s for the operator."""
    progress, stream = plain
    until_s = time.monotonic() + 10
    while not stream.getvalue() and time.monotonic() < until_s:
        with progress.waiting_for("a part"):
            threading.Event().wait(TICK_S * 0.9)
    assert stream.getvalue().startswith("waiting for a part\n")


def test_nothing_is_said_of_what_is_over(plain: tuple[Progress, io.StringIO]) -> None:
    progress, stream = plain
    with progress.waiting_for("a moment"):
        pass
    with progress.waiting_for("more"):
        said(stream, 1)
    assert "moment" not in stream.getvalue()


def test_without_stderr_it_is_quiet() -> None:
    with Progress(None).waiting_for("etcd"):
        pass


@pytest.fixture(name="terminal")
def terminal_fixture() -> Iterator[tuple[int, io.TextIOWrapper]]:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        yield master, stream
    os.close(master)


def read_until(master: int, wanted: Callable[[str], bool]) -> str:
    text = ""
    while not wanted(text):
        text += os.read(master, 4096).decode()
    return text


def test_on_a_terminal_one_line_is_redrawn_and_erased(
    terminal: tuple[int, io.TextIOWrapper], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    master, stream = terminal
    with closing(Progress(stream, clock=clock, tick_s=TICK_S)) as progress:
        with progress.waiting_for("etcd", 60.0):
            clock.now_s += 12
            text = read_until(master, lambda text: "it may take" in text)
        text += read_until(master, lambda text: text.endswith("\r\x1b[K"))
    assert "\r\x1b[Kwaiting for etcd (12 s)\r\x1b[K" in text
    assert "waiting for etcd (12 s, it may take 60 s)" in text
    assert "\n" not in text


def test_agentctl_says_that_the_agent_takes_its_time(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    answer = threading.Event()

    class Slow(dict[str, object]):
        def get(self, key: str, default: object = None) -> object:
            answer.wait(20)
            return super().get(key, default)

    with serving(path, Slow({"GET /v1/leases": LEASES})):
        threading.Timer(2.0, answer.set).start()
        done = agentctl("leases", "--socket", str(path))
    assert done.returncode == 0
    assert done.stderr.startswith("waiting for hostmesh-agent's answer\n")
    assert "host1" in done.stdout
