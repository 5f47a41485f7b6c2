"""agentctl and the control socket where an answer cannot be had, and where routes differ."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from agent.errors import CannotTell, KernelError, UsageError
from tests.netns.mesh.stage import Node, Stage
from tests.unit.ctl.schemas import check
from tests.waiting import eventually

pytestmark = pytest.mark.netns

REFUSE = """
from pathlib import Path
from agent.errors import KernelError
from agent.kernel.tables.routes import RouteTable
list_all = RouteTable.list_all
def refused(self, *known):
    if Path({flag!r}).exists():
        raise KernelError("the kernel refused to list routes")
    return list_all(self, *known)
RouteTable.list_all = refused
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(2).running() as made:
        yield made


@pytest.fixture
def node(stage: Stage) -> Node:
    return stage.nodes[0]


def asked(node: Node, path: str) -> tuple[int, Any]:
    """HTTP status and body of an answer of the control socket."""
    command = ["curl", "-s", "-w", "\n%{http_code}", "--unix-socket", str(node.socket)]
    done = subprocess.run(
        [*command, f"http://localhost{path}"], check=True, capture_output=True, text=True
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body if path == "/metrics" else json.loads(body)


def routes(node: Node) -> tuple[int | None, int | None, int | None]:
    """Desired, installed, and drift, as the agent says."""
    return counts(asked(node, "/v1/status")[1])


def counts(status: Any) -> tuple[int | None, int | None, int | None]:  # noqa: ANN401 - JSON
    """The same of a document."""
    check("status", status)
    found = status["routes"]
    return found["desired"], found["installed"], found["drift"]


def in_metrics(node: Node) -> dict[str, str]:
    lines = asked(node, "/metrics")[1].splitlines()
    return dict(line.split() for line in lines if line.startswith("hostmesh_routes{"))


def routes_line(node: Node) -> str:
    found = re.search(r"\broutes  (.*?)( {3}|$)", node.ctl("status").stdout, re.MULTILINE)
    assert found is not None
    return found[1]


def test_an_agent_without_a_picture_is_no_usage_error(stage: Stage) -> None:
    """It has neither heard etcd nor a copy of the mesh."""
    node = stage.nodes[1]
    node.stop()
    shutil.rmtree(node.folder / "state")
    stage.stop_etcd()
    try:
        node.start()
        for words in ("diff", "routes", "leases", "ping node1"):
            done = node.ctl(*words.split())
            assert done.returncode == CannotTell.exit_code, (words, done.stderr)
        assert node.ctl("diff", "--nonsense").returncode == UsageError.exit_code
        status, document = asked(node, "/v1/leases")
        check("error", document)
        assert (status, document["error"]["code"]) == (409, "cannot-tell")
        assert asked(node, "/v1/nothing")[1]["error"]["code"] == "usage"
        assert routes(node) == (None, None, None)
        assert in_metrics(node) == {}
        node.stop(signal.SIGKILL)
        for words in ("diff", "wait --ready --timeout 100ms"):
            done = node.ctl(*words.split())
            assert done.returncode == CannotTell.exit_code, (words, done.stderr)
    finally:
        node.stop(signal.SIGKILL)
        stage.start_etcd()
        node.start()
    eventually(lambda: routes(node) == (2, 2, 0), 30)
    assert node.ctl("ping", "unknown-host").returncode == UsageError.exit_code


def test_promise_9_drift_is_how_many_routes_differ_now(stage: Stage, node: Node) -> None:
    """With and without an agent: one that another program replaced, and one too many."""
    subnet = stage.nodes[1].subnet()
    eventually(lambda: routes(node) == (2, 2, 0), 30)
    node.host.ip(f"route replace {subnet} via 192.0.2.77 proto 186")
    eventually(lambda: routes(node) == (2, 1, 1), 20)
    assert node.ctl("diff").returncode == 1
    assert routes_line(node) == "1 of 2, 1 drifted"
    assert in_metrics(node)['hostmesh_routes{state="drift"}'] == "1.0"
    node.stop(signal.SIGKILL)
    node.host.ip("route add 10.64.250.0/24 via 192.0.2.9 proto 140")
    try:
        assert counts(node.document("status")) == (2, 1, 2)
    finally:
        node.start()
    eventually(lambda: routes(node) == (2, 1, 1), 30)
    node.host.ip(f"route del {subnet} proto 186")
    eventually(lambda: routes(node) == (2, 2, 0), 20)


def test_promise_9_routes_that_cannot_be_listed_are_not_0_of_0(node: Node) -> None:
    flag = node.folder / "refuse"
    node.stop()
    node.start(REFUSE.format(flag=str(flag)))
    try:
        eventually(lambda: routes(node) == (2, 2, 0), 30)
        flag.touch()
        node.host.ip("link set eth0 mtu 1499")  # a change of the uplink is a reason to list again
        eventually(lambda: routes(node) == (2, None, None), 30)
        assert routes_line(node) == "unknown of 2"
        assert in_metrics(node) == {'hostmesh_routes{state="desired"}': "2.0"}
        assert "hostmesh_ready 0.0" in asked(node, "/metrics")[1]
        assert asked(node, "/readyz")[0] == 503
        assert node.document("diff")["state"] == "unknown"
        assert node.ctl("diff").returncode == CannotTell.exit_code
        assert asked(node, "/v1/routes")[1]["error"]["code"] == KernelError.code
        flag.unlink()
        eventually(lambda: routes(node) == (2, 2, 0), 40)
    finally:
        flag.unlink(missing_ok=True)
        node.host.ip("link set eth0 mtu 1500")
        node.stop()
        node.start()
    eventually(node.subnet, 20)
