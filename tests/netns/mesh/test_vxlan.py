"""vxlan between real agents in namespaces: what is there, and what becomes of it."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostmesh_lab.errors import WaitTimeout

from tests.netns.mesh.stage import Node, Stage
from tests.netns.netlab import Pinger
from tests.waiting import eventually

pytestmark = pytest.mark.netns

LINK = "hm-vxlan"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage(2)
    try:
        stage.create_mesh("vxlan", VNI=7)
        strict = Path("/proc/sys/net/ipv4/conf/default/rp_filter")
        for node in stage.nodes:
            node.host.call(strict.write_text, "1")
            node.start()
        eventually(lambda: all(map(reaches_the_other(stage), stage.nodes)), 60)
        yield stage
    finally:
        stage.close()


@pytest.fixture(scope="module")
def whole(stage: Stage) -> dict[str, list[str]]:
    """The first node's objects while nothing is missing."""
    return objects_of(stage.nodes[0])


def first(node: Node) -> str:
    """The address of the node's device: the first of its subnet."""
    return node.subnet().partition("/")[0]


def reaches_the_other(stage: Stage) -> Any:  # noqa: ANN401 - a predicate on nodes
    def check(node: Node) -> bool:
        other = stage.nodes[1 - stage.nodes.index(node)]
        address = first(other)
        return bool(address) and node.inside(["ping", "-c1", "-W1", address]).returncode == 0

    return check


def link_of(node: Node) -> dict[str, Any]:
    found = node.inside(["ip", "-d", "-j", "link", "show", "dev", LINK])
    links: list[dict[str, Any]] = json.loads(found.stdout or "[]")
    return links[0] if links else {}


def vni_of(node: Node) -> int:
    link = link_of(node)
    return int(link["linkinfo"]["info_data"]["id"]) if link else 0


def conditions_of(node: Node) -> set[str]:
    return {each["name"] for each in node.document("status")["conditions"]}


def objects_of(node: Node) -> dict[str, list[str]]:
    """The device, and its addresses, neighbours, forwarding entries and routes."""
    commands = {
        "device": f"ip -d -o link show dev {LINK}",
        "sources": f"cat /proc/sys/net/ipv4/conf/{LINK}/rp_filter",
        "address": f"ip -o -4 addr show dev {LINK}",
        "neighbour": f"ip neigh show dev {LINK} nud permanent",
        "fdb": f"bridge fdb show dev {LINK}",
        "route": f"ip route show dev {LINK} proto 140",
    }
    shown = {name: node.inside(words.split()).stdout for name, words in commands.items()}
    return {name: sorted(map(without_index, text.splitlines())) for name, text in shown.items()}


def passes_of(node: Node) -> list[str]:
    """Return the agent's log of each pass that changed something."""
    return [each for each in node.log.read_text().splitlines() if "objects-changed" in each]


def became_again(node: Node, wanted: dict[str, list[str]]) -> None:
    """Wait until the node's objects are these; show the difference at the deadline."""
    with contextlib.suppress(WaitTimeout):
        eventually(lambda: objects_of(node) == wanted, 30)
    assert objects_of(node) == wanted


def without_index(line: str) -> str:
    return re.sub(r"^\d+: ", "", line)


def test_a_peer_is_reached_through_the_device(stage: Stage) -> None:
    one, two = stage.nodes
    mac = link_of(two)["address"]
    assert vni_of(one) == 7
    assert link_of(one)["mtu"] == 1450
    found = objects_of(one)
    assert found["sources"] == ["2"], "loose: a peer may send by one link and be sent to by another"
    assert " udpcsum " in found["device"][0]
    assert f"{first(one)}/32" in found["address"][0]
    assert found["neighbour"] == [f"{first(two)} lladdr {mac} PERMANENT "]
    assert any(mac in each and f"dst {two.address}" in each for each in found["fdb"])
    (route,) = found["route"]
    assert route.startswith(f"{two.subnet()} via {first(two)}")
    assert "onlink" in route
    assert f"src {first(one)}" in route


def test_promise_11_a_packet_in_the_tunnel_makes_no_ipv6_router(stage: Stage) -> None:
    setting = f"/proc/sys/net/ipv6/conf/{LINK}/accept_ra"
    assert stage.nodes[0].inside(["cat", setting]).stdout.strip() == "0"


def test_what_is_published_is_flannels_backend_data(stage: Stage) -> None:
    one = stage.nodes[0]
    key = one.subnet().replace("/", "-")
    record = json.loads(
        stage.etcdctl("get", f"/hostmesh/subnets/{key}", "--print-value-only").stdout
    )
    assert record["BackendType"] == "vxlan"
    assert record["BackendData"] == {"VNI": 7, "VtepMAC": link_of(one)["address"]}


