"""``agentctl check`` among real agents: each fault is named, with what to type (promise 9)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from tests.netns.mesh.stage import all_reached, container_of
from tests.netns.mesh.twolans import TwoLans
from tests.unit.ctl.schemas import check as check_schema
from tests.waiting import eventually

pytestmark = pytest.mark.netns

OTHER_USER = 65534
MANY = 1000


@pytest.fixture(scope="module")
def stage() -> Iterator[TwoLans]:
    """Three hosts by VXLAN, the last one beyond a router; each has a docker0 and no Docker."""
    made = TwoLans(2, beyond=1, extra="[check]\nevery_s = 0\n")
    try:
        made.create_mesh("vxlan")
        for node in made.nodes:
            node.start()
        for node in made.nodes:
            eventually(node.subnet, 30)
            container_of(node)
        assert made.nodes[0].ctl("config", "set", "--level", "2").returncode == 0
        eventually(lambda: all_reached(made), 60)
        yield made
    finally:
        made.close()


def checked(stage: TwoLans) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Return the first host's exit status, its document, and the tests of the last host."""
    done = stage.nodes[0].ctl("check", "-o", "json")
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    check_schema("check", document)
    far = next(each for each in document["peers"] if each["host_name"] == stage.nodes[-1].name)
    return done.returncode, document, {each["test"]: each for each in far["tests"]}


def test_a_mesh_without_containers_has_no_fault_and_says_what_was_not_tested(
    stage: TwoLans,
) -> None:
    status, document, far = checked(stage)
    assert (status, document["state"], document["counts"]["untested"]) == (0, "untested", 2)
    assert document["untested"].startswith("Docker does not answer here")
    found = {name: each["result"] for name, each in far.items()}
    assert found == {
        "heartbeat": "ok", "host": "ok", "mtu": "ok",
        "path": "untested", "names": "untested", "networks": "untested",
    }  # fmt: skip
    assert far["mtu"]["text"].startswith("1450 bytes pass whole")
    assert not any(each["hint"] for each in far.values())
    assert document["took_s"] < 5


def test_a_blackholed_tunnel_port_is_named(stage: TwoLans) -> None:
    with stage.dropping("-p", "udp", "--dport", "8472"):
        status, document, far = checked(stage)
    assert (status, document["state"]) == (1, "failed")
    assert (far["host"]["result"], far["path"]["result"]) == ("ok", "failed")
    assert "through the tunnel hm-vxlan, UDP port 8472; the host" in far["path"]["text"]
    assert "agentctl ping node3" in far["path"]["hint"]
    assert document["counts"]["failed"] == 1, "the other host is on this LAN"


def test_a_link_that_loses_large_packets_is_named_with_the_size_that_passes(
    stage: TwoLans,
) -> None:
    with stage.dropping("-m", "length", "--length", "1401:65535"):
        status, _, far = checked(stage)
        shown = stage.nodes[0].ctl("check").stdout
    assert (status, far["path"]["result"], far["mtu"]["result"]) == (1, "untested", "failed")
    assert "packets of 1450 bytes" in far["mtu"]["text"]
    assert "1350 bytes pass" in far["mtu"]["text"]
    assert "ip link set dev eth0 mtu 1400" in far["mtu"]["hint"]
    assert "ip link set dev eth0 mtu 1400" in " ".join(shown.split())
    assert shown.splitlines()[2].split()[:3] == ["node3", stage.nodes[2].subnet(), "FAILED"]


def test_a_host_that_answers_nothing_is_down(stage: TwoLans) -> None:
    with stage.dropping():
        status, document, far = checked(stage)
    assert (status, document["counts"]["down"], far["host"]["result"]) == (1, 1, "failed")
    assert "its heartbeat was seen" in far["host"]["text"]
    assert {far[name]["result"] for name in ("path", "mtu", "names", "networks")} == {"untested"}


