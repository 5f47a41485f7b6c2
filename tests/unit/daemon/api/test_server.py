"""The control socket, spoken to over a real unix socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.daemon.api.connection import Paths
from agent.daemon.api.server import ControlServer
from agent.daemon.telemetry.thread_errors import ThreadErrors
from agent.errors import AgentUnavailable, KernelError, NotRoot, StateError
from agent.log import RateLimiter
from agent.model import Condition
from tests.waiting import eventually

pytestmark = pytest.mark.unit


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
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


class Stuck:
    """An answer that takes until it is set free."""

    def __init__(self) -> None:
        self.waiting = 0
        self._lock = threading.Lock()
        self._free = threading.Event()

    def __call__(self) -> Mapping[str, Any]:
        with self._lock:
            self.waiting += 1
        return {"free": self._free.wait(20)}

    def set_free(self) -> None:
        self._free.set()


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    made = Stuck()
    yield made
    made.set_free()


@pytest.fixture
def changed() -> list[Mapping[str, Any]]:
    """Bodies of the changes that were requested."""
    return []


@pytest.fixture
def path(stuck: Stuck, changed: list[Mapping[str, Any]]) -> Iterator[Path]:
    """A socket where other users may look, as under /run: pytest's own folder is closed."""

    def change(body: Mapping[str, Any]) -> Mapping[str, Any]:
        changed.append(body)
        return {"got": dict(body)}

    large = {"filler": "x" * 8_000_000}
    routes = Paths(
        read={
            "/v1/status": lambda: {"state": "ready"},
            "/healthz": lambda: (503, {"ok": False}),
            "/v1/broken": refuse,
            "/v1/bug": bug,
            "/v1/large": lambda: large,
            "/v1/stuck": stuck,
        },
        change={"/v1/echo": change},
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        socket_path = folder / "run" / "agent.sock"
        server = ControlServer(socket_path, "", routes)
        server.start()
        yield socket_path
        server.stop()
        assert not socket_path.exists()


def test_a_bug_in_an_answer_is_answered_and_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(repr(args.exc_value)))
    status, document = ask(path, "GET", "/v1/bug")
    assert status == 500
    assert "KeyError" in document["error"]["message"]
    assert "bugreport" in document["error"]["hint"]
    assert reported == ["KeyError('x')"]
    assert ask(path, "GET", "/v1/status")[0] == 200


