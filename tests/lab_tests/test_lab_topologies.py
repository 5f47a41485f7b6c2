"""Every underlay on real parts, proven by pings and captures. The hosts run no Docker: it is slow.

"Nothing came" is shown by something later that did come by the same way.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import hostmesh_lab
import pytest
from hostmesh_lab import cli, shell
from hostmesh_lab.errors import LabError
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.capture import (
    ECHO_REQUEST,
    ECHO_REQUEST6,
    UNREACHABLE,
    Capture,
    Packet,
)
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.machines.machine import Machine
from hostmesh_lab.underlay.topology import (
    DUAL_STACK,
    NAT,
    OUTSIDE,
    OUTSIDE6,
    TWO_LANS,
    TWO_NICS,
    V6,
    WIREGUARD,
    Link,
    Nic,
    Router,
    Topology,
    in_url,
)
from hostmesh_lab.wait import wait_until

pytestmark = pytest.mark.engine
BARE = HostOptions(agent=False, docker=False)
_SEND = """\
import socket, sys
family, address, port = sys.argv[1:]
socket.socket(int(family), socket.SOCK_DGRAM).sendto(b"x", (address, int(port)))"""


@contextmanager
def bare_lab(
    topology: Topology, hosts: int = 3, name: str = "labtopo", **differ: HostOptions
) -> Iterator[Lab]:
    """A lab of hosts without Docker and agents."""
    options = LabOptions(name, hosts, host=BARE, hosts_differ=differ, topology=topology)
    with Lab.up(options) as lab:
        yield lab


def send_udp(machine: Machine, address: str, *ports: int) -> None:
    """Send one datagram to each port."""
    family = "10" if ":" in address else "2"
    for port in ports:
        machine.run(["/usr/bin/python3", "-I", "-c", _SEND, family, address, str(port)])


def to_port(port: int) -> Callable[[Packet], bool]:
    return lambda packet: (
        packet.protocol == "udp" and packet.ports is not None and packet.ports[1] == port
    )


def a_request(packet: Packet) -> bool:
    return packet.icmp_type in (ECHO_REQUEST, ECHO_REQUEST6)


def ping(machine: Machine, target: str, *options: str) -> shell.Completed:
    return machine.run(["ping", "-n", "-c", "1", "-W", "2", *options, target], check=False)


def page(machine: Machine, url: str) -> str:
    return machine.run(["curl", "-sf", "--max-time", "3", url], check=False).stdout.strip()


@pytest.fixture(scope="module")
def two_lans() -> Iterator[Lab]:
    """Two LANs, the second with a smaller MTU, and on the first a host with a still smaller one."""
    small = replace(TWO_LANS, links=(TWO_LANS.first, replace(TWO_LANS.links[1], mtu=1400)))
    with bare_lab(small, name="labtwo", host3=replace(BARE, mtu=1300)) as lab:
        yield lab


class TestTwoLans:
    @pytest.fixture
    def lab(self, two_lans: Lab) -> Lab:
        return two_lans

    def test_a_router_joins_the_lans(self, lab: Lab) -> None:
        one, two, world = lab.hosts["host1"], lab.hosts["host2"], lab.machine("world")
        assert (one.address, two.address) == ("192.168.50.11", "192.168.51.12")
        with Capture(world, "eth0", "icmp") as near, Capture(two, "eth0", "icmp") as far:
            assert ping(one, two.address).returncode == 0
            sent = near.wait_for(a_request, 5, "the request")
            received = far.wait_for(a_request, 5, "the request")
        assert (sent.ttl, received.ttl) == (64, 63)
        assert received.src_mac == world.port("eth1").mac
        assert ping(two, lab.etcd["etcd1"].address).returncode == 0

    def test_the_router_knows_no_container_subnet(self, lab: Lab) -> None:
        one, world = lab.hosts["host1"], lab.machine("world")
        with Capture(one, "eth0", "icmp") as seen, Capture(world, "eth1", "icmp") as far:
            assert ping(one, "10.64.0.2").returncode != 0
            answer = seen.wait_for(lambda p: p.icmp_type == UNREACHABLE, 5, "the router's answer")
            assert ping(one, lab.hosts["host2"].address).returncode == 0
            far.wait_for(a_request, 5, "a request that is forwarded")
        assert str(answer.src) == world.address
        assert "10.64.0.2" not in {str(packet.dst) for packet in far.packets()}

    def test_a_link_drops_chosen_ports_of_udp_until_it_is_set_anew(self, lab: Lab) -> None:
        one, two, world = lab.hosts["host1"], lab.hosts["host2"], lab.machine("world")
        with Capture(world, "eth1", "udp") as routed, Capture(two, "eth0", "udp") as far:
            lab.drop_udp("lan2", [WIREGUARD, 4789])
            send_udp(one, two.address, WIREGUARD, 4789, 9)
            far.wait_for(to_port(9), 5, "the port that passes")
            routed.wait_for(to_port(WIREGUARD), 5, "the port that only lan2 drops")
            assert not far.packets(to_port(WIREGUARD)) + far.packets(to_port(4789))
            lab.drop_udp("lan2")
            send_udp(one, two.address, WIREGUARD)
            far.wait_for(to_port(WIREGUARD), 5, "the port that was dropped")
        with Capture(world, "eth0", "udp") as near:
            Lab.open(lab.name).drop_udp("lan", [WIREGUARD])
            send_udp(one, two.address, WIREGUARD, 9)
            near.wait_for(to_port(9), 5, "the port that passes")
            assert not near.packets(to_port(WIREGUARD))
        lab.drop_udp("lan")

    def test_a_link_of_a_smaller_mtu_is_announced_by_the_router(self, lab: Lab) -> None:
        one, two = lab.hosts["host1"], lab.hosts["host2"]
        assert two.port("eth0").mtu == 1400
        assert two.read_file("/sys/class/net/eth0/mtu") == "1400\n"
        assert "mtu = 1400" in ping(one, two.address, "-M", "do", "-s", "1400").stdout
        assert ping(one, two.address, "-M", "do", "-s", "1372").returncode == 0

    def test_a_card_of_a_smaller_mtu_swallows_larger_packets(self, lab: Lab) -> None:
        one, three = lab.hosts["host1"], lab.hosts["host3"]
        refused = ping(one, three.address, "-M", "do", "-s", "1400", "-W", "1")
        assert refused.returncode != 0
        assert "mtu" not in refused.stdout
        assert ping(one, three.address, "-M", "do", "-s", "1272").returncode == 0

    def test_the_underlay_is_built_again_after_a_power_cut(self, lab: Lab) -> None:
        lab.drop_udp("lan2", [WIREGUARD])
        one, two = lab.hosts["host1"], lab.hosts["host2"]
        two.kill()
        two.boot()
        with Capture(two, "eth0", "udp") as far:
            send_udp(one, two.address, WIREGUARD, 9)
            far.wait_for(to_port(9), 5, "the port that passes")
            assert not far.packets(to_port(WIREGUARD))
        lab.drop_udp("lan2")

    def test_the_command_line_drops_ports_and_cuts_cables(self, lab: Lab) -> None:
        one, two = lab.hosts["host1"], lab.hosts["host2"]
        name = ["--name", lab.name]
        assert cli.main(["drop-udp", *name, "lan2", str(WIREGUARD)]) == 0
        with Capture(two, "eth0", "udp") as far:
            send_udp(one, two.address, WIREGUARD, 9)
            far.wait_for(to_port(9), 5, "the port that passes")
            assert not far.packets(to_port(WIREGUARD))
        assert cli.main(["drop-udp", *name, "lan2"]) == 0
        assert cli.main(["cable", *name, "world", "down", "--device", "eth1"]) == 0
        assert lab.machine("world").read_file("/sys/class/net/eth1/carrier") == "0\n"
        assert cli.main(["cable", *name, "world", "up", "--device", "eth1"]) == 0
        assert ping(one, two.address).returncode == 0

    def test_a_link_that_is_not_there_is_refused(self, lab: Lab) -> None:
        with pytest.raises(LabError, match="no link 'lan3' in topology two-lans"):
            lab.drop_udp("lan3", [9])
        with pytest.raises(LabError, match="host1 has no eth1"):
            lab.hosts["host1"].cable("down", "eth1")


def test_behind_nat_hosts_reach_out_and_only_a_forwarded_port_reaches_in() -> None:
    with bare_lab(NAT) as lab:
        one, two, three = lab.hosts.values()
        outer = {name: lab.machine(name).address for name in ("nat2", "nat3")}
        assert (two.address, three.address) == ("192.168.1.12", "192.168.1.13")
        assert page(two, f"http://{OUTSIDE}/") == outer["nat2"]
        assert page(one, f"http://{OUTSIDE}/") == one.address
        assert ping(two, lab.etcd["etcd1"].address).returncode == 0
        one.run(["ip", "route", "add", "192.168.1.0/24", "via", outer["nat2"]])
        assert ping(one, two.address, "-W", "1").returncode != 0
        with Capture(two, "eth0", "udp") as closed, Capture(three, "eth0", "udp") as forwarded:
            for address in (two.address, *outer.values()):
                send_udp(one, address, WIREGUARD)
            packet = forwarded.wait_for(to_port(WIREGUARD), 5, "the forwarded port")
            # Packets that two sends pass its card later than all that it let in.
            send_udp(two, one.address, 9)
            closed.wait_for(to_port(9), 5, "what host2 sends")
            assert not closed.packets(to_port(WIREGUARD))
        assert (str(packet.src), str(packet.dst)) == (one.address, three.address)
        server = three.popen(["/usr/bin/python3", "-I", "-m", "http.server", "80"])
        try:
            wait_until(lambda: page(one, f"http://{outer['nat3']}:8080/"), 10, "the forwarded page")
        finally:
            shell.kill_session(server)


def test_a_second_card_is_on_a_switch_of_its_own() -> None:
    with bare_lab(TWO_NICS, hosts=2) as lab:
        one, two = lab.hosts.values()
        second = two.port("eth1").addresses[0].partition("/")[0]
        with Capture(two, "eth0", "icmp") as first, Capture(two, "eth1", "icmp") as other:
            assert ping(one, second).returncode == 0
            other.wait_for(a_request, 5, "a request by the second switch")
            assert ping(one, two.address).returncode == 0
            first.wait_for(a_request, 5, "a request by the first switch")
            assert {str(packet.dst) for packet in first.packets(a_request)} == {two.address}
            assert {str(packet.dst) for packet in other.packets(a_request)} == {second}
        two.cable("down", "eth1")
        assert two.read_file("/sys/class/net/eth1/carrier") == "0\n"
        assert two.read_file("/sys/class/net/eth0/carrier") == "1\n"
        assert ping(one, two.address).returncode == 0
        two.cable("up", "eth1")
        two.cable("silent")
        assert two.read_file("/sys/class/net/eth0/carrier") == "1\n"
        assert ping(one, two.address, "-W", "1").returncode != 0
        assert ping(one, second).returncode == 0


def test_a_link_with_ipv6_only_carries_hosts_etcd_and_the_world() -> None:
    with bare_lab(V6, hosts=2) as lab:
        one, two = lab.hosts.values()
        assert one.address == "fd00:50::b"
        assert one.addresses("eth0") == []
        with Capture(two, "eth0", "icmp6") as seen:
            assert ping(one, two.address).returncode == 0
            packet = seen.wait_for(a_request, 5, "the request")
        assert (str(packet.src), str(packet.dst), packet.ttl) == (one.address, two.address, 64)
        assert lab.endpoints() == ["http://[fd00:50::2]:2379"]
        assert lab.etcdctl("put", "/a", "1") == "OK\n"
        assert page(one, f"http://{in_url(OUTSIDE6)}/") == one.address


def test_a_dual_stack_link_carries_both_and_drops_ports_of_both() -> None:
    dropping = replace(DUAL_STACK, links=(replace(DUAL_STACK.first, drop_udp=(WIREGUARD,)),))
    with bare_lab(dropping, hosts=2) as lab:
        one, two = lab.hosts.values()
        v6 = two.port("eth0").addresses[1].partition("/")[0]
        assert ping(one, two.address).returncode == 0
        with Capture(two, "eth0", "udp") as seen:
            for address in (two.address, v6):
                send_udp(one, address, WIREGUARD, 9)
                seen.wait_for(lambda p, a=address: to_port(9)(p) and str(p.dst) == a, 5, "port 9")  # type: ignore[misc]
            assert not seen.packets(to_port(WIREGUARD))
        assert page(one, f"http://{OUTSIDE}/") == one.address
        assert page(one, f"http://{in_url(OUTSIDE6)}/") == one.port("eth0").addresses[1][:-3]


def test_any_underlay_can_be_described() -> None:
    """Three LANs in a row, by two routers with static routes; a host where a test wants it."""
    row = Topology(
        "row",
        "three LANs in a row",
        tuple(Link(f"lan{n}", f"192.168.7{n}.0/24") for n in (1, 2, 3)),
        (
            Router(
                "west",
                (Nic("lan1", 1), Nic("lan2", 1)),
                routes=(("192.168.73.0/24", "192.168.72.2"),),
            ),
            Router("east", (Nic("lan2", 2), Nic("lan3", 1))),
        ),
        (("lan1",), ("lan3",)),
    )
    with bare_lab(row, hosts=2) as lab:
        one, two = lab.hosts.values()
        with Capture(two, "eth0", "icmp") as seen:
            assert ping(one, two.address).returncode == 0
            assert seen.wait_for(a_request, 5, "the request").ttl == 62
        middle = lab.join(replace(BARE, links=("lan2",)))
        assert middle.address == "192.168.72.13"
        assert ping(one, middle.address).returncode == 0


def test_a_port_that_checks_sources_drops_what_is_not_its_machines(two_lans: Lab) -> None:
    one, world = two_lans.hosts["host1"], two_lans.machine("world")
    one.run(["ip", "address", "add", "10.64.0.2/32", "dev", "lo"])
    with Capture(world, "eth0", "icmp") as seen:
        with one.source_check():
            ping(one, world.address, "-W", "1", "-I", "10.64.0.2")
            assert ping(one, world.address).returncode == 0
            seen.wait_for(a_request, 5, "a request from its own address")
        assert {str(packet.src) for packet in seen.packets(a_request)} == {one.address}
        ping(one, world.address, "-W", "1", "-I", "10.64.0.2")
        seen.wait_for(lambda p: str(p.src) == "10.64.0.2", 5, "a request from another address")
    one.run(["ip", "address", "del", "10.64.0.2/32", "dev", "lo"])


def hostmesh_lab_program(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run the lab's program in a process of its own: it sets signal handlers."""
    folder = str(Path(hostmesh_lab.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "hostmesh_lab", *words],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        env={**os.environ, "PYTHONPATH": folder},
    )