def test_the_last_check_is_kept_and_published_and_no_record_makes_a_host_do_anything(
    stage: TwoLans,
) -> None:
    one, two = stage.nodes[:2]
    stage.etcdctl("del", "--prefix", "/hostmesh/checks/")
    _, document, _ = checked(stage)
    last = json.loads(one.ctl("check", "--last", "-o", "json").stdout)
    assert last["peers"] == document["peers"]
    assert two.ctl("check", "--last").returncode == 3, "it never checked"
    eventually(lambda: every(two, one)["state"] == "untested", 20)
    found = every(two, one)
    assert {each["host_name"] for each in found["worst"]} == {"node2", "node3"}
    (key,) = stage.etcdctl("get", "--prefix", "--keys-only", "/hostmesh/checks/").stdout.split()
    record = stage.etcdctl("get", "--print-value-only", key).stdout
    assert len(record) < 4096

    assert stage.etcdctl("put", key, '{"Time": 1, "Worst": "\x1b[2J"}').returncode == 0
    assert every(two, one)["state"] == "none", "a record that cannot be read counts as none"
    assert every(two, two)["reason"] == "it has not published one"

    assert one.ctl("check", user=OTHER_USER).returncode == 11
    curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", '{"Time": -1}']
    url = ["--unix-socket", str(one.socket), "http://localhost/v1/check"]
    status = one.inside([*curl, *url]).stdout
    assert status == "400"


def every(asker: Any, host: Any) -> dict[str, Any]:  # noqa: ANN401 - nodes of a stage
    """Return what ``asker`` shows of the last check of ``host``."""
    document: dict[str, Any] = json.loads(asker.ctl("check", "--all", "-o", "json").stdout)
    check_schema("checks", document)
    found: dict[str, Any] = next(e for e in document["hosts"] if e["host_name"] == host.name)
    return found


def test_an_agent_starts_checks_of_its_own_and_publishes_them(stage: TwoLans) -> None:
    """By a command in place of the unit; once a second in place of every 15 minutes."""
    two = stage.nodes[1]
    command = json.dumps(two.ctl_command("check"))
    text = two.settings.read_text()
    two.settings.write_text(text.replace("every_s = 0", f"every_s = 1\nstart_command = {command}"))
    two.stop()
    two.start()
    eventually(lambda: every(stage.nodes[0], two)["state"] == "untested", 60)
    two.settings.write_text(text)
    assert two.ctl("reload").returncode == 0


def test_promise_10_a_thousand_peers_half_of_them_dead_take_ten_seconds(stage: TwoLans) -> None:
    """The router answers for 500 hosts of flannel; none of the 1,000 has a tunnel."""
    one = stage.nodes[0]
    one.host.ip("route add 198.18.0.0/16 via 192.0.2.254")
    stage.router.ip("route add local 198.18.0.0/23 dev lo")
    stage.router.ip("route add blackhole 198.18.2.0/23")
    nodes = [*list(IPv4Network("198.18.0.0/23"))[:500], *list(IPv4Network("198.18.2.0/23"))[:500]]
    lines = [lease_of_flannel(number, node) for number, node in enumerate(nodes)]
    for start in range(0, MANY, 100):
        text = "\n" + "\n".join(lines[start : start + 100]) + "\n\n\n"
        assert stage.run_etcdctl(["txn"], text).returncode == 0
    try:
        eventually(lambda: len(one.document("status")["peers"]) == MANY + 2, 60)
        _, document, _ = checked(stage)
        assert len(document["peers"]) == MANY + 2
        assert document["counts"]["down"] == 500
        assert document["took_s"] < 11
        assert len(json.dumps(document)) < 4_000_000
        shown = one.ctl("check", "--last").stdout.splitlines()
        assert len(shown) < MANY + 100, "the reasons are bounded"
    finally:
        for number in range(100, 104):
            stage.etcdctl("del", "--prefix", f"/hostmesh/subnets/10.{number}.")


def lease_of_flannel(number: int, node: IPv4Address) -> str:
    """Return a line for etcdctl that writes a lease."""
    mac = f"02:00:00:00:{number // 256:02x}:{number % 256:02x}"
    lease = {
        "PublicIP": str(node),
        "BackendType": "vxlan",
        "BackendData": {"VNI": 1, "VtepMAC": mac},
    }
    key = f"/hostmesh/subnets/10.{100 + number // 250}.{number % 250}.0-24"
    return f"put {key} {json.dumps(json.dumps(lease))}"