@pytest.mark.parametrize(
    "disturbance",
    [
        "ip neigh flush dev {link} nud permanent",
        pytest.param("bridge fdb del {mac} dev {link} dst {address}", marks=pytest.mark.full),
        "bridge fdb replace {mac} dev {link} dst 192.0.2.77 self permanent",
        "ip addr flush dev {link}",
        "ip link set {link} address 02:00:00:00:00:99",
        pytest.param("ip link set {link} mtu 1300", marks=pytest.mark.full),
        pytest.param("ip link set {link} type vxlan local 192.0.2.99", marks=pytest.mark.full),
        pytest.param("ip route del {subnet}", marks=pytest.mark.full),
        pytest.param("ip link set {link} down", marks=pytest.mark.full),
        "ip link del {link}",
    ],
)
def test_promise_6_every_kind_of_object_is_repaired(
    stage: Stage, whole: dict[str, list[str]], disturbance: str
) -> None:
    one, two = stage.nodes
    words = disturbance.format(
        link=LINK, mac=link_of(two)["address"], address=two.address, subnet=two.subnet()
    )
    done = one.inside(words.split())
    assert done.returncode == 0, done.stderr
    became_again(one, whole)
    assert reaches_the_other(stage)(one)


def test_promise_6_a_device_is_rebuilt_in_one_pass(
    stage: Stage, whole: dict[str, list[str]]
) -> None:
    one = stage.nodes[0]
    before = passes_of(one)
    assert one.inside(["ip", "link", "del", LINK]).returncode == 0
    became_again(one, whole)
    (line,) = passes_of(one)[len(before) :]
    assert json.loads(line)["changed"] == 5


def test_udev_and_networkmanager_leave_the_mac_alone(stage: Stage) -> None:
    """Both set one only where the kernel says that it made the address up (systemd.link(5))."""
    look = f"mount -t sysfs this-namespace /sys && cat /sys/class/net/{LINK}/addr_assign_type"
    kind = stage.nodes[0].inside(["sh", "-c", look]).stdout
    net_addr_set = "3"
    assert kind.strip() == net_addr_set


def test_promises_3_and_6_a_killed_agent_loses_nothing(stage: Stage) -> None:
    one, two = stage.nodes
    before = objects_of(one)
    pinger = Pinger(two.host, first(one))
    one.stop(signal.SIGKILL)
    assert objects_of(one) == before
    one.start()
    eventually(lambda: one.document("status")["routes"]["installed"] == 2, 30)
    pings = pinger.stop()
    assert objects_of(one) == before
    assert pings.sent > 100
    assert not pings.lost


def test_promise_2_a_host_that_lost_its_copy_is_not_in_its_own_way(stage: Stage) -> None:
    """Its device bears an address of the mesh."""
    one = stage.nodes[0]
    subnet, before = one.subnet(), objects_of(one)
    one.stop(signal.SIGKILL)
    (one.folder / "state/copy.json").unlink()
    one.start()
    eventually(lambda: one.subnet() == subnet, 30)
    eventually(lambda: one.document("status")["routes"]["installed"] == 2, 30)
    assert objects_of(one) == before
    assert "cidr-overlaps-host" not in conditions_of(one)


def test_data_that_changes_reach_the_peers(stage: Stage) -> None:
    """Another VNI in the config: each host makes its device anew and publishes what peers check."""
    stage.create_mesh("vxlan", VNI=8)
    eventually(lambda: {vni_of(node) for node in stage.nodes} == {8}, 30)
    eventually(lambda: all(map(reaches_the_other(stage), stage.nodes)), 30)


def test_promise_8_a_peer_whose_data_is_unusable_costs_that_peer_only(stage: Stage) -> None:
    one = stage.nodes[0]
    forged = {
        "PublicIP": "192.0.2.66",
        "BackendType": "vxlan",
        "BackendData": {"VNI": 8, "VtepMAC": "00:00:00:00:00:00"},
    }
    key = "/hostmesh/subnets/10.99.0.0-24"
    assert stage.etcdctl("put", key, json.dumps(forged)).returncode == 0
    eventually(lambda: "peer-data-unusable" in conditions_of(one), 30)
    assert reaches_the_other(stage)(one)
    stage.etcdctl("del", key)
    eventually(lambda: "peer-data-unusable" not in conditions_of(one), 30)


def test_another_backend_takes_the_device_away_and_this_one_brings_it_back(stage: Stage) -> None:
    one, two = stage.nodes
    stage.create_mesh("host-gw", VNI=8)
    eventually(lambda: not any(map(link_of, stage.nodes)), 30)
    route = f"{two.subnet()} via {two.address} dev eth0"
    eventually(lambda: route in one.inside(["ip", "route"]).stdout, 30)
    stage.create_mesh("vxlan", VNI=8)
    eventually(lambda: all(map(reaches_the_other(stage), stage.nodes)), 30)


def test_objects_go_with_the_lease_and_the_device_with_the_last_word(stage: Stage) -> None:
    one, two = stage.nodes
    assert two.ctl("leave").returncode == 0
    eventually(lambda: not objects_of(one)["route"], 30)
    found = objects_of(one)
    assert (found["neighbour"], len(found["address"])) == ([], 1)
    assert not any(two.address in each for each in found["fdb"])
    assert not link_of(two)