def test_the_command_line_says_when_agents_are_not_waited_for() -> None:
    name = ["--name", "labtopo"]
    try:
        up = hostmesh_lab_program("up", *name, "--topology", "v6", "--hosts", "0")
        assert up.returncode == 0, up.stderr
        assert "not waiting for the agents on topology v6: host-gw needs IPv4" in up.stderr
        described = json.loads(hostmesh_lab_program("status", *name, "-o", "json").stdout)
        assert (described["topology"], described["links"][0]["v6"]) == ("v6", "fd00:50::/64")
    finally:
        down = hostmesh_lab_program("down", *name)
    assert down.returncode == 0


def test_the_demo_refuses_a_topology_and_names_its_backend() -> None:
    refused = hostmesh_lab_program("demo", "--name", "labtopo", "--topology", "two-lans")
    assert refused.returncode == 1
    assert (
        "the demo's backend is host-gw, which does not support topology two-lans" in refused.stderr
    )


@pytest.mark.full
def test_an_agent_on_a_link_with_ipv6_only_says_that_it_has_no_uplink() -> None:
    with Lab.up(LabOptions("labtopo", hosts=1, topology=V6)) as lab:
        lab.hosts["host1"].wait_condition("uplink-missing")


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("topology", "backend"),
    [
        ("two-nics", "host-gw"),
        ("dual-stack", "host-gw"),
        ("two-lans", "vxlan"),
        ("two-lans", "wireguard"),
        ("nat", "wireguard"),
    ],
)
def test_the_demo_runs_where_its_backend_carries_packets(topology: str, backend: str) -> None:
    words = ("--name", "labtopo", "--topology", topology, "--backend", backend)
    done = hostmesh_lab_program("demo", *words)
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    assert "every step was verified" in done.stdout
