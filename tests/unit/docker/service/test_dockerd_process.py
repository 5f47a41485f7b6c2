"""Docker's process: by systemd, by the kernel, never by a name."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agent.docker.service import dockerd_process
from agent.docker.service.dockerd_process import DaemonProcess, DockerdFinder
from agent.docker.service.socket_path import why_replaceable
from agent.programs import Finished

pytestmark = pytest.mark.unit

OWN = os.getpid()
API = Path("/run/docker.sock")


class Systemd:
    """Answers ``systemctl show`` and counts how often it was asked."""

    def __init__(self, *units: str) -> None:
        self.units = units
        self.status: int | None = 0
        self.asked: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], timeout_s: float) -> Finished:
        assert timeout_s > 0
        self.asked.append(tuple(argv))
        if self.status != 0:
            return Finished(self.status, "no end within 5 s")
        names = argv[3:]
        shown = [
            text
            for text in self.units
            if any(f"Id={name}\n" in text for name in names)
            or ("*.socket" in names and "Listen=" in text)
        ]
        return Finished(0, "\n\n".join(shown))


def process(
    proc: Path, pid: int, comm: str, *, start: int = 90000, net: str = "net:[1]", uid: str = "0"
) -> None:
    (proc / "uptime").write_text("1000.50 2000.0\n")
    (proc / "self/ns").mkdir(parents=True, exist_ok=True)
    for name, target in (("self", "net:[1]"), (str(pid), net)):
        link = proc / name / "ns/net"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    folder = proc / str(pid)
    (folder / "comm").write_text(f"{comm}\n")
    (folder / "cmdline").write_text(f"/usr/bin/{comm}\0--bip\x001.2.3.4/24\0")
    (folder / "stat").write_text(f"{pid} ({comm} )) S " + "0 " * 18 + f"{start} 0 0\n")
    users = "\t".join([uid] * 4) if uid.isdecimal() else uid
    (folder / "status").write_text(f"Name:\t{comm}\nUid:\t{users}\nGid:\t0\t0\t0\t0\n")


def docker(pid: int) -> str:
    return f"Id=docker.service\nMainPID={pid}\nActiveState=active\n"


def pid_of(found: DaemonProcess | None) -> int | None:
    return found.pid if found else None


def table(tmp_path: Path, systemd: Systemd | None, api: Path = API) -> DockerdFinder:
    folder = tmp_path if systemd else tmp_path / "none"
    return DockerdFinder(api, runner=systemd or Systemd(), systemd=folder, proc=tmp_path)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A socket that this process listens on, in a folder that may be trusted."""
    monkeypatch.setattr(dockerd_process, "why_replaceable", lambda _: "")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        listener.listen(8)
        yield tmp_path / "docker.sock"


def test_docker_is_the_main_process_of_its_unit_however_others_are_named(tmp_path: Path) -> None:
    systemd = Systemd(docker(10))
    process(tmp_path, 10, "dockerd-of-theirs")
    process(tmp_path, 5, "dockerd", start=1, uid="1000")
    process(tmp_path, 6, "dockerd", start=2)
    found = table(tmp_path, systemd).dockerd()
    assert found is not None
    assert (found.pid, found.argv[1:]) == (10, ("--bip", "1.2.3.4/24"))
    assert 100.0 < found.age_s < 101.0


@pytest.mark.parametrize("uid", ["1000", "1000\t0\t0\t0", "0\t0\t0\t1000"])
def test_promise_11_a_number_that_another_user_has_by_now_is_not_docker(
    tmp_path: Path, uid: str
) -> None:
    """Also one that runs a program with the set-user-ID bit, by a link named dockerd."""
    process(tmp_path, 10, "dockerd", uid=uid)
    assert table(tmp_path, Systemd(docker(10))).dockerd() is None


def test_a_dockerd_in_another_network_namespace_is_another_one(tmp_path: Path) -> None:
    process(tmp_path, 10, "dockerd", net="net:[2]")
    assert table(tmp_path, Systemd(docker(10))).dockerd() is None


def test_systemd_is_asked_again_only_when_the_process_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd = Systemd(docker(10))
    process(tmp_path, 10, "dockerd")
    made = table(tmp_path, systemd)
    assert [pid_of(made.dockerd()) for _ in range(3)] == [10] * 3
    assert len(systemd.asked) == 1
    process(tmp_path, 10, "sshd", start=95000, uid="1000")
    systemd.units = (docker(11),)
    process(tmp_path, 11, "dockerd")
    assert pid_of(made.dockerd()) == 11
    monkeypatch.setattr(dockerd_process, "_ASK_AGAIN_S", 0.0)
    assert pid_of(made.dockerd()) == 11
    assert len(systemd.asked) == 3