def test_the_bugs_of_all_connections_are_counted_and_limited_together(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each connection has a thread of its own; their names are one."""
    found: list[tuple[Condition, ...]] = []
    monkeypatch.setattr(threading, "excepthook", ThreadErrors(found.append))
    with capture_logs(processors=[RateLimiter()]) as logged:
        for _ in range(10):
            assert ask(path, "GET", "/v1/bug")[0] == 500
    (condition,) = found[-1]
    assert condition.subject == "control-request"
    assert "(10 times)" in condition.cause
    assert [each["event"] for each in logged] == ["thread-failed"]


def test_documents_and_statuses(path: Path) -> None:
    assert ask(path, "GET", "/v1/status") == (200, {"state": "ready"})
    assert ask(path, "GET", "/healthz?verbose") == (503, {"ok": False})


def test_promise_11_a_web_page_may_change_nothing(
    path: Path, changed: list[Mapping[str, Any]]
) -> None:
    """A browser may have the socket behind a port of its own machine, such as with ssh -L."""
    headers = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    status, document = ask(path, "POST", "/v1/echo", {"force": True}, headers)
    assert (status, changed) == (400, [])
    assert document["error"]["message"] == "a web page may change nothing"


@pytest.mark.parametrize("target", ["/v1/echo", "/v1/unknown"])
def test_a_refusal_comes_after_the_body(path: Path, target: str) -> None:
    """A client that is cut off while it sends misses the answer."""
    connection = UnixConnection(path)
    connection.request("POST", target, None, {"Origin": "x", "Content-Length": "2"})
    assert not select.select([connection.sock], [], [], 0.3)[0]
    connection.send(b"{}")
    assert connection.getresponse().status in {400, 404}


def test_the_socket_is_for_root_and_its_group_only(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_errors_carry_code_hint_and_exit_status(path: Path) -> None:
    status, body = ask(path, "GET", "/v1/broken")
    assert status == 409
    assert body["error"] == {
        "code": "kernel-error",
        "message": "the kernel said no",
        "hint": "ask again",
        "exit_code": KernelError.exit_code,
    }


def test_an_unknown_path_lists_the_known_ones(path: Path) -> None:
    status, body = ask(path, "GET", "/v1/stats")
    assert status == 404
    assert "/v1/status" in body["error"]["hint"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"3", b"\xff", b"[" * 60_000])
def test_a_body_that_is_no_json_object_is_refused(path: Path, body: bytes) -> None:
    if os.geteuid() != 0:
        pytest.skip("changing verbs are for root: run as root to see the body refused")
    status, answer = ask(path, "POST", "/v1/echo", body)
    assert status == 400
    assert "JSON" in answer["error"]["message"]


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 1000000000",
        "Content-Length: -1",
        "Content-Length: \xb2",
        "Content-Length: +2",
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 2\r\nContent-Length: 2",
        "Content-Length : 2",
        "Content-Length: 99999999999999999999999999",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 2",
    ],
)
def test_a_body_whose_end_is_not_plain_changes_nothing_and_is_no_next_request(
    path: Path, changed: list[Mapping[str, Any]], head: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("changing verbs are for root: run as root to see the body refused")
    raw = f"POST /v1/echo HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
    status, document, rest = spoken(path, raw.encode("latin-1"))
    assert status == 400
    assert "request" in document["error"]["message"]
    assert rest == b"", "what follows is not taken for a request, and the connection ends"
    assert not changed


def test_half_a_body_changes_nothing(path: Path, changed: list[Mapping[str, Any]]) -> None:
    if os.geteuid() != 0:
        pytest.skip("changing verbs are for root: run as root to see the body refused")
    raw = b"POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{}"
    status, document, _ = spoken(path, raw)
    assert (status, changed) == (400, [])
    assert "only 2 of 9 bytes" in document["error"]["message"]


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b"PUT /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET /v1/status HTTP/1.1\r\n" + b"A: a\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_an_unreadable_request_gets_json_too(path: Path, raw: bytes, wanted: int) -> None:
    status, document, _ = spoken(path, raw)
    assert status == wanted
    assert document["error"]["exit_code"] == 2


def test_the_body_of_a_question_is_no_next_request(path: Path) -> None:
    inner = b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
    raw = b"GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
    status, document, rest = spoken(path, raw % (len(inner), inner))
    assert (status, document, rest) == (200, {"state": "ready"}, b"")


def spoken(path: Path, raw: bytes) -> tuple[int, Any, bytes]:
    """Status, document, and what came after it until the server hung up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(str(path))
        with contextlib.suppress(BrokenPipeError):  # it is answered before it was sent whole
            sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := sock.recv(65536):
                received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    length = int(fields[b"Content-Length"])
    return int(head.split(b" ")[1]), json.loads(body[:length]), body[length:]


def test_changing_verbs_need_root(path: Path) -> None:
    status, body = ask(path, "POST", "/v1/echo", {"a": 1})
    if os.geteuid() == 0:
        assert (status, body) == (200, {"got": {"a": 1}})
        path.chmod(0o666)
        status, body = as_nobody(lambda: ask(path, "POST", "/v1/echo", {"a": 1}))
    assert status == 403
    assert body["error"]["exit_code"] == NotRoot.exit_code


def as_nobody(run: Callable[[], tuple[int, Any]]) -> tuple[int, Any]:
    """Run in a child of uid 65534: SO_PEERCRED comes from the kernel."""
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


def test_a_dead_agents_socket_is_replaced(path: Path) -> None:
    stale = path.with_name("stale.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    assert stale.exists()
    server = ControlServer(stale, "", Paths({"/": lambda: {"new": True}}, {}))
    server.start()
    assert ask(stale, "GET", "/") == (200, {"new": True})
    server.stop()


def test_an_unknown_group_is_an_error_for_operators(tmp_path: Path) -> None:
    with pytest.raises(StateError) as caught:
        ControlServer(tmp_path / "agent.sock", "no-such-group-here", Paths({}, {}))
    assert "socket_group" in caught.value.hint


def connected(path: Path, number: int) -> list[socket.socket]:
    found = []
    for _ in range(number):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))  # waits for a place in the queue, as it does without a deadline
        sock.settimeout(20)
        found.append(sock)
    return found


