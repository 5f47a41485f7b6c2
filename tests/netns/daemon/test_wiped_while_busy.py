"""The prefix is wiped while one host is busy, another is slow and a third is killed.

The busy host looks when half of the leases are back. Judged alone, what it sees then raises no
alarm, and the routes to the slow host, which is alive, would go until it has registered again.
"""

from __future__ import annotations

import os
import signal
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.netns.backends.whole_mesh import Mesh
from tests.netns.mesh.stage import Stage
from tests.netns.netlab import Pinger
from tests.waiting import eventually

pytestmark = pytest.mark.netns

WAIT_S = 60.0
BUSY = """
import time
from agent.registry.follower import Follower
fold = Follower._fold
def busy_fold(self, *given):
    while os.path.exists({path!r}):
        time.sleep(0.01)
    fold(self, *given)
Follower._fold = busy_fold
"""


@pytest.mark.timeout(300)
def test_promise_4_a_host_that_is_busy_while_the_prefix_is_wiped_loses_no_packet(
    tmp_path: Path,
) -> None:
    stage = Stage(4, extra="[lease]\nempty_cluster_grace_s = 5\n")
    busy, slow, killed, other = stage.nodes
    flag = tmp_path / "busy"
    try:
        stage.create_mesh()
        busy.start(BUSY.format(path=str(flag)))
        for node in (slow, killed, other):
            node.start()
        stage.wait_joined()
        mesh = Mesh(stage, "host-gw")
        subnet = mesh.subnets

        def registered(*names: str) -> bool:
            there: dict[IPv4Network, str] = mesh.leased()
            return all(subnet[name] in there for name in names)

        ping = Pinger(busy.host, mesh.container(slow), 0.01)
        os.kill(slow.agent_pid, signal.SIGSTOP)
        flag.touch()
        stage.etcdctl("del", "--prefix", "/hostmesh/")
        eventually(lambda: registered(killed.name, other.name), WAIT_S)
        killed.stop(signal.SIGKILL)
        flag.unlink()
        eventually(lambda: registered(busy.name), WAIT_S)
        sent = ping.sent
        eventually(lambda: ping.sent > sent + 100, WAIT_S)
        os.kill(slow.agent_pid, signal.SIGCONT)
        eventually(lambda: registered(slow.name), WAIT_S)
        assert ping.stop().lost == []
    finally:
        stage.close()