def test_a_docker_that_systemd_would_start_is_not_connected_to(tmp_path: Path) -> None:
    api = tmp_path / "docker.sock"
    head = "Id=docker.socket\nActiveState=active\nTriggers=docker.service\n"
    unit = f"{head}Listen=/run/x (Stream)\nListen={api} (Stream)\n"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(api))
        listener.listen(8)
        assert table(tmp_path, Systemd(docker(0), unit), api).dockerd() is None
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("status", [None, 1])
def test_while_systemd_does_not_answer_nothing_is_connected_to(
    tmp_path: Path, api: Path, status: int | None
) -> None:
    """The socket may be systemd's."""
    systemd = Systemd(docker(10))
    systemd.status = status
    process(tmp_path, OWN, "dockerd")
    assert table(tmp_path, systemd, api).dockerd() is None


def test_the_service_of_the_socket_may_have_another_name(tmp_path: Path) -> None:
    api = tmp_path / "docker.sock"
    unit = f"Id=mine.socket\nActiveState=active\nTriggers=mine.service\nListen={api} (Stream)\n"
    process(tmp_path, 12, "dockerd")
    systemd = Systemd(docker(0), unit, "Id=mine.service\nMainPID=12\n")
    assert pid_of(table(tmp_path, systemd, api).dockerd()) == 12


@pytest.mark.skipif(os.getuid() != 0, reason="root's processes are looked for")
@pytest.mark.parametrize(
    ("comm", "exe", "found"),
    [
        ("dockerd", None, OWN),
        ("dockerd", "/opt/docker/bin/dockerd-27", OWN),
        ("python3", "/opt/docker/dockerd (deleted)", OWN),
        ("dockerd", "/usr/bin/socat", None),
        ("podman", None, None),
    ],
)
def test_without_systemd_docker_is_the_listener_of_its_socket(
    tmp_path: Path, api: Path, comm: str, exe: str | None, found: int | None
) -> None:
    process(tmp_path, OWN, comm)
    process(tmp_path, 5, "dockerd", start=1)
    if exe:
        (tmp_path / f"{OWN}/exe").symlink_to(exe)
    assert pid_of(table(tmp_path, None, api).dockerd()) == found


def test_promise_11_a_socket_that_others_may_replace_names_no_process(tmp_path: Path) -> None:
    process(tmp_path, OWN, "dockerd")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        listener.listen(8)
        (tmp_path / "docker.sock").parent.chmod(0o777)
        assert table(tmp_path, None, tmp_path / "docker.sock").dockerd() is None


def test_no_dockerd_and_no_proc(tmp_path: Path) -> None:
    missing = tmp_path / "docker.sock"
    assert table(tmp_path, None, missing).dockerd() is None
    assert table(tmp_path / "nowhere", Systemd(docker(10)), missing).dockerd() is None


# --- the socket's path ---------------------------------------------------------------------


def test_a_path_in_folders_of_root_alone() -> None:
    assert why_replaceable(Path("/run/hostmesh-no-such-folder/docker.sock"), owner=0) == ""
    assert "/tmp" in why_replaceable(Path("/tmp/docker.sock"))  # noqa: S108 - the point
    assert "belongs to user" in why_replaceable(Path("/run/docker.sock"), owner=4711)


def test_links_on_the_way_are_followed_and_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    links = {
        "/a/run": "../b/./run",
        "/b/run": "/c",
        "/c/docker.sock": "loose/docker.sock",
        "/circle": "circle",
    }
    modes = {"/c/loose": 0o41777}

    def readlink(path: Path) -> Path:
        if str(path) in links:
            return Path(links[str(path)])
        raise OSError(22, "Invalid argument")

    def stat(path: Path) -> os.stat_result:
        return os.stat_result((modes.get(str(path), 0o40755), 0, 0, 1, 0, 0, 0, 0, 0, 0))

    monkeypatch.setattr(Path, "readlink", readlink)
    monkeypatch.setattr(Path, "stat", stat)
    why = why_replaceable(Path("/a/run/docker.sock"))
    circle = why_replaceable(Path("/circle/docker.sock"))
    fine = why_replaceable(Path("/b/run/other.sock"))
    monkeypatch.undo()
    assert why == "/c/loose on the way to /a/run/docker.sock can be written by others (mode 1777)"
    assert "circle" in circle
    assert fine == ""
