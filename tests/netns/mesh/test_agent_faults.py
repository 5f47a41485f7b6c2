"""A real agent hangs, is killed while it leaves, or meets a bug of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from agent.errors import AgentUnavailable, CannotTell, Refused
from tests.netns.mesh.stage import Node, Stage
from tests.unit.ctl.schemas import check
from tests.waiting import eventually, remarks

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(3).running() as made:
        yield made


@pytest.fixture
def node(stage: Stage) -> Iterator[Node]:
    """A member with its routes; afterwards one again."""
    found = stage.nodes[0]
    eventually(lambda: len(routes(found)) == 3, 20)
    yield found
    found.stop()
    found.start()
    found.ctl("join")
    eventually(found.subnet, 20)


def routes(node: Node) -> set[str]:
    return {line.split(" via ")[0] for line in node.host.ip("route show proto 140").splitlines()}


def rules(node: Node) -> str:
    return node.inside(["iptables-save"]).stdout


def leases(stage: Stage) -> set[str]:
    found = stage.etcdctl("get", "--prefix", "/hostmesh/subnets/", "--keys-only").stdout
    return set(found.split())


def conditions(node: Node) -> dict[str, str]:
    return {
        f"{each['name']} {each['subject']}".strip(): each["cause"]
        for each in node.document("status")["conditions"]
    }


def test_promise_1_a_hung_agent_is_not_taken_for_a_dead_one(node: Node) -> None:
    """Neither a second agent nor a verb that works without one goes ahead beside it."""
    subnet = node.subnet()
    os.kill(node.agent_pid, signal.SIGSTOP)
    crowd = [_trying(node) for _ in range(200)]  # until the queue on its socket is full
    try:
        assert not all(each.connected for each in crowd)
        for refused in (node.agent(), node.agent("--once"), node.ctl("cleanup")):
            assert refused.returncode == Refused.exit_code, refused.stderr
            assert f"hostmesh-agent (pid {node.agent_pid})" in refused.stderr
        silent = node.ctl("leave", "--timeout", "1s")
        assert silent.returncode == AgentUnavailable.exit_code
        assert "did not answer" in silent.stderr
        for verb in ("status", "routes", "map", "events", "firewall show", "leases"):
            looked = node.ctl(*verb.split(), "--timeout", "1s", "-o", "json")
            assert looked.returncode == 0, (verb, looked.stderr)
            assert "did not answer" in looked.stderr
            if verb == "status":
                status = json.loads(looked.stdout)
                check("status", status)
                assert (status["state"], status["subnet"]) == ("silent", subnet)
                assert f"(pid {node.agent_pid})" in status["conditions"][0]["cause"]
    finally:
        for each in crowd:
            each.socket.close()
        os.kill(node.agent_pid, signal.SIGCONT)
    assert eventually(node.subnet, 20) == subnet


def test_a_command_whose_client_gave_up_before_it_began_is_not_carried_out(node: Node) -> None:
    """It lies in the frozen agent's socket, whole, and is read when the agent goes on."""
    settings, read = node.settings.read_text(), node.log.read_text().count("settings-read")
    os.kill(node.agent_pid, signal.SIGSTOP)
    try:
        node.settings.write_text(settings + '[log]\nlevel = "debug"\n')
        for verb in ("leave", "reload"):
            late = node.ctl(verb, "--timeout", "1s")
            assert late.returncode == AgentUnavailable.exit_code
            assert "drops the command unless it has begun" in late.stderr
    finally:
        os.kill(node.agent_pid, signal.SIGCONT)
    eventually(lambda: node.document("status")["subnet"], 20)
    # Requests are read in the order of their connections: this one comes after both.
    assert node.document("diff")["state"] in {"equal", "drift"}
    assert not json.loads((node.folder / "state" / "state.json").read_text()).get("left")
    assert node.log.read_text().count("settings-read") == read
    node.settings.write_text(settings)


def test_columns_that_are_no_number_are_ignored(stage: Stage) -> None:
    for columns in ("\xb2", "9" * 5000):
        for words in (["status"], ["status", "--help"]):
            done = stage.nodes[1].ctl(*words, environ={"COLUMNS": columns})
            assert (done.returncode, remarks(done.stderr)) == (0, ""), done.stderr


