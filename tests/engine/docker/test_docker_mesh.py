"""Docker and the mesh: networks of three hosts, one restart at a time, an engine that dies.

host1 and host2 attach Docker by daemon.json; host3's Docker may not be touched: it attaches by a
network. host2's link carries less than the others'.
"""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from typing import Any

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.capture import ECHO_REQUEST, Capture
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

from tests.engine import impostor

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

TEXT = {"log-level": "info"}
LAB = LabOptions(
    name="dockermesh",
    hosts=3,
    host=HostOptions(reject_forward=True),
    hosts_differ={
        "host2": HostOptions(reject_forward=True, mtu=1400),
        "host3": HostOptions(
            reject_forward=True, daemon_json=TEXT, settings={"docker": {"attach": "network"}}
        ),
    },
)


def hosts(mesh: Lab) -> list[Host]:
    return [mesh.hosts[f"host{n}"] for n in (1, 2, 3)]


def entries(host: Host, event: str) -> list[dict[str, Any]]:
    """Return the lines of that event in the agent's log."""
    lines = (line for line in host.agent_log().splitlines() if line.startswith("{"))
    found = (json.loads(line) for line in lines)
    return [each for each in found if each.get("event") == event]


@contextmanager
def composed(host: Host) -> Iterator[str]:
    """Make what `docker compose up` makes: the project's network, a service with its name."""
    host.docker("network", "create", "--label", "com.docker.compose.project=shop", "shop_default")
    try:
        yield host.start_container(
            "shop-web-1", network="shop_default", publish=["8080:80"], options=["--hostname=web"]
        )
    finally:
        host.docker("rm", "-f", "shop-web-1", check=False)
        host.docker("network", "rm", "shop_default", check=False)


def test_at_most_one_host_restarted_its_docker_at_a_time(mesh: Lab) -> None:
    """All joined at once."""
    spans = []
    for host in hosts(mesh)[:2]:
        (due,), (done,) = entries(host, "docker-restart-due"), entries(host, "docker-restarted")
        spans.append((due["timestamp"], done["timestamp"]))
    first, second = sorted(spans)
    assert first[1] <= second[0], spans
    assert mesh.etcdctl("get", "--prefix", "--keys-only", "/hostmesh/turns").strip() == ""


def test_promise_7_the_docker_that_may_not_be_touched_was_not(mesh: Lab) -> None:
    host = mesh.hosts["host3"]
    assert host.services()["docker"]["starts"] == 1
    assert json.loads(host.read_file("/etc/docker/daemon.json")) == TEXT
    assert host.addresses("docker0") == ["172.17.0.1/16"]
    status = host.status()
    assert (status["state"], status["docker"]["network"]) == ("ready", status["subnet"])
    seen = {each["subnet"]: each["docker"] for each in mesh.hosts["host1"].leases()}
    assert seen[status["subnet"]] == "ready", "and its heartbeat says so"


def test_compose_like_networks_of_three_hosts_reach_each_other(mesh: Lab) -> None:
    one, two, three = hosts(mesh)
    with composed(one) as first, composed(two) as second:
        third = three.start_container("shop-web-1", network="hostmesh")
        try:
            for host, address in ((one, first), (two, second), (three, third)):
                subnet = IPv4Network(host.lease() or "")
                assert IPv4Network(address).subnet_of(subnet), "inside the lease, with no plugin"
            pairs = itertools.permutations(((one, first), (two, second), (three, third)), 2)
            for (source, own), (target, address) in pairs:
                wait_until(
                    lambda source=source, address=address: source.fetch(  # type: ignore[misc]
                        f"http://{address}/", container="shop-web-1"
                    ),
                    20,
                    f"{source.name} to reach {target.name}",
                )
                assert asker(source, address) == own, "the true source address"
        finally:
            three.docker("rm", "-f", "shop-web-1")


