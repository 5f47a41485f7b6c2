"""dockerd as a service: commands with deadlines, units, logs, /proc."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.docker.daemonjson.flags import Flags, parse_flags
from agent.docker.service.dockerd_process import DaemonProcess, DockerdFinder
from agent.docker.service.dockerd_program import DockerdProgram
from agent.docker.service.service import DockerService, error_line
from agent.errors import DockerError
from agent.programs import Finished

pytestmark = pytest.mark.unit


class Script:
    """Answers commands by how they begin; notes them all."""

    def __init__(self, answers: dict[str, Finished]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], timeout_s: float) -> Finished:
        assert timeout_s > 0
        self.asked.append(tuple(argv))
        line = " ".join(argv)
        for start, result in self.answers.items():
            if line.startswith(start):
                return result
        return Finished(None, "not installed")


class NoProcesses(DockerdFinder):
    found: DaemonProcess | None = None

    def dockerd(self) -> DaemonProcess | None:
        return self.found


def service(
    tmp_path: Path,
    answers: dict[str, Finished],
    *,
    systemd: bool = True,
) -> tuple[DockerService, Script]:
    script = Script(answers)
    folder = tmp_path if systemd else tmp_path / "none"
    made = DockerService(runner=script, processes=NoProcesses(), systemd=folder)
    return made, script


def test_restarting_by_systemd_forgets_earlier_failures_first(tmp_path: Path) -> None:
    made, script = service(tmp_path, {"systemctl": Finished(0, "")})
    made.restart()
    assert [argv[1] for argv in script.asked] == ["reset-failed", "restart"]


def test_a_failed_restart_carries_the_last_lines(tmp_path: Path) -> None:
    answers = {"systemctl restart": Finished(1, "Job failed.\nSee journalctl.")}
    made, _ = service(tmp_path, answers)
    with pytest.raises(DockerError, match=r"failed \(1\): Job failed. / See journalctl."):
        made.restart()


def test_without_systemd_and_command_there_is_no_restart(tmp_path: Path) -> None:
    made, _ = service(tmp_path, {}, systemd=False)
    with pytest.raises(DockerError, match="no systemd here"):
        made.restart()
    assert made.unit_argv() == ()
    assert not made.failed()
    assert made.log_line(0) == ""


def test_the_units_command_line_with_drop_ins_and_variables(tmp_path: Path) -> None:
    file = tmp_path / "default-docker"
    file.write_text('# Debian\'s\nDOCKER_OPTS="--mtu=1400 --dns 1.1.1.1"\nbroken\nB=\n')
    shown = (
        "ExecStart={ path=/usr/sbin/dockerd ; argv[]=/usr/sbin/dockerd -H fd:// --bip=${BIP} "
        "$DOCKER_OPTS $NONE ; ignore_errors=no ; start_time=[n/a] }\n"
        'Environment=BIP=1.2.3.4/24 DOCKER_OPTS=no "X=a b"\n'
        f"EnvironmentFiles={file} (ignore_errors=yes)\n"
        "EnvironmentFiles=/nowhere/at/all (ignore_errors=yes)\n"
    )
    made, _ = service(tmp_path, {"systemctl show": Finished(0, shown)})
    assert made.unit_argv() == (
        "/usr/sbin/dockerd",
        "-H",
        "fd://",
        "--bip=1.2.3.4/24",
        "--mtu=1400",
        "--dns",
        "1.1.1.1",
    )


def test_a_dockerd_that_systemd_would_start_is_not_woken(tmp_path: Path) -> None:
    made, _ = service(tmp_path, {})
    assert made.asleep() == "dockerd is not running"
    NoProcesses.found = DaemonProcess(1, ("dockerd",), 1.0)
    try:
        assert made.asleep() == ""
    finally:
        NoProcesses.found = None
    assert service(tmp_path, {}, systemd=False)[0].asleep() == ""


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (
            (
                'level=info msg="Starting up"\nunable to configure the Docker daemon with '
                "file /etc/docker/daemon.json: EOF\ndocker.service: Main process exited\n"
            ),
            "unable to configure the Docker daemon with file /etc/docker/daemon.json: EOF",
        ),
        (
            'level=info msg="x"\nlevel=error msg="bad \\"thing\\" here"\nlevel=info msg="bye"',
            'bad "thing" here',
        ),
        (
            "failed to start daemon: no space\nlevel=error msg=later",
            "failed to start daemon: no space",
        ),
        ("all is well", ""),
        ("", ""),
    ],
)
def test_dockerds_own_error_line(log: str, line: str) -> None:
    assert error_line(log) == line


def test_the_check_uses_the_services_flags_once_for_each_text() -> None:
    refused = Finished(1, "unable to configure the Docker daemon: no-such-key")
    script = Script({"dockerd": refused})
    program = DockerdProgram(script, which=lambda _: None)
    flags = parse_flags(("dockerd", "-H", "fd://", "--config-file", "/x", "--debug"))
    for _ in range(2):
        condition = program.check_config("{}", "26.1", flags)
        assert condition is not None
        assert "no-such-key" in condition.cause
    (asked,) = script.asked
    assert asked[1:4] == ("--validate", "--host=fd://", "--debug=true")
    assert len(asked) == 5
    assert program.check_config("{}", "20.10.24", flags) is None


def test_the_check_is_done_again_for_another_dockerd_and_after_no_answer(tmp_path: Path) -> None:
    """The answer of one dockerd says nothing about the one that replaced it."""
    dockerd = tmp_path / "dockerd"
    dockerd.write_text("one")
    script = Script({"dockerd": Finished(None, "no end within 10 s")})
    program = DockerdProgram(script, which=lambda _: str(dockerd))

    def checks() -> int:
        before = len(script.asked)
        refused = program.check_config("{}", "26.1", Flags())
        assert (refused is not None) == (script.answers["dockerd"].status == 1)
        return len(script.asked) - before

    assert (checks(), checks()) == (1, 1), "no answer is none to keep"
    script.answers["dockerd"] = Finished(1, "unable to configure the Docker daemon: no-such-key")
    assert (checks(), checks()) == (1, 0)
    dockerd.write_text("another")
    script.answers["dockerd"] = Finished(0, "")
    assert (checks(), checks()) == (1, 0)


def test_the_installed_version_is_asked_once_of_each_dockerd(tmp_path: Path) -> None:
    dockerd = tmp_path / "dockerd"
    dockerd.write_text("one")
    script = Script({"dockerd --version": Finished(0, "Docker version 26.1.5, build 1")})
    program = DockerdProgram(script, which=lambda _: str(dockerd))
    assert [program.version() for _ in range(3)] == ["26.1.5"] * 3
    assert len(script.asked) == 1
    dockerd.write_text("another")
    script.answers["dockerd --version"] = Finished(0, "Docker version 20.10.24, build 1")
    assert program.version() == "20.10.24"


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("Docker version 26.1.5+dfsg1, build a72d7cd", "26.1.5+dfsg1"),
        ("Docker version 20.10.24+dfsg1, build 297e128", "20.10.24+dfsg1"),
        ("podman", ""),
    ],
)
def test_the_installed_version(output: str, version: str) -> None:
    program = DockerdProgram(Script({"dockerd --version": Finished(0, output)}))
    assert program.version() == version


def unit_of(active: str, sub: str, restarts: int, started_ago_s: float) -> str:
    started_us = int((time.monotonic() - started_ago_s) * 1e6)
    return (
        f"ActiveState={active}\nSubState={sub}\nNRestarts={restarts}\n"
        f"ExecMainStartTimestampMonotonic={started_us}\n"
    )


@pytest.mark.parametrize(
    ("unit", "failed"),
    [
        (("failed", "failed", 3, 5.0), True),
        (("failed", "failed", 3, 50.0), False),
        (("active", "running", 0, 5.0), False),
        (("inactive", "dead", 0, 5.0), False),
        (("activating", "auto-restart", 2, 5.0), False),
        (("activating", "auto-restart", 3, 5.0), True),
        (("activating", "start", 7, 5.0), False),
        (None, False),
    ],
)
def test_a_dockerd_that_systemd_gave_up_on_since_a_moment(
    tmp_path: Path, unit: tuple[str, str, int, float] | None, failed: bool
) -> None:
    text = unit_of(*unit) if unit else ""
    made, _ = service(tmp_path, {"systemctl show": Finished(0, text)})
    assert made.failed(started_within_s=20.0) is failed
    assert not service(tmp_path, {}, systemd=False)[0].failed()


def shown(docker: str, gate: str) -> str:
    return f"Id=docker.service\n{docker}\n\nId=hostmesh-docker-gate.service\n{gate}\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (shown("ActiveState=active", "ActiveState=active"), ""),
        (shown("ActiveState=active\nJob=0", "ActiveState=inactive\nJob="), ""),
        (
            shown("ActiveState=inactive\nJob=41", "ActiveState=active"),
            "systemd starts or stops Docker",
        ),
        (
            shown("ActiveState=inactive\nJob=41", "ActiveState=inactive\nJob=40"),
            "hostmesh-docker-gate.service holds Docker back",
        ),
        (
            shown("ActiveState=active", "ActiveState=activating"),
            "hostmesh-docker-gate.service holds Docker back",
        ),
        ("Failed to connect to bus", ""),
    ],
)
def test_what_systemd_is_about_to_do_with_docker(tmp_path: Path, text: str, why: str) -> None:
    made, _ = service(tmp_path, {"systemctl show": Finished(0, text)})
    assert made.starting() == why
    without, script = service(tmp_path, {}, systemd=False)
    assert without.starting() == ""
    assert script.asked == []
