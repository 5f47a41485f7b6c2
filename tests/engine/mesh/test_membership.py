"""Hosts that come, go, die and come back; an etcd that forgets. Promises by name."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.capture import Pinger
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

from agent.errors import Refused

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

LAB = LabOptions(name="mesh", hosts=3, host=HostOptions(reject_forward=True))
LAB_LAST = True  # hosts join, and etcd is replaced


AT_ONCE = "--stop-signal=KILL"  # what ignores SIGTERM costs dockerd's end 10 s
DAEMON_JSON = "/etc/docker/daemon.json"
_FULL_DISK = """
set -e
mv /etc/docker/daemon.json /run/daemon.json
mount -t tmpfs -o size=64k full /etc/docker
mv /run/daemon.json /etc/docker/daemon.json
cat /dev/zero > /etc/docker/filler || true
"""


def routes(host: Host) -> set[str]:
    return {each["dst"] for each in host.mesh_routes()}


def rules(host: Host) -> list[str]:
    return [line for table in ("raw", "filter", "nat") for line in host.iptables(table)]


@pytest.fixture(autouse=True)
def _ready_again(mesh: Lab) -> Iterator[None]:
    yield
    for host in mesh.hosts.values():
        if host.status().get("state") == "left":
            host.agentctl("join")
    mesh.wait_ready(60)


def test_leave_takes_a_host_out_everywhere_within_a_second_and_leaves_no_trace(mesh: Lab) -> None:
    host, other = mesh.hosts["host3"], mesh.hosts["host1"]
    subnet = host.lease() or ""
    assert subnet in routes(other)
    process = host.popen(["agentctl", "leave"])
    wait_until(
        lambda: json.loads(other.agentctl("leases", "-o", "json").stdout)["leases"].__len__() == 2,
        10,
        "the lease to be given back",
        every_s=0.02,
    )
    wait_until(lambda: subnet not in routes(other), 1, "the route to be gone elsewhere", 0.02)
    assert process.wait(120) == 0
    assert routes(host) == set()
    assert not [line for line in rules(host) if "hostmesh" in line.lower()]
    assert "hostmesh" not in host.run(["ipset", "list", "-n"]).stdout
    assert "bip" not in host.run(["cat", "/etc/docker/daemon.json"], check=False).stdout
    assert host.addresses("docker0") == ["172.17.0.1/16"]
    assert host.status()["state"] == "left"
    # The leave survives a restart and a power cut.
    host.restart_agent()
    wait_until(lambda: host.status().get("state") == "left", 15, "the agent to stay out")
    host.kill()
    host.boot()
    wait_until(lambda: host.status().get("state") == "left", 30, "the host to stay out")
    assert subnet not in routes(other)
    host.agentctl("join")
    wait_until(host.ready, 60, "the host to be back")
    assert host.lease() == subnet, "promise 2: its own subnet is still free"


def test_a_leave_under_containers_says_what_it_waits_for_and_force_ends_it(mesh: Lab) -> None:
    host = mesh.hosts["host3"]
    docker0 = host.addresses("docker0")
    host.start_container("web", options=["--restart=always", AT_ONCE])
    still = f"docker0 still uses {docker0[0]} because web is running."
    try:
        left = host.agentctl("leave", check=False, timeout_s=120)
        assert left.returncode == 1
        assert f"{still} When web may stop: agentctl leave --force" in left.stdout + left.stderr
        assert still in host.wait_condition("leave-not-finished", 5)["cause"]
        refused = host.agentctl("docker", "restart", "--now", check=False)
        assert "web" in refused.stderr
        assert "no subnet" not in refused.stderr
        assert host.addresses("docker0") == docker0
        host.agentctl("leave", "--force", timeout_s=120)
        assert host.addresses("docker0") == ["172.17.0.1/16"]
        assert "bip" not in host.run(["cat", DAEMON_JSON], check=False).stdout
        assert "leave-not-finished" not in host.conditions()
    finally:
        host.remove_container("web")


def test_promise_9_a_leave_is_finished_when_the_disk_and_the_containers_let_it(mesh: Lab) -> None:
    """No command is typed after the leave, and the agent is not restarted."""
    host = mesh.hosts["host3"]
    host.start_container("web", options=["--restart=always", AT_ONCE])
    host.run(["sh", "-c", _FULL_DISK])
    try:
        left = host.agentctl("leave", check=False, timeout_s=120)
        assert left.returncode == 1
        assert "No space left" in host.wait_condition("leave-not-finished", 5)["cause"]
        host.run(["rm", "/etc/docker/filler"])
        wait_until(
            lambda: "because web is running" in host.conditions()["leave-not-finished"]["cause"],
            30,
            "the file to be written",
        )
        host.remove_container("web")
        wait_until(lambda: "leave-not-finished" not in host.conditions(), 40, "the leave to end")
        assert host.addresses("docker0") == ["172.17.0.1/16"]
        assert "bip" not in host.run(["cat", DAEMON_JSON], check=False).stdout
    finally:
        host.docker("rm", "--force", "web", check=False)
        host.run(["umount", "/etc/docker"])


def test_cleanup_takes_ours_off_the_host_and_keeps_the_lease(mesh: Lab) -> None:
    host, other = mesh.hosts["host3"], mesh.hosts["host1"]
    subnet = host.lease()
    assert host.agentctl("cleanup", check=False).returncode == Refused.exit_code, "an agent runs"
    host.stop_agent()
    host.agentctl("cleanup", timeout_s=120)
    assert routes(host) == set()
    assert not [line for line in rules(host) if "hostmesh" in line.lower()]
    assert "hostmesh" not in host.run(["ipset", "list", "-n"]).stdout
    assert host.addresses("docker0") == ["172.17.0.1/16"]
    assert subnet in {each["subnet"] for each in other.leases()}
    host.start_agent()
    wait_until(host.ready, 60, "the host to be back")
    assert host.lease() == subnet


def test_promise_2_a_power_cut_keeps_the_subnet_and_no_other_route_moves(mesh: Lab) -> None:
    host, other, third = (mesh.hosts[f"host{n}"] for n in (3, 1, 2))
    subnet, before = host.lease(), routes(other)
    web = str(third.start_container("steady"))
    ping = Pinger(other, web, every_s=0.05)
    ping.wait_reply(10, "host2")
    host.kill()
    assert routes(other) == before
    host.boot()
    wait_until(host.ready, 60, "the host to be back")
    ping.stop()
    assert host.lease() == subnet
    assert ping.missed() == []
    third.docker("rm", "-f", "steady")


def test_a_host_that_boots_while_etcd_is_away_works_from_its_copy(mesh: Lab) -> None:
    host, other = mesh.hosts["host3"], mesh.hosts["host1"]
    subnet, neighbour = host.lease(), other.lease() or ""
    mesh.etcd["etcd1"].kill_etcd()
    try:
        host.kill()
        host.boot()
        wait_until(lambda: host.status().get("subnet") == subnet, 40, "the copy's subnet")
        wait_until(lambda: neighbour in routes(host), 30, "the copy's routes")
        assert host.status()["etcd"]["cached"] is True
    finally:
        mesh.etcd["etcd1"].start()
    wait_until(host.ready, 60, "truth to replace the copy")
    assert host.lease() == subnet


def test_a_fourth_host_joins_under_traffic_with_nobody_touching_the_others(mesh: Lab) -> None:
    first, second = mesh.hosts["host1"], mesh.hosts["host2"]
    web = str(second.start_container("busy"))
    ping = Pinger(first, web, every_s=0.05)
    ping.wait_reply(10, "host2")
    started = time.monotonic()
    newcomer = mesh.join()
    wait_until(newcomer.ready, 60, "the newcomer to be ready")
    address = str(newcomer.start_container("new"))
    for host in (first, second):
        wait_until(partial(host.ping, address), 10, f"{host.name} to reach it")
    story = [
        line
        for line in newcomer.agent_log().splitlines()
        if json.loads(line)["level"] in {"info", "warning", "error"}
    ]
    assert len(story) < 15, "a join reads as a story in under 15 lines:\n" + "\n".join(story)
    repairs = newcomer.status()["repairs"]
    assert repairs["count"] == 0, f"a fresh host repaired something: {repairs}"
    print(f"joined and reached after {time.monotonic() - started:.1f} s, its boot included")
    ping.stop()
    assert ping.missed() == []
    second.docker("rm", "-f", "busy")


def test_promise_4_etcd_replaced_by_an_empty_one_takes_no_route_and_no_subnet(mesh: Lab) -> None:
    """A fifth host joins at that very moment and must not be given a live host's subnet."""
    members = dict(mesh.hosts)
    defaults = mesh.host_defaults()
    hasty = {**defaults.settings, "lease": {"empty_cluster_grace_s": 15}}
    options = replace(defaults, settings=hasty)
    for host in members.values():
        host.write_settings(options, mesh.endpoints())
        host.agentctl("reload")
    held = {name: host.lease() for name, host in members.items()}
    before = {name: routes(host) for name, host in members.items()}
    first, second = mesh.hosts["host1"], mesh.hosts["host2"]
    web = str(second.start_container("lasting"))
    ping = Pinger(first, web, every_s=0.1)
    ping.wait_reply(10, "host2")
    mesh.etcd["etcd1"].replace_with_empty()
    newcomer = mesh.join(options)
    lost: set[str] = set()
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        for name, host in members.items():
            lost |= before[name] - routes(host)
        if newcomer.ready() and all(host.ready() for host in members.values()):
            break
        time.sleep(0.3)
    ping.stop()
    assert lost == set(), "a route was lost"
    assert ping.missed() == []
    assert {name: host.lease() for name, host in members.items()} == held
    fresh = newcomer.lease()
    assert fresh is not None
    assert fresh not in held.values()
