"""The control socket, spoken to over a real unix socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.control import ControlServer, Routes
from agent.errors import KernelError, NotRoot, Refused, StateError

pytestmark = pytest.mark.unit


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect(str(self._path))


def ask(
    path: Path,
    method: str,
    target: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any]:
    connection = UnixConnection(path)
    raw = None if body is None else body if isinstance(body, bytes) else json.dumps(body)
    connection.request(method, target, raw, dict(headers or {}))
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def refuse() -> Mapping[str, Any]:
    raise KernelError("the kernel said no", hint="ask again")


def bug() -> Mapping[str, Any]:
    raise KeyError("x")


@pytest.fixture
def path() -> Iterator[Path]:
    """A socket where other users may look, as under /run: pytest's own folder is closed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield from serving(folder)


def serving(folder: Path) -> Iterator[Path]:
    routes = Routes(
        read={
            "/v1/status": lambda: {"state": "ready"},
            "/healthz": lambda: (503, {"ok": False}),
            "/v1/broken": refuse,
            "/v1/bug": bug,
        },
        change={"/v1/echo": lambda body: {"got": dict(body)}},
    )
    socket_path = folder / "run" / "agent.sock"
    server = ControlServer(socket_path, "", routes)
    server.start()
    yield socket_path
    server.stop()
    assert not socket_path.exists()


def test_a_bug_in_an_answer_is_answered_and_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(repr(args.exc_value)))
    status, document = ask(path, "GET", "/v1/bug")
    assert status == 500
    assert "KeyError" in document["error"]["message"]
    assert "bugreport" in document["error"]["hint"]
    assert told == ["KeyError('x')"]
    assert ask(path, "GET", "/v1/status")[0] == 200


def test_documents_and_statuses(path: Path) -> None:
    assert ask(path, "GET", "/v1/status") == (200, {"state": "ready"})
    assert ask(path, "GET", "/healthz?verbose") == (503, {"ok": False})


def test_the_socket_is_for_root_and_its_group_only(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_errors_carry_hint_and_exit_status(path: Path) -> None:
    status, body = ask(path, "GET", "/v1/broken")
    assert status == 409
    assert body["error"] == {
        "message": "the kernel said no",
        "hint": "ask again",
        "exit_code": KernelError.exit_code,
    }


def test_an_unknown_path_says_what_there_is(path: Path) -> None:
    status, body = ask(path, "GET", "/v1/stats")
    assert status == 404
    assert "/v1/status" in body["error"]["hint"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"3", b"\xff"])
def test_a_body_that_is_no_json_object_is_refused(path: Path, body: bytes) -> None:
    if os.geteuid() != 0:
        pytest.skip("changing verbs are for root: run as root to see the body refused")
    status, answer = ask(path, "POST", "/v1/echo", body)
    assert status == 400
    assert "JSON" in answer["error"]["message"]


def test_a_huge_body_is_refused_unread(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("changing verbs are for root: run as root to see the body refused")
    status, _ = ask(path, "POST", "/v1/echo", b"", {"Content-Length": str(10**9)})
    assert status == 400


def test_changing_verbs_need_root(path: Path) -> None:
    status, body = ask(path, "POST", "/v1/echo", {"a": 1})
    if os.geteuid() == 0:
        assert (status, body) == (200, {"got": {"a": 1}})
        path.chmod(0o666)
        status, body = as_nobody(lambda: ask(path, "POST", "/v1/echo", {"a": 1}))
    assert status == 403
    assert body["error"]["exit_code"] == NotRoot.exit_code


def as_nobody(run: Callable[[], tuple[int, Any]]) -> tuple[int, Any]:
    """Run in a child of uid 65534: SO_PEERCRED is the kernel's word, not ours."""
    out, back = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            os.write(back, json.dumps(run()).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(back)
    with os.fdopen(out) as pipe:
        raw = pipe.read()
    status, body = json.loads(raw)
    return status, body


def test_a_second_agent_is_refused_and_a_dead_ones_socket_is_replaced(path: Path) -> None:
    with pytest.raises(Refused):
        ControlServer(path, "", Routes({}, {}))
    stale = path.with_name("stale.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    assert stale.exists()
    server = ControlServer(stale, "", Routes({"/": lambda: {"new": True}}, {}))
    server.start()
    assert ask(stale, "GET", "/") == (200, {"new": True})
    server.stop()


def test_an_unknown_group_is_an_error_for_operators(tmp_path: Path) -> None:
    with pytest.raises(StateError) as caught:
        ControlServer(tmp_path / "agent.sock", "no-such-group-here", Routes({}, {}))
    assert "socket_group" in caught.value.hint


def test_a_client_that_says_nothing_does_not_block_others(path: Path) -> None:
    """Promise 10: a stuck client costs one thread, not the socket."""
    idle = []
    for _ in range(8):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        idle.append(sock)
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(ask(path, "GET", "/v1/status")[0]))
    thread.start()
    thread.join(5)
    assert answers == [200]
    for sock in idle:
        sock.close()


def test_a_connection_ends_in_time_however_busy_it_looks(tmp_path: Path) -> None:
    """Promise 10: one that sends a byte now and then keeps no slot for ever."""
    socket_path = tmp_path / "agent.sock"
    server = ControlServer(socket_path, "", Routes({}, {}), connection_s=0.3)
    server.start()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as slow:
            slow.connect(str(socket_path))
            slow.sendall(b"GET /v1/status HTTP/1.1\r\n")
            slow.settimeout(0.05)
            ended, deadline_s = False, time.monotonic() + 5  # a quiet one may stay for 10 s
            while not ended and time.monotonic() < deadline_s:
                try:
                    slow.sendall(b"A: a\r\n")
                    ended = slow.recv(1) == b""
                except TimeoutError:
                    continue
                except (BrokenPipeError, ConnectionResetError):
                    ended = True
        assert ended
    finally:
        server.stop()