def test_the_mtu_follows_the_uplink_on_docker0_and_new_networks(mesh: Lab) -> None:
    """At the start, and when the uplink's changes under an agent that runs."""
    host = mesh.hosts["host2"]
    starts = host.services()["docker"]["starts"]
    for mtu in ("1400", "1380"):
        host.run(["ip", "link", "set", "eth0", "mtu", mtu])
        wait_until(lambda mtu=mtu: docker0_mtu(host) == mtu, 60, f"an MTU of {mtu} on docker0")  # type: ignore[misc]
        host.docker("network", "create", "small")
        try:
            for network in ("bridge", "small"):
                host.start_container("web", network=network)
                shown = host.docker("exec", "web", "cat", "/sys/class/net/eth0/mtu").stdout
                host.remove_container("web")
                assert shown.strip() == mtu, network
        finally:
            host.docker("network", "rm", "small")
    assert host.services()["docker"]["starts"] == starts + 1
    assert host.ready()


def docker0_mtu(host: Host) -> str:
    shown = host.docker("network", "inspect", "bridge", check=False)
    if shown.returncode != 0:
        return "dockerd does not answer"
    return str(json.loads(shown.stdout)[0]["Options"].get("com.docker.network.driver.mtu", "1500"))


def asker(source: Host, address: str) -> str:
    """Return the client's address that the server at ``address`` sees."""
    page = source.fetch(f"http://{address}/cgi-bin/whoami", container="shop-web-1")
    return (page or "").strip()


def test_the_attached_network_is_open_to_the_mesh_as_docker0_is(mesh: Lab) -> None:
    one, three = mesh.hosts["host1"], mesh.hosts["host3"]
    one.start_container("web")
    three.start_container("web", network="hostmesh")
    try:
        three.docker("exec", "-d", "web", "httpd", "-p", "81", "-h", "/")
        address = str(three.container_address("web"))
        wait_until(
            lambda: (
                one.fetch(f"http://{address}:81/", container="web") is not None
                or one.ping(address, container="web")
            ),
            15,
            "an unpublished port",
        )
        with Capture(three, "hostmesh0", "icmp") as capture:
            assert one.ping(address, container="web")
            seen = capture.wait_for(lambda p: p.icmp_type == ECHO_REQUEST, 5, "the ping")
        assert str(seen.src) == str(one.container_address("web"))
        assert three.fetch("http://203.0.113.7/", container="web"), "and reaches the world"
    finally:
        one.docker("rm", "-f", "web")
        three.docker("rm", "-f", "web")


def test_networks_outside_the_lease_are_listed_with_what_to_do(mesh: Lab) -> None:
    one, three = mesh.hosts["host1"], mesh.hosts["host3"]
    for host, way in ((one, "docker network rm old"), (three, "docker network connect hostmesh")):
        host.docker("network", "create", "--subnet", "172.30.0.0/24", "old")
        try:
            found = host.wait_condition("network-not-routable")
            assert (found["subject"], found["severity"]) == ("old", "info")
            assert "172.30.0.0/24" in found["cause"]
            assert way in found["hint"]
            assert "not-routable" in host.agentctl("status").stdout
            assert host.ready()
        finally:
            host.docker("network", "rm", "old")


def rules(host: Host) -> list[str]:
    """Return the raw table without its counters."""
    return [line for line in host.iptables("raw") if line.startswith("-A")]


@pytest.mark.full
def test_promise_3_an_engine_that_hangs_costs_no_route_and_no_answer(mesh: Lab) -> None:
    """Noticed by the silence of its events or by the next look, whichever is first: 30 s."""
    host, other = mesh.hosts["host1"], mesh.hosts["host2"]
    address = other.start_container("web")
    before = host.mesh_routes(), rules(host)
    host.service("signal", "docker", number=int(signal.SIGSTOP))
    try:
        host.wait_condition("docker-not-answering", 60)
        assert host.agentctl("diff", check=False).returncode in (0, 1)
        assert host.fetch(f"http://{address}/"), "the loop and the routes do not wait"
        assert (host.mesh_routes(), rules(host)) == before
    finally:
        host.service("signal", "docker", number=int(signal.SIGCONT))
        other.remove_container("web")
    wait_until(host.ready, 60, "host1 to be ready after the hang")


