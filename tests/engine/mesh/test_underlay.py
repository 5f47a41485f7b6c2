"""The underlay moves: addresses change, links flap, hosts die. Promises by name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.capture import Pinger
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

HEARTBEAT_S = 6
LAB = LabOptions(
    name="beating",
    hosts=2,
    host=HostOptions(settings={"lease": {"heartbeat_ttl_s": HEARTBEAT_S}}),
)


@pytest.fixture(autouse=True)
def _ready_again(mesh: Lab) -> Iterator[None]:
    yield
    mesh.wait_ready(60)


def route(host: Host, subnet: str) -> dict[str, Any]:
    return next((each for each in host.mesh_routes() if each["dst"] == subnet), {})


def renumber(host: Host, old: str, new: str) -> None:
    """Give eth0 another address, as a DHCP server would: the routes by it are made again."""
    steps = (
        f"ip address del {old}/24 dev eth0",
        f"ip address add {new}/24 brd + dev eth0",
        "ip route replace default via 192.168.50.1",
    )
    host.run(["sh", "-ec", "; ".join(steps)])


def test_promise_2_a_new_node_address_keeps_the_subnet_and_peers_follow(mesh: Lab) -> None:
    host, peer = mesh.hosts["host1"], mesh.hosts["host2"]
    subnet = host.lease() or ""
    web = str(host.start_container("moving"))
    try:
        started = time.monotonic()
        renumber(host, str(host.address), "192.168.50.61")
        wait_until(
            lambda: route(peer, subnet).get("gateway") == "192.168.50.61",
            3,
            "the peer to follow",
            every_s=0.05,
        )
        print(f"the peer followed {time.monotonic() - started:.2f} s after the change")
        wait_until(lambda: peer.ping(web), 10, "the container at the new address")
        assert host.status()["subnet"] == subnet
        assert host.status()["host"]["node_address"] == "192.168.50.61"
    finally:
        renumber(host, "192.168.50.61", str(host.address))
    wait_until(lambda: route(peer, subnet).get("gateway") == str(host.address), 10, "the old one")
    wait_until(lambda: peer.ping(web), 10, "the container at its old place")
    host.docker("rm", "-f", "moving")


def test_promise_6_a_link_that_flaps_or_is_renamed_heals(mesh: Lab) -> None:
    host, peer = mesh.hosts["host1"], mesh.hosts["host2"]
    subnet = peer.lease() or ""
    web = str(peer.start_container("steady"))
    host.run(["sh", "-c", "ip link set eth0 down; ip link set eth0 up"])
    host.run(["ip", "route", "replace", "default", "via", "192.168.50.1"])
    wait_until(lambda: route(host, subnet), 5, "the route after a flap", every_s=0.02)
    wait_until(lambda: host.ping(web), 10, "the container after a flap")
    rename = "ip link set eth0 down; ip link set {} name {}; ip link set {} up"
    host.run(["sh", "-c", rename.format("eth0", "wan0", "wan0")])
    try:
        host.run(["ip", "route", "replace", "default", "via", "192.168.50.1"])
        wait_until(
            lambda: host.status().get("host", {}).get("uplink") == "wan0", 10, "the new name"
        )
        wait_until(
            lambda: any("-i wan0" in line for line in host.iptables("filter")), 10, "new rules"
        )
        wait_until(lambda: host.ping(web), 10, "the container after a rename")
    finally:
        host.run(
            ["sh", "-c", rename.format("wan0", "eth0", "eth0").replace("eth0 down", "wan0 down")]
        )
        host.run(["ip", "route", "replace", "default", "via", "192.168.50.1"])
    wait_until(lambda: host.status().get("host", {}).get("uplink") == "eth0", 10, "the old name")
    peer.docker("rm", "-f", "steady")


def test_promise_3_an_agent_that_died_costs_no_traffic_however_long(mesh: Lab) -> None:
    host, peer = mesh.hosts["host1"], mesh.hosts["host2"]
    web = str(peer.start_container("orphan"))
    ping = Pinger(host, web)
    ping.wait_reply(10, "host2")
    peer.kill_agent(stay_down=True)
    wait_until(
        lambda: any(not each["alive"] for each in host.status()["peers"]),
        3 * HEARTBEAT_S,
        "the heartbeat to lapse",
    )
    until_s = time.monotonic() + 6  # longer than it takes to call a host dead
    wait_until(lambda: time.monotonic() > until_s, 10, "the probes to be answered")
    ping.stop()
    assert ping.missed() == []
    assert route(host, peer.lease() or "").get("gateway") == str(peer.address)
    assert "peer-dead" not in host.conditions()
    peer.start_agent()
    peer.docker("rm", "-f", "orphan")


def test_promise_3_a_dead_host_fails_at_once_and_heals_by_itself(mesh: Lab) -> None:
    host, peer = mesh.hosts["host1"], mesh.hosts["host2"]
    subnet = peer.lease() or ""
    peer.kill()
    found = host.wait_condition("peer-dead", 60)
    assert subnet in found["subject"]
    assert route(host, subnet).get("type") == "unreachable"
    started = time.monotonic()
    assert not host.fetch(f"http://{subnet.split('/')[0][:-3]}0.2/", timeout_s=10)
    assert time.monotonic() - started < 5, "it hung instead of failing"
    peer.boot()
    wait_until(lambda: route(host, subnet).get("gateway") == str(peer.address), 60, "healing")
    wait_until(lambda: "peer-dead" not in host.conditions(), 20, "the condition to clear")
