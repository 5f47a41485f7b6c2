"""The engine behind a socket: Docker, podman, none, one that hangs, another program."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from agent.docker.engine.engine import Engine
from agent.docker.engine.events import UNREADABLE, EngineEvent
from agent.docker.engine.reading import EngineKind
from agent.docker.engine.watcher import EngineWatcher
from tests.unit.docker.engine.fake_docker import CONTAINERS, INFO, VERSION, FakeDocker

pytestmark = pytest.mark.unit


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


def test_containers_that_ended_a_moment_ago_come_from_past_events(fake: FakeDocker) -> None:
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
    """Made by docker run or Compose; one made long ago holds no restart."""
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


def test_no_socket(tmp_path: Path) -> None:
    reading = Engine(tmp_path / "docker.sock", 2.0).read()
    assert (reading.kind, reading.facts.reachable) == (EngineKind.ABSENT, False)
    assert "does not exist" in reading.facts.problem


def test_a_socket_without_a_listener(tmp_path: Path) -> None:
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
def test_another_program_on_the_socket(
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
    assert engine.stay_down() == ()


def test_containers_that_would_not_come_back(fake: FakeDocker) -> None:
    fake.answers["/containers/json"] = [{"Id": name * 64, "Names": [f"/{name}"]} for name in "abcd"]
    for name, policy in zip("abcd", ["always", "unless-stopped", "on-failure", "no"], strict=True):
        fake.answers[f"/containers/{name * 64}/json"] = {
            "HostConfig": {"RestartPolicy": {"Name": policy}}
        }
    assert Engine(fake.path, 2.0).stay_down() == ("c", "d")
    assert Engine(fake.path, 2.0).stay_down(("d",)) == ("c",)


def test_the_docker_package_is_loaded_only_when_needed() -> None:
    code = (
        "import sys, pathlib, agent.docker.manager, agent.docker.engine.engine as e\n"
        "e.Engine(pathlib.Path('/nowhere/docker.sock')).read()\n"
        "sys.exit(any(name.split('.')[0] in {'docker', 'requests'} for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- events -----------------------------------------------------------------------------


class Heard:
    """Counts what a watcher calls back, and waits for it."""

    def __init__(self) -> None:
        self._count = threading.Semaphore(0)
        self.events: tuple[EngineEvent, ...] = ()

    def __call__(self, events: tuple[EngineEvent, ...]) -> None:
        self.events += events
        self._count.release()

    def wait(self, timeout_s: float = 5.0) -> bool:
        return self._count.acquire(timeout=timeout_s)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def watcher(fake: FakeDocker, heard: Heard) -> Iterator[EngineWatcher]:
    made = EngineWatcher(Engine(fake.path, 0.5), heard)
    made.start()
    yield made
    assert made.stop()


def test_events_are_followed_and_the_stream_is_opened_again(
    fake: FakeDocker, heard: Heard, watcher: EngineWatcher
) -> None:
    assert watcher.follow()
    fake.say("network", "create", "app")
    assert heard.wait()
    fake.cut()
    assert heard.wait(), "the end of the stream is an event, too"
    assert watcher.due_s == 0.0
    assert watcher.follow()
    fake.say("container", "die", "web")
    assert heard.wait()
    assert not heard.wait(0.1)
    assert heard.events == (EngineEvent("network", "create"), EngineEvent("container", "die"))


def test_a_line_that_no_docker_writes_is_an_event(
    fake: FakeDocker, heard: Heard, watcher: EngineWatcher
) -> None:
    assert watcher.follow()
    for line in (b"[]\n", b"7\n", b'{"Type": "container"}\n', b"\xff\n", b"[" * 20_000 + b"\n"):
        fake.send(line)
        assert heard.wait()
    assert set(heard.events) == {UNREADABLE}


def test_an_engine_that_goes_and_comes_back_is_looked_at_once_each(
    fake: FakeDocker, heard: Heard, watcher: EngineWatcher
) -> None:
    assert watcher.follow()
    fake.stop()
    fake.cut()
    assert heard.wait()
    assert [watcher.follow() for _ in range(3)] == [True, False, False]
    assert watcher.due_s > time.monotonic()
    fake.server = fake._serve()
    assert watcher.follow()


def test_a_stream_is_replaced_in_time_and_a_hang_noticed(
    fake: FakeDocker, watcher: EngineWatcher
) -> None:
    began_s = time.monotonic()
    assert watcher.follow()
    assert began_s + 30 <= watcher.due_s <= time.monotonic() + 30
    fake.delay_s = 2.0
    began_s = time.monotonic()
    assert watcher.follow()
    assert time.monotonic() - began_s < 1.5
    assert watcher.due_s < time.monotonic() + 1


def test_events_end_before_a_restart(fake: FakeDocker, heard: Heard) -> None:
    engine = Engine(fake.path, 1.0)
    watcher = EngineWatcher(engine, heard)
    watcher.start()
    assert watcher.follow()
    engine.end_events()
    assert heard.wait()
    assert watcher.stop()
    engine.end_events()  # harmless


def test_promise_10_a_stream_that_ends_at_once_is_no_hot_loop(
    fake: FakeDocker, heard: Heard, watcher: EngineWatcher
) -> None:
    pauses = []
    for _ in range(6):
        fake.cut()
        assert watcher.follow()
        assert heard.wait()
        pauses.append(watcher.due_s - time.monotonic())
    assert pauses[0] > 0.05
    assert max(pauses[3:]) > 0.5