HEADS = (
    "Content-Length: 5\r\nContent-Length: 0",
    "Content-Length: 0\r\nContent-Length: 0",
    "Content-Length : 5",
    ": x",
    "nonsense",
    "Content-Length: \xb2",
)


def test_a_head_that_two_readers_may_understand_differently_is_refused(stage: Stage) -> None:
    for head in HEADS:
        for asked in ("GET /v1/status", "POST /v1/reload"):
            raw = f"{asked} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n"
            status, rest = _spoken(stage.nodes[1], raw)
            assert (status, rest.count(b"HTTP/1.1")) == (400, 0), (asked, head)


def test_a_number_of_thousands_of_digits_is_no_bug_of_the_agent(stage: Stage) -> None:
    node = stage.nodes[1]
    status, _ = _spoken(node, f"GET /v1/events?after={'9' * 5000} HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == 400
    assert not [each for each in conditions(node) if each.startswith("agent-thread-failed")]


def _spoken(node: Node, raw: str) -> tuple[int, bytes]:
    """The status of the first answer, and all that came after its first line."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(20)
        asking.connect(str(node.socket))
        asking.sendall(raw.encode("latin-1"))
        asking.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := asking.recv(65536):
            received += chunk
    first, _, rest = received.partition(b"\r\n")
    return int(first.split(b" ")[1]), rest


class _Trying(NamedTuple):
    socket: socket.socket
    connected: bool


def _trying(node: Node) -> _Trying:
    one = socket.socket(socket.AF_UNIX)
    one.setblocking(False)
    try:
        one.connect(str(node.socket))
    except BlockingIOError:
        return _Trying(one, connected=False)
    return _Trying(one, connected=True)


DIE = "os.kill(os.getpid(), 9)"
STEPS = {
    "at the word": f"_release = lambda self: {DIE}",
    "lease given back": f"_forget = lambda self: {DIE}",
    "copy forgotten": f"_remove = lambda self: {DIE}",
    "kernel clean": f"_restore = lambda self, order: {DIE}",
}


@pytest.mark.parametrize("step", STEPS)
def test_promise_6_a_leave_that_a_kill_cut_off_is_finished_at_the_next_start(
    stage: Stage, node: Node, step: str
) -> None:
    node.stop(signal.SIGKILL)
    name, _, instead = STEPS[step].partition(" = ")
    # The steps are attributes of the object: a property of the class that takes no other value.
    node.start(
        "from agent.daemon.membership.leave import Leaver\n"
        f"Leaver.{name} = property(lambda self: ({instead}).__get__(self), lambda *_: None)"
    )
    subnet = eventually(node.subnet, 20)
    # Not by agentctl: when the agent breaks off it does the rest without help.
    asked = [
        "curl",
        "-s",
        "-d",
        "{}",
        "--unix-socket",
        str(node.socket),
        "http://localhost/v1/leave",
    ]
    assert node.inside(asked).returncode != 0
    assert node.wait_ended() == -signal.SIGKILL
    node.start()
    eventually(lambda: not routes(node), 20)
    eventually(lambda: "HOSTMESH" not in rules(node), 10)
    eventually(lambda: not any(str(subnet).replace("/", "-") in key for key in leases(stage)), 10)
    state = json.loads((node.folder / "state" / "state.json").read_text())
    eventually(
        lambda: not json.loads((node.folder / "state" / "state.json").read_text())["leaving"], 10
    )
    assert state["left"]
    assert node.document("status")["state"] == "left"
    assert "leave-not-finished" not in conditions(node)


def test_a_leave_that_cannot_be_finished_says_so_until_it_can(stage: Stage, node: Node) -> None:
    node.stop(signal.SIGKILL)
    state = node.folder / "state" / "state.json"
    state.write_text('{"version": 1, "left": true, "leaving": true}')
    assert "no agent runs" in conditions(node)["leave-not-finished"]
    stage.stop_etcd()
    try:
        node.start("from agent.daemon.membership import leave\nleave._AGAIN_S = 0.5")
        found = eventually(lambda: conditions(node).get("leave-not-finished"), 20)
        assert "could not be released" in str(found)
        assert not routes(node), "what can be done without etcd is done"
    finally:
        stage.start_etcd()
    eventually(lambda: "leave-not-finished" not in conditions(node), 30)
    assert not json.loads(state.read_text())["leaving"]


def test_promise_9_a_bug_in_a_thread_is_a_condition_and_not_the_threads_end(node: Node) -> None:
    node.stop()
    node.start(
        "from agent.kernel.netlink_monitor import Monitor\n"
        "drain, calls = Monitor._drain, []\n"
        "def first_fails(self, current):\n"
        "    found = drain(self, current)\n"
        "    calls.append(found)\n"
        "    return found if len(calls) > 1 else {}['nothing']\n"
        "Monitor._drain = first_fails"
    )
    eventually(node.subnet, 20)
    node.host.ip("route add 198.51.100.0/24 via 192.0.2.2")  # something for the thread to read
    node.host.ip("route del 198.51.100.0/24")
    found = eventually(lambda: conditions(node).get("agent-thread-failed netlink-monitor"), 10)
    assert "KeyError: 'nothing'" in str(found)
    assert "Traceback" in node.log.read_text()
    other = next(each for each in routes(node) if "unreachable" not in each)
    node.host.ip(f"route del {other} proto 140")
    eventually(lambda: other in routes(node), 5)


def test_a_bug_in_the_loop_ends_the_agent_with_its_own_status_and_takes_no_route(
    node: Node,
) -> None:
    before = routes(node)
    node.stop()
    node.spawn(  # it may end before it has a socket
        "from agent.daemon.core import loop\n"
        "loop.fold = lambda *event: {}['nothing']\n"
    )  # fmt: skip
    assert node.wait_ended() == 70
    log = node.log.read_text()
    assert '"event": "agent-failed"' in log
    assert "KeyError: 'nothing'" in log
    assert routes(node) == before


def test_once_leaves_the_kernel_to_an_agent_that_runs(node: Node) -> None:
    done = node.agent("--once")
    assert done.returncode == Refused.exit_code, done.stderr
    assert node.agent("--once", "--dry-run").returncode == 0


def test_promise_4_once_does_not_act_on_an_etcd_that_an_agent_would_not_believe(
    stage: Stage, node: Node
) -> None:
    before = routes(node)
    subnet = node.subnet()
    copy = node.folder / "state" / "copy.json"
    eventually(lambda: copy.read_text().count('\\"subnet\\"') >= 3, 20)
    node.stop()
    others = [key for key in leases(stage) if subnet.replace("/", "-") not in key]
    for each in stage.nodes[1:]:
        each.stop(signal.SIGKILL)
    try:
        for key in others:
            stage.etcdctl("del", key)
        for words in (["--once"], ["--once", "--dry-run"]):
            done = node.agent(*words)
            assert done.returncode in {Refused.exit_code, CannotTell.exit_code}, done.stdout
            assert "2 of 3 leases are gone" in done.stderr
        assert routes(node) == before
    finally:
        for each in stage.nodes[1:]:
            each.start()
        for each in stage.nodes[1:]:
            eventually(each.subnet, 20)


def test_once_repairs_a_host_whose_agent_does_not_run(node: Node) -> None:
    before = routes(node)
    node.stop()
    for each in before - {"unreachable 10.64.0.0/10"}:
        node.host.ip(f"route del {each} proto 140", check=False)
    assert node.agent("--once", "--dry-run").returncode == 1
    done = node.agent("--once")
    assert done.returncode == 0, done.stdout + done.stderr
    assert routes(node) == before
    written = [line for line in rules(node).splitlines() if "HOSTMESH" in line]
    assert any("DROP" in line for line in written), "strangers are shut out before Docker answers"
    assert not any("ACCEPT" in line for line in written), "which networks are open is not known"
    assert "Docker does not answer" in done.stdout
    assert "nothing differs" in node.agent("--once", "--dry-run").stdout
