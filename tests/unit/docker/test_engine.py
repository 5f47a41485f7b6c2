"""The engine behind a socket: Docker, podman, nobody, somebody who hangs, somebody else."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any
from urllib.parse import parse_qsl

import pytest

from agent.docker.engine import Engine
from agent.docker.reading import EngineKind
from agent.docker.watcher import EngineEvent, EngineWatcher, EventKind

pytestmark = pytest.mark.unit

VERSION = {"Version": "26.1.5+dfsg1", "ApiVersion": "1.45", "Components": [{"Name": "Engine"}]}
INFO = {
    "DefaultAddressPools": [
        {"Base": "10.64.128.0/17", "Size": 24},
        {"Base": "fd00::/48", "Size": 64},
    ],
    "LiveRestoreEnabled": True,
    "Swarm": {"LocalNodeState": "active"},
}
BRIDGE = {
    "Id": "b" * 64,
    "Name": "bridge",
    "Driver": "bridge",
    "IPAM": {"Config": [{"Subnet": "10.64.0.0/17", "Gateway": "10.64.0.1"}]},
    "Options": {
        "com.docker.network.bridge.name": "docker0",
        "com.docker.network.driver.mtu": "1450",
    },
    "Labels": {},
}
APP = {
    "Id": "a" * 64,
    "Name": "app",
    "Driver": "bridge",
    "Internal": True,
    "IPAM": {"Config": [{"Subnet": "fd00::/64"}, {"Subnet": "10.64.129.0/24"}]},
    "Options": {},
    "Labels": {"x": "y"},
}
SIX = {"Id": "c" * 64, "Name": "six", "Driver": "bridge", "IPAM": {"Config": None}, "Options": None}
WEB: dict[str, Any] = {
    "Id": "1" * 64,
    "Names": ["/web"],
    "NetworkSettings": {
        "Networks": {"app": {"NetworkID": "a" * 64, "IPAddress": "10.64.129.2", "MacAddress": ""}}
    },
    "Ports": [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},  # noqa: S104
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "127.0.0.1", "PrivatePort": 5432, "PublicPort": 5432, "Type": "udp"},
        {"PrivatePort": 9000, "Type": "tcp"},
        {"IP": "nowhere", "PrivatePort": 1, "PublicPort": 1, "Type": "tcp"},
    ],
}
CONTAINERS: list[dict[str, Any]] = [WEB, {"Id": "2" * 64, "Names": []}]


class FakeDocker:
    """An HTTP server on a unix socket that answers as it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Any] = {
            "/version": VERSION,
            "/info": INFO,
            "/networks": [BRIDGE, APP, SIX],
            "/containers/json": CONTAINERS,
        }
        self.events: list[bytes | None] = []
        self.changed = threading.Condition()
        self.delay_s = 0.0
        self.asked: list[dict[str, str]] = []
        self.server = self._serve()

    def _serve(self) -> ThreadingUnixStreamServer:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def address_string(self) -> str:
                return "unix"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

            def do_GET(self) -> None:
                time.sleep(fake.delay_s)
                path, _, query = self.path.partition("?")
                fake.asked.append(dict(parse_qsl(query)))
                path = "/" + path.split("/", 2)[2] if path.startswith("/v1.") else path
                if path == "/events":
                    fake.stream(self)
                    return
                answer = fake.answers.get(path, {"message": "page not found"})
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(200 if path in fake.answers else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.path.unlink(missing_ok=True)
        server = ThreadingUnixStreamServer(str(self.path), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def stream(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.flush()
        while True:
            with self.changed:
                if not self.changed.wait_for(lambda: bool(self.events), 10):
                    return
                line = self.events.pop(0)
            if line is None:
                handler.close_connection = True
                if "until" in self.asked[-1]:  # of the past: it has an end
                    handler.wfile.write(b"0\r\n\r\n")
                return
            handler.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            handler.wfile.flush()

    def say(self, kind: str, action: str, name: str) -> None:
        event = {"Type": kind, "Action": action, "Actor": {"Attributes": {"name": name}}}
        with self.changed:
            self.events.append(json.dumps(event).encode() + b"\n")
            self.changed.notify_all()

    def cut(self) -> None:
        with self.changed:
            self.events.append(None)
            self.changed.notify_all()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.path.unlink(missing_ok=True)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDocker]:
    server = FakeDocker(tmp_path / "docker.sock")
    yield server
    server.stop()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "docker.sock"))
        made.listen(8)
        yield made


def test_docker_says_what_it_is(fake: FakeDocker) -> None:
    reading = Engine(fake.path, 2.0).read()
    assert reading.kind is EngineKind.DOCKER
    assert reading.bip == IPv4Interface("10.64.0.1/17")
    assert reading.mtu == 1450
    assert reading.pools == ((IPv4Network("10.64.128.0/17"), 24),)
    assert reading.swarm == "active"
    facts = reading.facts
    assert (facts.reachable, facts.version, facts.live_restore) == (True, "26.1.5+dfsg1", True)
    assert facts.running == ("222222222222", "web")
    assert [network.name for network in facts.networks] == ["bridge", "app"]
    assert facts.bridge == facts.networks[0]
    app = facts.networks[1]
    assert (app.bridge, app.subnet, app.internal, app.default, dict(app.labels)) == (
        "br-aaaaaaaaaaaa",
        IPv4Network("10.64.129.0/24"),
        True,
        False,
        {"x": "y"},
    )