def test_silent_clients_are_evicted(path: Path) -> None:
    """Promise 10: the one idle longest is evicted."""
    idle = connected(path, 40)
    began_s = time.monotonic()
    assert [ask(path, "GET", "/v1/status")[0] for _ in range(5)] == [200] * 5
    assert time.monotonic() - began_s < 8  # who is idle may stay for 10 s
    assert idle[0].recv(1) == b"", "the oldest was ended"
    assert ask(path, "GET", "/v1/status")[0] == 200
    for sock in idle:
        sock.close()


def test_clients_that_connect_at_once_are_not_evicted_before_they_can_ask(tmp_path: Path) -> None:
    """One of them is slow with its request, such as on a busy host, and 29 come after it."""
    socket_path = tmp_path / "agent.sock"
    server = ControlServer(socket_path, "", Paths({"/": dict}, {}), idle_s=20)
    server.start()
    try:
        clients = connected(socket_path, 30)
        slow = select.poll()
        slow.register(clients[0], select.POLLIN)
        assert slow.poll(500) == [], "the first was evicted, as if it had nothing to ask"
        for sock in clients:
            sock.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert [sock.recv(12) for sock in clients] == [b"HTTP/1.1 200"] * 30
    finally:
        server.stop()


def test_clients_that_do_not_take_their_answer_are_evicted(path: Path) -> None:
    greedy = connected(path, 30)
    for sock in greedy:
        with contextlib.suppress(BrokenPipeError):  # a slow one is evicted before it asks
            sock.sendall(b"GET /v1/large HTTP/1.1\r\nHost: x\r\n\r\n")
    began_s = time.monotonic()
    assert ask(path, "GET", "/v1/status")[0] == 200
    assert time.monotonic() - began_s < 8  # who is idle may stay for 10 s
    for sock in greedy:
        sock.close()


def test_while_all_clients_wait_root_gets_in_and_others_are_refused(
    path: Path, stuck: Stuck, changed: list[Mapping[str, Any]]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("places are kept for root: run as root")
    waiting = connected(path, 16)
    for sock in waiting:
        sock.sendall(b"GET /v1/stuck HTTP/1.1\r\nHost: x\r\n\r\n")
    eventually(lambda: stuck.waiting == 16, 20)
    path.chmod(0o666)
    question = b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
    status, document = as_nobody(lambda: spoken(path, question)[:2])
    assert (status, document["error"]["exit_code"]) == (503, AgentUnavailable.exit_code)
    assert ask(path, "POST", "/v1/echo", {"a": 1})[0] == 200
    assert changed == [{"a": 1}]
    stuck.set_free()
    for sock in waiting:
        assert sock.recv(12) == b"HTTP/1.1 200"
        sock.close()


def test_a_connection_ends_in_time_however_busy_it_looks(tmp_path: Path) -> None:
    """Promise 10: one that sends a byte now and then keeps no slot for ever."""
    socket_path = tmp_path / "agent.sock"
    server = ControlServer(socket_path, "", Paths({}, {}), connection_s=0.3)
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


def threads_of(server: ControlServer) -> list[str]:
    poller, request = server.name, "control-request"
    return sorted(each.name for each in threading.enumerate() if each.name in {poller, request})


def test_promise_10_a_connection_takes_one_thread_and_gives_it_back(tmp_path: Path) -> None:
    server = ControlServer(tmp_path / "agent.sock", "", Paths({"/": dict}, {}))
    server.start()
    try:
        eventually(lambda: threads_of(server) == ["control"])  # a former server's have ended
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(tmp_path / "agent.sock"))
            client.sendall(b"GET / HTTP/1.1\r\n")
            eventually(lambda: threads_of(server) == ["control", "control-request"])
            client.sendall(b"\r\n")
            client.settimeout(5)
            assert client.recv(12) == b"HTTP/1.1 200"
        eventually(lambda: threads_of(server) == ["control"])
    finally:
        server.stop()
    eventually(lambda: threads_of(server) == [])
