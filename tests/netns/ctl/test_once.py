"""``hostmesh-agent --once``: one pass from a real etcd over a real kernel, by the agent's rules."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from subprocess import CompletedProcess

import pytest

from agent.errors import CannotTell
from tests.netns.mesh.stage import ROOT, Node, Stage
from tests.netns.routes.scene import shown
from tests.waiting import eventually

pytestmark = pytest.mark.netns

PEER = "10.64.9.0/24"
PEER_ROUTE = f"{PEER} via 192.0.2.9 dev eth0"
AGGREGATE = "unreachable 10.64.0.0/10"


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage(1)
    try:
        made.create_mesh()
        yield made
    finally:
        made.close()


@pytest.fixture
def node(stage: Stage) -> Node:
    """A host that held a subnet until its agent ended, beside a flannel host."""
    flannel(stage, PEER, "192.0.2.9")
    found = stage.nodes[0]
    found.start()
    eventually(lambda: {AGGREGATE, PEER_ROUTE} <= shown(found.host), 20)
    found.stop()
    return found


def flannel(stage: Stage, subnet: str, address: str) -> None:
    value = json.dumps({"PublicIP": address, "BackendType": "host-gw"})
    assert stage.etcdctl("put", key(subnet), value).returncode == 0


def key(subnet: str) -> str:
    return f"/hostmesh/subnets/{subnet.replace('/', '-')}"


def once(node: Node, *flags: str) -> CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", "--settings", str(node.settings), "--once", *flags]
    return node.inside(command, cwd=ROOT)


def test_it_says_what_it_would_do_then_does_it_then_finds_nothing(node: Node) -> None:
    node.host.ip(f"route del {PEER} proto 140")
    node.host.ip("route add 10.64.7.0/24 via 192.0.2.17 proto 140")
    before = shown(node.host)

    would = once(node, "--dry-run")
    assert would.returncode == 1, would.stderr
    assert "would replace 10.64.9.0/24" in would.stdout
    assert "would delete 10.64.7.0/24" in would.stdout
    assert shown(node.host) == before

    done = once(node)
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown(node.host) == {AGGREGATE, PEER_ROUTE}
    after = once(node, "--dry-run")
    assert after.returncode == 0
    assert "would" not in after.stdout

    settings = node.settings.read_text()
    node.settings.write_text(settings.replace("[routes]", "[routes]\nprotocol = 141"))
    would = once(node, "--dry-run")
    assert would.returncode == 1
    assert "would first give routes of protocol 140 the number 141" in would.stdout
    assert "conflict" not in would.stdout
    assert once(node).returncode == 0
    assert shown(node.host, "proto 141") == {AGGREGATE, PEER_ROUTE}
    assert shown(node.host) == set()


def test_promise_3_what_opens_waits_for_docker_and_what_is_in_force_stays(node: Node) -> None:
    """Not to know a network must not close it. Where nothing closes, strangers are shut out."""
    wait = "Docker does not answer: rules that open something wait for it"
    assert once(node).returncode == 0
    rules = node.inside(["iptables-save", "-t", "filter"]).stdout
    assert "-A FORWARD -m comment" in rules
    drop = next(line for line in rules.splitlines() if line.endswith("-j DROP"))
    again = once(node)
    assert (again.returncode, wait in again.stdout) == (0, True)
    node.inside(["iptables", "-I", "HOSTMESH-FORWARD", "-i", "eth7", "-j", "ACCEPT"])
    assert "firewall:" not in once(node, "--dry-run").stdout
    assert once(node).returncode == 0
    assert "-i eth7" in node.inside(["iptables-save"]).stdout, "an earlier run left it"
    node.inside(["iptables", "-F", "FORWARD"])
    would = once(node, "--dry-run").stdout
    assert "firewall: filter: add the jump to Hostmesh to FORWARD" in would
    assert "-A FORWARD" not in node.inside(["iptables-save", "-t", "filter"]).stdout
    assert once(node).returncode == 0
    assert drop in node.inside(["iptables-save"]).stdout


def test_the_uplink_is_the_one_by_which_etcd_is_reached(stage: Stage, node: Node) -> None:
    """As the agent chooses it, and not the default gateway's: or all routes would go."""
    node.host.ip("link add eth1 type veth peer name eth1-peer")
    node.host.ip("addr add 198.51.100.1/24 dev eth1")
    node.host.ip("link set eth1 up")
    node.host.ip("link set eth1-peer up")
    node.host.ip("route add default via 198.51.100.254")
    flannel(stage, "10.64.10.0/24", "192.0.2.10")
    done = once(node)
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown(node.host) == {AGGREGATE, PEER_ROUTE, "10.64.10.0/24 via 192.0.2.10 dev eth0"}


def test_promise_4_a_view_that_is_alarming_against_the_copy_is_not_acted_on(
    stage: Stage, node: Node
) -> None:
    for number in (20, 21, 22, 23):
        flannel(stage, f"10.64.{number}.0/24", f"192.0.2.{number}")
    node.start()
    eventually(lambda: len(shown(node.host)) == 6, 20)
    node.stop()
    for number in (20, 21, 22, 23):
        assert stage.etcdctl("del", key(f"10.64.{number}.0/24")).returncode == 0
    before = shown(node.host)
    for flags in ((), ("--dry-run",)):
        done = once(node, *flags)
        assert done.returncode == 24
        assert "gone from etcd at once" in done.stderr
    assert shown(node.host) == before


def test_a_host_that_holds_no_subnet_is_told_so(stage: Stage) -> None:
    done = once(stage.nodes[0])
    assert done.returncode == CannotTell.exit_code
    assert "holds no subnet" in done.stderr
    assert shown(stage.nodes[0].host) == set()


def test_a_running_agent_is_left_alone(node: Node) -> None:
    node.start()
    eventually(lambda: node.document("status")["subnet"], 20)
    before = shown(node.host)
    node.host.ip(f"route del {PEER} proto 140")
    assert once(node).returncode == 24
    assert once(node, "--dry-run").returncode in (0, 1)
    eventually(lambda: shown(node.host) == before)