def test_what_containers_publish_and_where(fake: FakeDocker) -> None:
    (web,) = Engine(fake.path).facts().containers
    assert (web.name, [str(each.address) for each in web.attachments]) == ("web", ["10.64.129.2"])
    assert {(each.protocol, each.port, str(each.host_address)) for each in web.bindings} == {
        ("tcp", 80, "0.0.0.0"),  # noqa: S104
        ("tcp", 80, "::"),
        ("udp", 5432, "127.0.0.1"),
    }


def test_bridges_without_ipv4_are_known(fake: FakeDocker) -> None:
    assert Engine(fake.path).facts().other_bridges == ("br-cccccccccccc",)


def test_who_ended_a_moment_ago_is_asked_of_the_past(fake: FakeDocker) -> None:
    for name in ("web", "db", "web"):
        fake.say("container", "die", name)
    fake.cut()
    assert Engine(fake.path).ended(5.0) == ("db", "web")
    asked = fake.asked[-1]
    assert float(asked["until"]) - float(asked["since"]) == pytest.approx(5.0, abs=1.0)
    fake.stop()
    assert Engine(fake.path).ended(5.0) == ()


@pytest.mark.parametrize(
    ("age_s", "counts"), [(0.0, True), (20.0, True), (40.0, False), (-3600.0, False)]
)
def test_promise_7_a_container_that_was_just_made_is_about_to_start(
    fake: FakeDocker, age_s: float, counts: bool
) -> None:
    """Made by docker run or Compose; one that waits for its day is in nobody's way."""
    made = {"Id": "3" * 64, "Names": ["/new"], "State": "created", "Created": time.time() - age_s}
    fake.answers["/containers/json"] = [made, {**CONTAINERS[0], "State": "running"}]
    running = Engine(fake.path).facts().running
    assert running == (("new", "web") if counts else ("web",))


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        (None, ""),
        ({"Driver": "nftables"}, "nftables"),
        ({"Driver": "iptables+firewalld"}, "iptables"),
    ],
)
def test_the_firewall_backend(fake: FakeDocker, backend: object, name: str) -> None:
    fake.answers["/info"] = {**INFO, "FirewallBackend": backend}
    assert Engine(fake.path, 2.0).facts().firewall_backend == name


def test_podman_is_not_mistaken_for_docker(fake: FakeDocker) -> None:
    """The answer of Debian 12's podman 4.3.1, as `podman system service` gave it."""
    fake.answers["/version"] = {
        "Platform": {"Name": "linux/amd64/debian-12"},
        "Components": [
            {"Name": "Podman Engine", "Version": "4.3.1", "Details": {"APIVersion": "4.3.1"}},
            {"Name": "Conmon", "Version": "conmon version 2.1.6, commit: unknown"},
            {"Name": "OCI Runtime (crun)", "Version": "crun version 1.8.1"},
        ],
        "Version": "4.3.1",
        "ApiVersion": "1.41",
        "MinAPIVersion": "1.24",
        "GoVersion": "go1.19.8",
        "Os": "linux",
    }
    reading = Engine(fake.path, 2.0).read()
    assert reading.kind is EngineKind.PODMAN
    assert not reading.facts.reachable
    assert "podman" in reading.facts.problem


def test_nobody_there(tmp_path: Path) -> None:
    reading = Engine(tmp_path / "docker.sock", 2.0).read()
    assert (reading.kind, reading.facts.reachable) == (EngineKind.ABSENT, False)
    assert "does not exist" in reading.facts.problem


def test_a_socket_nobody_listens_on(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "docker.sock"))
    reading = Engine(tmp_path / "docker.sock", 2.0).read()
    assert reading.kind is EngineKind.ABSENT
    assert "refused" in reading.facts.problem.lower()


def test_promise_10_an_engine_that_hangs_costs_one_deadline(
    listener: socket.socket, tmp_path: Path
) -> None:
    started_s = time.monotonic()
    reading = Engine(tmp_path / "docker.sock", 0.3).read()
    assert 0.2 < time.monotonic() - started_s < 2
    assert reading.kind is EngineKind.SILENT
    assert "does not answer within 0.3 s" in reading.facts.problem
    del listener


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff\xfe",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ncut off",
    ],
)
def test_somebody_else_on_the_socket(
    listener: socket.socket, tmp_path: Path, answer: bytes
) -> None:
    def serve() -> None:
        for _ in range(3):
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                connection.recv(4096)
                connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    reading = Engine(tmp_path / "docker.sock", 1.0).read()
    assert reading.kind is EngineKind.SILENT
    assert not reading.facts.reachable
    assert reading.facts.problem


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/networks", {"oh": 1}),
        ("/networks", [{"Name": "bridge"}, 7]),
        ("/info", []),
        ("/containers/json", [None]),
        ("/version", {**VERSION, "Components": 7}),
    ],
)
def test_answers_that_no_docker_gives_are_no_crash(
    fake: FakeDocker, path: str, answer: object
) -> None:
    fake.answers[path] = answer
    assert Engine(fake.path, 1.0).read().kind is EngineKind.SILENT


