"""Promise 1 on one host: two agents, or an agent and a verb that works without it, never meet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.daemon.store.host_lock import HostLock, holder_of
from agent.errors import Refused, StateError

pytestmark = pytest.mark.unit

HOLD_CLAIMS = (
    "import sys, time, pathlib; from agent.daemon.store.host_lock import HostLock;"
    " held = HostLock(pathlib.Path(sys.argv[1]), 'hostmesh-agent'); print('held', flush=True);"
    " time.sleep(60)"
)


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_CLAIMS, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_one_that_is_stopped_holds_it_and_one_that_is_killed_does_not(tmp_path: Path) -> None:
    process = holder(tmp_path / "run")
    try:
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(Refused) as caught:
            HostLock(tmp_path / "run", "agentctl leave")
        assert f"hostmesh-agent (pid {process.pid})" in caught.value.message
        assert holder_of(tmp_path / "run") == process.pid
        assert "agentctl leave" in caught.value.message
    finally:
        process.kill()
        process.wait(10)
    assert holder_of(tmp_path / "run") is None
    with HostLock(tmp_path / "run", "agentctl leave"), pytest.raises(Refused) as caught:
        HostLock(tmp_path / "run", "hostmesh-agent")
    assert f"agentctl leave (pid {os.getpid()})" in caught.value.message
    HostLock(tmp_path / "run", "hostmesh-agent").release()


def test_a_missing_lock_has_no_holder(tmp_path: Path) -> None:
    assert holder_of(tmp_path / "run") is None


def test_a_child_of_the_holder_does_not_hold_it_on(tmp_path: Path) -> None:
    held = HostLock(tmp_path, "hostmesh-agent")
    with subprocess.Popen(["sleep", "60"]) as child:
        held.release()
        HostLock(tmp_path, "hostmesh-agent").release()
        child.kill()


def test_a_place_where_it_cannot_be_is_an_error_for_operators(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no folder")
    with pytest.raises(StateError) as caught:
        HostLock(tmp_path / "run", "hostmesh-agent")
    assert "run_dir" in caught.value.hint
