"""agentctl docker restart: who stops is said first, and nothing goes ahead unasked."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.ctl.asked import Serving, run

pytestmark = pytest.mark.unit


Asked = list[tuple[str, Any]]


OUTLOOK = {
    "state": "pending",
    "pending": "Docker must be restarted: docker0 is 172.17.0.1/16",
    "running": ["db", "job", "web"],
    "stay_down": ["job"],
    "live_restore": False,
}


RESTARTED = {"done": ["restarted dockerd"], "todo": []}


class Terminal(io.StringIO):
    """An operator at a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(name="docker")
def docker_fixture(socket_path: Path, serving: Serving) -> Iterator[Asked]:
    answers = {"GET /v1/docker": dict(OUTLOOK), "POST /v1/docker/restart": RESTARTED}
    with serving(socket_path, answers) as agent:
        yield agent.asked


def test_docker_restarts_only_with_the_operators_word(
    socket_path: Path, docker: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(socket_path, "docker", "restart") == 24
    assert docker == []
    assert run(socket_path, "docker", "restart", "--now", "--yes") == 0
    assert docker[-1] == ("POST /v1/docker/restart", {"now": True})
    assert run(socket_path, "docker", "restart", "--now", "--yes", "--replace") == 0
    assert docker[-1] == ("POST /v1/docker/restart", {"now": True, "replace": True})
    assert capsys.readouterr().out == "restarted dockerd\n" * 2


@pytest.mark.parametrize(("typed", "status"), [("y\n", 0), ("YES\n", 0), ("\n", 24), ("no\n", 24)])
def test_docker_restart_lists_who_stops_and_asks(
    socket_path: Path,
    docker: Asked,
    typed: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    assert run(socket_path, "docker", "restart", "--now") == status
    remarks = capsys.readouterr().err
    assert "docker0 is 172.17.0.1/16" in remarks
    assert "stop, and are started again by Docker: db, web" in remarks
    assert "may not be started again by Docker: job" in remarks
    posted = [target for target, _ in docker if target.startswith("POST")]
    assert len(posted) == (status == 0)


def test_docker_restart_without_a_terminal_needs_yes(
    socket_path: Path,
    docker: Asked,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run(socket_path, "docker", "restart", "--now") == 24
    assert "--now --yes" in capsys.readouterr().err
    assert [target for target, _ in docker] == ["GET /v1/docker"]


@pytest.mark.parametrize(
    ("outlook", "posted"),
    [
        ({"state": "ready", "pending": None}, None),
        ({"running": [], "stay_down": []}, {}),
        ({"live_restore": True}, {"now": True}),
    ],
)
def test_docker_restart_asks_only_when_something_stops(
    socket_path: Path, serving: Serving, outlook: Mapping[str, Any], posted: Mapping[str, Any]
) -> None:
    """An operator who saw no container has not agreed to stop one that was started since."""
    answers = {"GET /v1/docker": {**OUTLOOK, **outlook}, "POST /v1/docker/restart": RESTARTED}
    with serving(socket_path, answers) as agent:
        assert run(socket_path, "docker", "restart", "--now") == 0
    assert [body for _, body in agent.asked[1:]] == ([] if posted is None else [posted])
