"""The lab on real parts: what it makes, what it survives, what it leaves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hostmesh_lab
import pytest
from hostmesh_lab import cgroups, machine_state, paths, processes, state
from hostmesh_lab.errors import LabError
from hostmesh_lab.filesystems import lab_image
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.capture import ECHO_REPLY, ECHO_REQUEST, Capture, Pinger
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.underlay.topology import ONE_LAN, OUTSIDE
from hostmesh_lab.wait import wait_until

pytestmark = pytest.mark.engine
NO_AGENT = HostOptions(agent=False)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(hostmesh_lab.__file__).parents[1])}


def connect_by_hand(host: Host, peer: Host, own: str, other: str) -> None:
    """Type in what an agent does: a route to the peer and three rules."""
    host.run(["ip", "route", "replace", other, "via", peer.address, "proto", "140"])
    for rule in (
        f"-t raw -I PREROUTING -i eth0 -s 10.64.0.0/10 -d {own} -j ACCEPT",
        f"-t filter -I DOCKER-USER -i eth0 -s 10.64.0.0/10 -d {own} -j ACCEPT",
        f"-t filter -I DOCKER-USER -o eth0 -s {own} -d 10.64.0.0/10 -j ACCEPT",
        f"-t nat -I POSTROUTING -s {own} -d 10.64.0.0/10 -j ACCEPT",
    ):
        host.run(["iptables", *rule.split()])


def test_containers_talk_over_hand_made_routes_and_a_packets_walk_is_seen(lab: Lab) -> None:
    one, two = lab.hosts["host1"], lab.hosts["host2"]
    connect_by_hand(one, two, "10.64.0.0/16", "10.65.0.0/16")
    connect_by_hand(two, one, "10.65.0.0/16", "10.64.0.0/16")
    source, target = one.start_container("web"), two.start_container("web")
    with Capture(one, "eth0", "icmp") as uplink, Capture(two, "docker0", "icmp") as bridge:
        assert one.ping(target, container="web")
        request = uplink.wait_for(lambda p: p.icmp_type == ECHO_REQUEST, 5, "the request")
        arrived = bridge.wait_for(lambda p: p.icmp_type == ECHO_REQUEST, 5, "the request")
        reply = uplink.wait_for(lambda p: p.icmp_type == ECHO_REPLY, 5, "the reply")
    assert (str(request.src), request.ttl, arrived.ttl, reply.ttl) == (source, 63, 62, 63)
    assert request.dst_mac == ONE_LAN.first.mac(12) != arrived.dst_mac
    assert one.fetch(f"http://{target}/", container="web") == lab_image.PAGE
    assert (one.fetch(f"http://{target}/cgi-bin/whoami", container="web") or "").strip() == source


def test_traffic_to_the_world_has_the_hosts_address(lab: Lab) -> None:
    host = lab.hosts["host1"]
    host.start_container("asker")
    assert host.fetch(f"http://{OUTSIDE}/", container="asker") == f"{host.address}\n"


def test_a_container_resolves_names_by_the_labs_dns_server(lab: Lab) -> None:
    host = lab.hosts["host1"]
    host.start_container("resolver")
    assert host.fetch("http://world.example/", container="resolver") == f"{host.address}\n"
    asked = lab.dns.queries("world.example")[-1]
    assert (asked.client, asked.protocol, asked.rcode) == (host.address, "udp", "NOERROR")
    lab.dns.fail("NXDOMAIN", "world.example")
    assert host.fetch("http://world.example/", container="resolver") is None
    lab.dns.reset()
    assert host.fetch("http://world.example/", container="resolver") == f"{host.address}\n"
    host.remove_container("resolver")


def test_the_operators_reject_stands_at_the_end_of_forward(lab: Lab) -> None:
    rules = [line for line in lab.hosts["host1"].iptables() if line.startswith("-A FORWARD")]
    assert rules[-1].endswith("-j REJECT --reject-with icmp-host-prohibited")
    assert len(rules) > 3


def test_a_power_cut_keeps_the_disk_and_forgets_the_kernel(lab: Lab) -> None:
    host = lab.hosts["host2"]
    host.run(["ip", "route", "replace", "198.51.100.0/24", "via", "192.168.50.1"])
    host.write_file("/root/kept", "kept")
    identity = [
        host.read_file(f"/{name}") for name in ("etc/machine-id", "proc/sys/kernel/random/boot_id")
    ]
    first = host.pid()
    host.kill()
    assert processes.start_time(first) is None
    with pytest.raises(LabError, match="host2 is off"):
        host.run(["true"])
    host.boot()
    assert host.read_file("/root/kept") == "kept"
    assert host.read_file("/etc/machine-id") == identity[0]
    assert host.read_file("/proc/sys/kernel/random/boot_id") != identity[1]
    assert not [route for route in host.routes() if route["dst"] == "198.51.100.0/24"]
    assert lab.hosts["host1"].ping(host.address)


def test_a_docker_that_cannot_start_is_reported_with_its_last_words(lab: Lab) -> None:
    host = lab.hosts["host2"]
    good = host.read_file("/etc/docker/daemon.json")
    host.write_file("/etc/docker/daemon.json", '{"no-such-key": 1}')
    done = host.run(["lab-service", "restart", "docker"], check=False)
    assert done.returncode == 1
    assert "no-such-key" in done.stderr
    host.write_file("/etc/docker/daemon.json", good)
    host.run(["lab-service", "restart", "docker"])
    assert host.run(["lab-service", "status", "docker"]).stdout == "running\n"
    assert host.docker("ps").returncode == 0


def test_a_dockerd_that_is_killed_comes_back(lab: Lab) -> None:
    host = lab.hosts["host2"]
    before = host.services()["docker"]["pid"]
    host.service("signal", "docker", number=int(signal.SIGKILL))
    wait_until(lambda: host.services()["docker"]["pid"] not in (None, before), 10, "a new dockerd")
    wait_until(lambda: host.docker("ps", check=False).returncode == 0, 20, "its API")


def test_programs_end_with_their_timeout_inside_the_host_too(lab: Lab) -> None:
    host = lab.hosts["host1"]
    with pytest.raises(LabError, match=r"not done after 0\.5 s"):
        host.run(["sleep", "4711"], timeout_s=0.5)
    assert "sleep 4711" not in host.run(["ps", "ax"]).stdout


@pytest.mark.parametrize("way", ["down", "silent"])
def test_a_cable_can_be_cut_and_a_running_ping_tells_what_was_missed(lab: Lab, way: str) -> None:
    one, two = lab.hosts["host1"], lab.hosts["host2"]
    pinger = Pinger(one, two.address, every_s=0.05)
    try:
        pinger.wait_reply(5, "host2")
        two.cable(way)
        carrier = two.read_file("/sys/class/net/eth0/carrier").strip()
        wait_until(lambda: time.monotonic() - pinger.replies[-1][0] > 0.4, 10, "silence")
        two.cable("up")
        seen = len(pinger.replies)
        wait_until(lambda: len(pinger.replies) > seen + 2, 10, "replies again")
    finally:
        pinger.stop()
    assert carrier == ("0" if way == "down" else "1")
    assert pinger.missed()


def test_etcd_can_be_paused_killed_and_replaced(lab: Lab) -> None:
    member = lab.etcd["etcd1"]
    lab.etcdctl("put", "/a", "1")
    assert member.keys("/") == {"/a": "1"}
    member.pause()
    assert member.etcdctl("get", "/a", "--command-timeout=1s", check=False).returncode != 0
    member.resume()
    member.kill_etcd()
    member.start()
    assert member.keys("/") == {"/a": "1"}
    first = member.etcdctl("endpoint", "status", "-w", "fields").stdout
    member.replace_with_empty()
    assert member.keys("/") == {}
    second = member.etcdctl("endpoint", "status", "-w", "fields").stdout
    ids = [
        next(line for line in text.splitlines() if "ClusterID" in line) for text in (first, second)
    ]
    assert ids[0] != ids[1]


def test_a_host_joins_a_lab_that_runs(lab: Lab) -> None:
    host = Lab.open(lab.name).join(NO_AGENT)
    try:
        assert host.name == "host3"
        assert lab.hosts["host1"].ping(host.address)
    finally:
        host.destroy()


def left_behind(name: str) -> list[Path]:
    places = [paths.state_root() / name, paths.disk_root() / name, cgroups.lab_group(name)]
    return [place for place in places if place.exists()]


def test_three_etcd_members_outlive_the_loss_of_one() -> None:
    options = LabOptions(name="labtest3", hosts=0, etcd_members=3, host=NO_AGENT)
    with Lab.up(options) as lab:
        lab.etcdctl("put", "/a", "1")
        lab.etcd["etcd1"].kill()
        assert lab.etcdctl("get", "/a", "--print-value-only") == "1\n"


@pytest.mark.parametrize("victim", ["holder", "host1", "none"])
def test_a_lab_that_was_killed_is_cleared_and_the_machine_is_as_before(victim: str) -> None:
    name = "labkill"
    before = machine_state.look(lab=name)
    # In a process of its own, as from the command line: the lab must not depend on it.
    argv = [
        sys.executable,
        "-m",
        "hostmesh_lab",
        "up",
        "--name",
        name,
        "--hosts",
        "1",
        "--no-agent",
    ]
    subprocess.run(argv, check=True, timeout=120, env=ENVIRONMENT)
    lab = Lab.open(name)
    lab.hosts["host1"].start_container("web")
    pids = [machine.pid() for machine in (lab.hosts["host1"], lab.etcd["etcd1"])]
    if victim == "holder":
        lab.record.holder.send(signal.SIGKILL)
        wait_until(
            lambda: all(processes.start_time(pid) is None for pid in pids), 10, "the lab's end"
        )
        assert lab.record.holder.wait_gone(10)  # its machines end before it does
        with pytest.raises(LabError, match="was killed"):
            Lab.open(name)
    if victim == "host1":
        os.kill(pids[0], signal.SIGKILL)
        wait_until(lambda: processes.start_time(pids[0]) is None, 10, "the host's end")
        assert Lab.open(name).etcdctl("put", "/a", "1") == "OK\n"
    with state.locked(name):
        state.clear(name)
    assert left_behind(name) == []
    assert all(processes.start_time(pid) is None for pid in pids)
    assert machine_state.lasting_differences(before, lab=name) == []


def test_a_lab_whose_owner_died_is_cleared_by_the_next() -> None:
    script = (
        "from hostmesh_lab.lab import *; import os, signal;"
        "Lab.up(LabOptions(name='orphan', hosts=0, host=HostOptions(agent=False)));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        timeout=60,
        env=ENVIRONMENT,
    )
    record = state.load("orphan")
    assert record is not None
    assert record.alive()
    assert "orphan" in state.clear_dead_labs()
    assert left_behind("orphan") == []


@pytest.mark.parametrize("suite", [pytest.param("bookworm", marks=pytest.mark.full), "forky"])
def test_every_suites_docker_runs_containers(suite: str) -> None:
    with Lab.up(LabOptions(name=f"lab-{suite}", hosts=1, suite=suite, host=NO_AGENT)) as lab:
        host = lab.hosts["host1"]
        address = host.start_container("web")
        assert host.fetch(f"http://{address}/") == lab_image.PAGE
        group = host.run(["cat", "/proc/1/cgroup"]).stdout.strip()
        assert group.endswith("0::/init")


def test_legacy_iptables_can_be_chosen() -> None:
    options = HostOptions(agent=False, iptables="legacy", mtu=1400)
    with Lab.up(LabOptions(name="lablegacy", hosts=1, host=options)) as lab:
        host = lab.hosts["host1"]
        assert any("DOCKER-USER" in line for line in host.iptables(variant="legacy"))
        assert not any("DOCKER-USER" in line for line in host.iptables(variant="nft"))
        assert "mtu 1400" in host.run(["ip", "link", "show", "eth0"]).stdout


def test_a_demo_does_not_touch_a_lab_of_its_name_that_runs() -> None:
    with Lab.up(LabOptions(name="labdemo", hosts=0, host=NO_AGENT)) as lab:
        argv = [sys.executable, "-m", "hostmesh_lab", "demo", "--name", lab.name]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT
        )
        assert done.returncode == 1
        assert "is up already" in done.stderr
        assert lab.etcdctl("put", "/a", "1") == "OK\n"
