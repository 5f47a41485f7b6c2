"""Other programs: deadlines, environment, what they print."""

import threading
import time

import pytest

from agent import programs
from agent.programs import ProgramRunner, Stopped

pytestmark = pytest.mark.unit


def test_a_command_says_its_last_lines() -> None:
    result = ProgramRunner().run(
        ["sh", "-c", "for i in $(seq 50); do echo line $i; done; exit 3"], 10
    )
    assert result.status == 3
    assert result.last_lines.startswith("line 43 / ")
    assert result.last_lines.endswith("line 50")


def test_promise_10_a_command_that_hangs_is_ended_with_its_children() -> None:
    started_s = time.monotonic()
    result = ProgramRunner().run(["sh", "-c", "sleep 60 & sleep 60"], 0.3)
    assert result.status is None
    assert time.monotonic() - started_s < 3
    assert "sh did not end within 0.3 s" in result.last_lines


def test_promise_10_a_command_that_cannot_be_killed_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits in the kernel, for a disk or a network file system."""
    monkeypatch.setattr(programs, "_KILL_WAIT_S", 0.0)
    result = ProgramRunner().run(["sleep", "60"], 0.1)
    assert result.status is None


def test_a_command_that_is_not_there() -> None:
    result = ProgramRunner().run(["/no/such/program"], 1)
    assert result.status is None
    assert "No such file" in result.last_lines


def test_a_flood_of_output_fills_no_pipe() -> None:
    result = ProgramRunner().run(["sh", "-c", "yes | head -c 3000000; echo end"], 20)
    assert result.status == 0
    assert result.last_lines.endswith("end")


def test_promise_10_a_program_that_prints_without_end_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(programs, "_MOST_BYTES", 1 << 20)
    result = ProgramRunner().run(["yes"], 60)
    assert result.status is None
    assert "printed more than" in result.last_lines
    assert len(result.output) <= 1 << 20


def test_promise_11_a_secret_of_the_agent_reaches_no_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOSTMESH_ETCD_PASSWORD", "correct horse")
    result = ProgramRunner().run(["env"], 10)
    names = {line.partition("=")[0] for line in result.output.splitlines()}
    assert result.status == 0
    assert names <= {"PATH", "LC_ALL", "PWD", "SHLVL", "_"}, "a shell that execs may add the rest"
    assert "correct horse" not in result.text


def test_a_program_reads_what_it_is_given_and_errors_are_kept_apart() -> None:
    result = ProgramRunner().run(["sh", "-c", "cat; echo odd >&2"], 10, stdin="line\n")
    assert result == (0, "line\n", "odd\n")


def test_programs_of_the_system_are_found_where_path_lacks_them() -> None:
    assert ProgramRunner(path="/nowhere").find("ip") is not None


def test_an_agent_that_stops_leaves_the_command_alone() -> None:
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(Stopped):
        ProgramRunner(stopping=stopping).run(["sleep", "1"], 10)