def test_an_engine_that_stops_and_comes_later_is_followed(mesh: Lab) -> None:
    host = mesh.hosts["host2"]
    host.service("stop", "docker")
    absent = host.wait_condition("docker-absent", 10)
    assert absent["severity"] == "info"
    host.service("start", "docker")
    wait_until(host.ready, 30, "host2 to be ready")


def test_promise_3_an_engine_that_dies_costs_no_route_and_is_followed_again(mesh: Lab) -> None:
    host = mesh.hosts["host1"]
    routes = host.mesh_routes()
    starts = host.services()["docker"]["starts"]
    host.service("signal", "docker", number=int(signal.SIGKILL))
    wait_until(lambda: host.services()["docker"]["starts"] > starts, 60, "a new dockerd")
    wait_until(lambda: host.docker("info", check=False).returncode == 0, 60, "its answer")
    wait_until(host.ready, 60, "host1 to be ready")
    host.docker("network", "create", "--subnet", "172.30.0.0/24", "after")
    try:
        host.wait_condition("network-not-routable", 10)  # by its event: sooner than the timer
        assert host.mesh_routes() == routes
    finally:
        host.docker("network", "rm", "after")


def test_promise_11_a_users_process_that_is_called_dockerd_changes_nothing(mesh: Lab) -> None:
    """It is older than Docker, its arguments end in --pidfile, its PATH has another iptables."""
    host = mesh.hosts["host1"]
    with impostor.running(host):
        host.service("restart", "docker")
        host.restart_agent()  # which looks at Docker's iptables at once
        host.docker("network", "create", "--subnet", "172.30.0.0/24", "seen")
        try:
            host.wait_condition("network-not-routable", 60)  # daemon.json was checked before
            assert not host.path(impostor.SOCKET).exists(), "a second dockerd"
            assert len(impostor.dockerds_of_root(host)) == 1
            wait_until(host.ready, 60, "host1 to be ready")
            assert set(host.conditions()) == {"network-not-routable"}
        finally:
            host.docker("network", "rm", "seen")


def test_the_operator_sees_which_containers_stop_and_is_asked(mesh: Lab) -> None:
    """host3 switches to daemon.json under containers, and later leaves."""
    host = mesh.hosts["host3"]
    at_once = "--stop-signal=KILL"  # what ignores SIGTERM costs dockerd's end 10 s
    host.start_container("stays", options=["--restart=always", at_once])
    host.start_container("lost", options=[at_once])
    host.extra_settings({"host": {}}, mesh.endpoints())
    host.restart_agent()
    pending = host.wait_condition("docker-restart-pending", 60)
    assert "lost" in pending["cause"]
    assert [each["docker"] for each in mesh.hosts["host1"].leases() if each["docker"] != "ready"]
    refused = host.agentctl("docker", "restart", "--now", check=False)
    assert refused.returncode == 24
    assert "started again by Docker: stays" in refused.stderr
    assert "may not be started again by Docker: lost" in refused.stderr
    assert host.docker("ps", "--format", "{{.Names}}").stdout.split() == ["lost", "stays"]
    host.agentctl("docker", "restart", "--now", "--yes", timeout_s=120)
    wait_until(host.ready, 60, "host3 to be ready")
    assert host.docker("ps", "--format", "{{.Names}}").stdout.split() == ["stays"]
    host.docker("rm", "-f", "stays", "lost")
    left = host.agentctl("leave", timeout_s=120)
    assert "docker0 is 172.17.0.1/16" in left.stdout
    assert json.loads(host.read_file("/etc/docker/daemon.json")) == TEXT
    assert mesh.etcdctl("get", "--prefix", "--keys-only", "/hostmesh/turns").strip() == ""
