"""accept, leave and join: what was answered holds, whatever happens a moment later."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns.mesh.stage import ROOT, Node, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(3).running() as made:
        yield made


@pytest.fixture
def node(stage: Stage) -> Iterator[Node]:
    yield stage.nodes[0]
    stage.nodes[0].stop(signal.SIGKILL)
    stage.nodes[0].start()
    stage.nodes[0].ctl("join")
    eventually(stage.nodes[0].subnet, 30)


def conditions(node: Node) -> dict[str, Any]:
    return {each["name"]: each for each in node.document("status")["conditions"]}


def state_of(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((node.folder / "state/state.json").read_text())
    return found


def copy_of(node: Node) -> Path:
    return node.folder / "state/copy.json"


def ask(node: Node, verb: str) -> subprocess.Popen[bytes]:
    """The verb, not waited for."""

    def popen() -> subprocess.Popen[bytes]:
        command = [*node.ctl_command(verb)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    started: subprocess.Popen[bytes] = node.host.call(popen)
    return started


def blocked(place: str, gate: Path) -> str:
    """Python that lets a method of the agent's wait for a file to go."""
    owner, _, method = place.rpartition(".")
    return (
        "import pathlib, time\n"
        "from agent.daemon.membership import leave as membership\n"
        f"owner = membership.{owner}\n"
        f"wrapped, gate = owner.{method}, pathlib.Path({str(gate)!r})\n"
        "def waits(self, *given, **named):\n"
        "    gate.with_suffix('.reached').touch()\n"
        "    while gate.exists(): time.sleep(0.02)\n"
        "    return wrapped(self, *given, **named)\n"
        f"owner.{method} = waits\n"
    )


def test_a_join_beside_a_leave_that_has_only_begun_leaves_one_answer(
    node: Node, tmp_path: Path
) -> None:
    """Status and disk say the same; a restart would show the other one."""
    gate = tmp_path / "gate"
    gate.touch()
    node.stop(signal.SIGKILL)
    node.start(blocked("Leaver.leave", gate))
    eventually(node.subnet, 20)
    leave = ask(node, "leave")
    eventually(gate.with_suffix(".reached").exists, 20)
    node.ctl("join")
    gate.unlink()
    leave.communicate(timeout=60)
    assert state_of(node)["left"] == (node.document("status")["state"] == "left")


def test_a_join_waits_for_a_leave_that_runs(stage: Stage, node: Node, tmp_path: Path) -> None:
    """Nothing that the leave does later may undo it: lease and copy are there at its end."""
    gate = tmp_path / "gate"
    gate.touch()
    node.stop(signal.SIGKILL)
    node.start(blocked("Leaver._give_docker_back", gate) + "membership._JOIN_WAITS_S = 1\n")
    subnet = eventually(node.subnet, 20)
    leave = ask(node, "leave")
    eventually(gate.with_suffix(".reached").exists, 20)
    refused = node.ctl("join")
    assert "another leave is under way" in refused.stderr
    assert state_of(node)["left"]
    join = ask(node, "join")
    gate.unlink()
    assert leave.wait(60) == 0
    assert join.wait(60) == 0
    assert state_of(node)["left"] is False
    assert copy_of(node).exists(), "written before the answer"
    eventually(lambda: node.subnet() == subnet, 20)
    key = f"/hostmesh/subnets/{subnet.replace('/', '-')}"
    assert key in stage.etcdctl("get", "--keys-only", "--prefix", "/hostmesh/subnets").stdout


def test_promise_6_what_was_accepted_is_not_doubted_again_after_a_power_cut(
    stage: Stage, node: Node
) -> None:
    """The other hosts are gone for good, so that nothing but the operator ends the alarm."""
    eventually(lambda: len(node.document("status")["peers"]) == 2, 20)
    eventually(lambda: b"192.0.2.3" in copy_of(node).read_bytes(), 20)
    for other in stage.nodes[1:]:
        other.stop(signal.SIGKILL)
    stage.stop_etcd()
    shutil.rmtree(stage.folder / "etcd")
    stage.start_etcd()
    stage.create_mesh()
    eventually(lambda: "etcd-alarm" in conditions(node), 30)
    assert node.ctl("etcd", "accept").returncode == 0
    node.stop(signal.SIGKILL)
    node.start()
    eventually(lambda: node.document("status")["etcd"]["connected"], 20)
    eventually(lambda: not node.document("status")["etcd"]["cached"], 20)
    assert "etcd-alarm" not in conditions(node)
