"""Notifications for systemd, on a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.daemon.state.agent_state import AgentState
from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.mesh_state import MeshState
from agent.daemon.telemetry.condition_registry import ConditionRegistry
from agent.daemon.telemetry.systemd import Notifier, StatusLine
from agent.model import Condition, HostId, Lease, Severity

pytestmark = pytest.mark.unit


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.setblocking(False)
        yield made


def heard(systemd: socket.socket) -> list[str]:
    lines = []
    while True:
        try:
            lines.append(systemd.recv(4096).decode())
        except BlockingIOError:
            return lines


def notifier(tmp_path: Path, watchdog_s: float | None = 60.0) -> Notifier:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    if watchdog_s is not None:
        environ |= {"WATCHDOG_USEC": str(int(watchdog_s * 1e6)), "WATCHDOG_PID": str(os.getpid())}
    return Notifier(environ)


def snapshot(*, configured: bool) -> AgentState:
    lease = Lease(
        subnet=IPv4Network("10.64.0.0/16"), node_address=IPv4Address("192.0.2.1"), backend="host-gw"
    )
    return AgentState(mesh=MeshState(host_id=HostId("a" * 32), own=lease), configured=configured)


def test_until_ready_a_turn_of_the_loop_extends_the_time_to_start(
    tmp_path: Path, systemd: socket.socket
) -> None:
    """A watchdog begins with READY; a loop that is stuck before must be seen too."""
    reported = notifier(tmp_path)
    reported.alive()
    assert heard(systemd) == ["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=60000000"]
    reported.ready()
    reported.ready()
    reported.alive()
    assert heard(systemd) == ["READY=1", "WATCHDOG=1"]


def test_without_a_watchdog_nothing_is_fed(tmp_path: Path, systemd: socket.socket) -> None:
    notifier(tmp_path, None).alive()
    assert heard(systemd) == []


def test_ready_is_said_when_the_host_is_configured_and_not_before(
    tmp_path: Path, systemd: socket.socket
) -> None:
    status_line = StatusLine(notifier(tmp_path))
    status_line.report(snapshot(configured=False))
    assert not [line for line in heard(systemd) if line.startswith("READY")]
    status_line.report(snapshot(configured=True))
    assert heard(systemd) == ["READY=1"]


def test_the_status_line_names_the_gravest_condition_on_one_line(
    tmp_path: Path, systemd: socket.socket
) -> None:
    """Promise 8: a cause may contain text from etcd."""
    conditions = ConditionRegistry(lambda: 0.0)
    conditions.replace(
        ConditionSource.HOST,
        [
            Condition(name="mild", severity=Severity.INFO, cause="c", hint="h"),
            Condition(name="bad", cause="a\nREADY=1\x1b[31m" + "b" * 400, hint="h"),
            Condition(name="worse", severity=Severity.ERROR, cause="it\nREADY=1", hint="h"),
        ],
    )
    StatusLine(notifier(tmp_path)).report(snapshot(configured=False), conditions.all())
    (line,) = heard(systemd)
    assert line.startswith("STATUS=10.64.0.0/16")
    assert "; worse: it" in line
    assert line.endswith("(and 1 more)")
    assert "\n" not in line
    conditions.replace(ConditionSource.HOST, [conditions.all()[1].condition])
    StatusLine(notifier(tmp_path)).report(snapshot(configured=False), conditions.all())
    (line,) = heard(systemd)
    assert len(line) < 270
    assert line.isprintable()