def test_an_engine_that_sleeps_is_not_woken(fake: FakeDocker) -> None:
    fake.answers = {}
    engine = Engine(fake.path, 1.0, asleep=lambda: "dockerd is not running")
    reading = engine.read()
    assert (reading.kind, reading.facts.problem) == (EngineKind.ABSENT, "dockerd is not running")
    assert not engine.ping()
    assert engine.stay_down() == ()


def test_who_would_not_come_back(fake: FakeDocker) -> None:
    fake.answers["/containers/json"] = [{"Id": name * 64, "Names": [f"/{name}"]} for name in "abcd"]
    for name, policy in zip("abcd", ["always", "unless-stopped", "on-failure", "no"], strict=True):
        fake.answers[f"/containers/{name * 64}/json"] = {
            "HostConfig": {"RestartPolicy": {"Name": policy}}
        }
    assert Engine(fake.path, 2.0).stay_down() == ("c", "d")
    assert Engine(fake.path, 2.0).stay_down(("d",)) == ("c",)


def test_the_docker_package_is_loaded_only_when_needed() -> None:
    code = (
        "import sys, pathlib, agent.docker.room, agent.docker.engine as e\n"
        "e.Engine(pathlib.Path('/nowhere/docker.sock')).read()\n"
        "sys.exit(any(name.split('.')[0] in {'docker', 'requests'} for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- events -----------------------------------------------------------------------------


class Heard:
    """Collects events and waits for one."""

    def __init__(self) -> None:
        self.events: list[EngineEvent] = []
        self._changed = threading.Condition()

    def __call__(self, event: EngineEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait(self, wanted: Callable[[EngineEvent], bool], timeout_s: float = 5.0) -> EngineEvent:
        with self._changed:
            assert self._changed.wait_for(lambda: any(map(wanted, self.events)), timeout_s)
            found = next(filter(wanted, self.events))
            self.events.clear()
            return found


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def watcher(fake: FakeDocker, heard: Heard) -> Iterator[EngineWatcher]:
    made = EngineWatcher(Engine(fake.path, 1.0), heard, idle_s=5.0)
    made.start()
    yield made
    made.stop()


@pytest.mark.usefixtures("watcher")
def test_events_are_followed_and_the_stream_is_reopened(fake: FakeDocker, heard: Heard) -> None:
    heard.wait(lambda e: e.kind is EventKind.BACK)
    fake.say("network", "create", "app")
    heard.wait(lambda e: e == EngineEvent(EventKind.NETWORK, "create", "app"))
    fake.cut()
    fake.say("container", "die", "web")
    heard.wait(lambda e: e == EngineEvent(EventKind.CONTAINER, "die", "web"))


@pytest.mark.usefixtures("watcher")
def test_an_engine_that_goes_and_comes_back_is_told_once_each(
    fake: FakeDocker, heard: Heard
) -> None:
    heard.wait(lambda e: e.kind is EventKind.BACK)
    fake.stop()
    fake.cut()
    gone = heard.wait(lambda e: e.kind is EventKind.GONE)
    assert gone.action
    time.sleep(1.0)
    assert heard.events == []
    fake.server = fake._serve()
    heard.wait(lambda e: e.kind is EventKind.BACK)


def test_a_silent_stream_is_opened_anew_and_a_hang_noticed(fake: FakeDocker, heard: Heard) -> None:
    watcher = EngineWatcher(Engine(fake.path, 0.3), heard, idle_s=1.2)
    watcher.start()
    heard.wait(lambda e: e.kind is EventKind.BACK)
    fake.delay_s = 2.0
    assert "within 0.3 s" in heard.wait(lambda e: e.kind is EventKind.GONE).action
    fake.delay_s = 0.0
    heard.wait(lambda e: e.kind is EventKind.BACK)
    assert watcher.stop()


def test_promise_10_stop_ends_a_waiting_stream_at_once(fake: FakeDocker, heard: Heard) -> None:
    watcher = EngineWatcher(Engine(fake.path, 5.0), heard, idle_s=60.0)
    watcher.start()
    heard.wait(lambda e: e.kind is EventKind.BACK)
    started_s = time.monotonic()
    assert watcher.stop(5.0)
    assert time.monotonic() - started_s < 1


def test_promise_10_a_stream_that_ends_at_once_is_no_hot_loop(
    fake: FakeDocker, heard: Heard
) -> None:
    opened = 0
    stream = fake.stream

    def count(handler: BaseHTTPRequestHandler) -> None:
        nonlocal opened
        opened += 1
        fake.cut()
        stream(handler)

    fake.stream = count  # type: ignore[method-assign]
    watcher = EngineWatcher(Engine(fake.path, 1.0), heard)
    watcher.start()
    time.sleep(1.5)
    assert watcher.stop()
    assert 1 < opened < 12
