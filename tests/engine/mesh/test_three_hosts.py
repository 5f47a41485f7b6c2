"""The main job on three real hosts, and what disturbs it. Promises by name."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Any

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.capture import ECHO_REQUEST, Capture, Pinger
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

LAB = LabOptions(name="mesh", hosts=3, host=HostOptions(reject_forward=True))


def hosts(mesh: Lab) -> list[Host]:
    return [mesh.hosts[f"host{n}"] for n in (1, 2, 3)]


@pytest.fixture(scope="module", autouse=True)
def web(mesh: Lab) -> Iterator[dict[str, str]]:
    """A container that serves pages on each host: host name to its address."""
    yield {host.name: str(host.start_container("web")) for host in hosts(mesh)}
    for host in hosts(mesh):
        host.remove_container("web")


@pytest.fixture(autouse=True)
def _ready_again(mesh: Lab) -> Iterator[None]:
    """Wait until the mesh has healed before the next test starts."""
    yield
    mesh.wait_ready(60)


def route_to(host: Host, subnet: str) -> dict[str, Any] | None:
    return next((each for each in host.mesh_routes() if each["dst"] == subnet), None)


def kernel(host: Host) -> tuple[object, list[str]]:
    """Return everything of the agent's in the kernel, without counters and comments of time."""
    rules = [
        line.partition(" [")[0]
        for table in ("raw", "filter", "nat")
        for line in host.iptables(table)
        if "HOSTMESH" in line.upper()
    ]
    return sorted(json.dumps(each, sort_keys=True) for each in host.mesh_routes()), rules


def test_promise_1_each_host_has_a_subnet_of_its_own_and_docker_lives_in_it(mesh: Lab) -> None:
    subnets = []
    for host in hosts(mesh):
        subnet = IPv4Network(host.lease() or "")
        assert subnet.prefixlen == 16
        subnets.append(subnet)
        (address,) = host.addresses("docker0")
        assert IPv4Network(address, strict=False) == next(subnet.subnets())
        host.docker("network", "create", "user")
        try:
            config = host.inspect("user")["IPAM"]["Config"][0]
            assert IPv4Network(config["Subnet"]).subnet_of(subnet)
        finally:
            host.docker("network", "rm", "user")
    assert not any(a.overlaps(b) for a, b in itertools.combinations(subnets, 2))


def test_promise_11_containers_can_be_kept_from_an_etcd_in_the_clear(mesh: Lab) -> None:
    """The host itself reaches it, and so do the containers of a host that says so."""
    host, etcd = mesh.hosts["host2"], f"{mesh.etcd['etcd1'].endpoint}/health"
    hint = host.wait_condition("etcd-open")["hint"]
    assert "agentctl config set --etcd-containers closed" in hint
    assert host.fetch(etcd, container="web")
    settings = host.read_file("/etc/hostmesh/agent.toml")
    allowed = settings.replace("[etcd]\n", '[etcd]\ncontainers = "allow"\n')
    assert allowed != settings
    host.agentctl("config", "set", "--etcd-containers", "closed")
    try:
        wait_until(lambda: not host.fetch(etcd, container="web"), 20, "etcd to be closed")
        assert "true" in (host.fetch(etcd) or "")
        host.write_file("/etc/hostmesh/agent.toml", allowed)
        host.restart_agent()
        wait_until(lambda: host.fetch(etcd, container="web"), 30, "etcd's answer")
    finally:
        host.agentctl("config", "set", "--etcd-containers", "allow")
        host.write_file("/etc/hostmesh/agent.toml", settings)
        host.restart_agent()


def test_promise_9_a_ready_host_says_so_with_200(mesh: Lab) -> None:
    mesh.wait_ready(60)
    for host in hosts(mesh):
        asked = ["curl", "-s", "-w", "\n%{http_code}", "--unix-socket", "/run/hostmesh/agent.sock"]
        body, _, status = host.run([*asked, "http://localhost/readyz"]).stdout.rpartition("\n")
        assert status == "200"
        assert json.loads(body) == {"ready": True, "reason": "ready", "state": "ready"}


def test_containers_and_hosts_reach_every_remote_container_with_true_addresses(
    mesh: Lab, web: dict[str, str]
) -> None:
    for source, target in itertools.permutations(hosts(mesh), 2):
        assert source.ping(web[target.name]), f"{source.name} itself to {target.name}"
        assert source.fetch(f"http://{web[target.name]}/")
        with Capture(target, "docker0", "icmp") as capture:
            assert source.ping(web[target.name], container="web")
            seen = capture.wait_for(
                lambda packet: packet.icmp_type == ECHO_REQUEST, 5, "the ping on the bridge"
            )
        assert str(seen.src) == web[source.name], "the source was masqueraded"
        assert seen.ttl == 62
        assert source.fetch(f"http://{web[target.name]}/", container="web")


def test_a_packets_way_is_traced_and_captured(mesh: Lab, web: dict[str, str]) -> None:
    """From container to container: what the kernel and the rules say, and the packet itself."""
    host, other, _ = hosts(mesh)
    done = host.agentctl("trace", "web", web[other.name], "--capture", "-o", "json", check=False)
    document = json.loads(done.stdout)
    assert (done.returncode, document["passes"]) == (0, True), done.stdout + done.stderr
    steps = {f"{each['host']} {each['step']}": each for each in document["steps"]}
    assert {each["result"] for name, each in steps.items() if name != "next rules"} == {"ok"}
    assert steps["here route"]["text"].startswith(f"via {other.address} by eth0; {other.lease()}")
    assert "DOCKER-USER, rule " in steps["here rules"]["text"]
    assert "accepts it: -A HOSTMESH-FORWARD" in steps["here rules"]["text"]
    assert f"{other.name} at {other.address}" in steps["next host"]["text"]
    capture = document["capture"]
    assert (capture["sent"], capture["answered"]) == (1, 1)
    one, two = web[host.name], web[other.name]
    assert [(e["link"], e["ttl"], e["source"], e["destination"]) for e in capture["frames"]] == [
        ("docker0", 64, one, two),
        ("eth0", 63, one, two),
        ("eth0", 63, two, one),
        ("docker0", 62, two, one),
    ]
    there = capture["frames"][1]
    assert there["source_mac"] == link_mac(host)
    assert there["destination_mac"] == link_mac(other)
    # Of two containers on one bridge no link but that one sees anything.
    beside = str(host.start_container("beside"))
    done = host.agentctl("trace", "web", "beside", "--capture", "-o", "json", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    capture = json.loads(done.stdout)["capture"]
    assert (capture["answered"], capture["links"]) == (1, ["docker0"])
    assert [(e["ttl"], e["source"], e["destination"]) for e in capture["frames"]] == [
        (64, one, beside),
        (64, beside, one),
    ]
    host.docker("rm", "-f", "beside")
    # Without the agent the kernel and Docker still tell; an operator's rule ahead is quoted.
    rule = ["-i", "docker0", "-d", f"{two}/32", "-j", "DROP"]
    host.run(["iptables", "-I", "DOCKER-USER", *rule])
    host.stop_agent()
    try:
        shut = host.agentctl("trace", one, two, check=False)
        assert shut.returncode == 1
        rule_text = f"-A DOCKER-USER -d {two}/32 -i docker0"
        assert f"a rule before Hostmesh's drops it: {rule_text}" in shut.stdout
    finally:
        host.run(["iptables", "-D", "DOCKER-USER", *rule])
        host.start_agent()


def link_mac(host: Host) -> str:
    shown = json.loads(host.run(["ip", "-j", "link", "show", "eth0"]).stdout)
    return str(shown[0]["address"])


def test_promise_3_killing_the_agent_loses_no_packet_and_it_takes_up_where_it_was(
    mesh: Lab, web: dict[str, str]
) -> None:
    host, other, _ = hosts(mesh)
    before, subnet = kernel(host), host.lease()
    ping = Pinger(host, web[other.name], container="web", every_s=0.05)
    ping.wait_reply(10, "host2")
    host.kill_agent()
    wait_until(host.ready, 30, "the agent to be ready again")
    ping.stop()
    assert ping.missed() == []
    assert kernel(host) == before
    assert host.lease() == subnet


def test_promise_3_stopping_the_agent_leaves_everything(mesh: Lab, web: dict[str, str]) -> None:
    host, other, _ = hosts(mesh)
    before = kernel(host)
    host.stop_agent()
    try:
        assert kernel(host) == before
        assert host.ping(web[other.name], container="web")
        listed = host.agentctl("leases")
        assert "10." in listed.stdout
        assert "from etcd, the kernel" in listed.stderr
    finally:
        host.start_agent()


def test_promise_3_and_10_etcd_frozen_and_back(mesh: Lab, web: dict[str, str]) -> None:
    host, other, _ = hosts(mesh)
    before, subnet = kernel(host), host.lease()
    member = mesh.etcd["etcd1"]
    member.pause()
    try:
        host.wait_condition("etcd-unreachable", 25)
        host.kill_agent()
        wait_until(lambda: host.status().get("subnet") == subnet, 20, "the copy to be used")
        assert host.status()["etcd"]["cached"] is True
        assert kernel(host) == before
        assert host.ping(web[other.name], container="web")
    finally:
        member.resume()
    wait_until(host.ready, 30, "truth to replace the copy")
    assert host.status()["etcd"]["cached"] is False
    assert host.lease() == subnet


def test_promise_4_and_8_a_bad_record_costs_itself_only(mesh: Lab) -> None:
    host = hosts(mesh)[0]
    before = kernel(host)
    held = {each.lease() for each in hosts(mesh)}
    free = [f"10.{n}.0.0" for n in range(70, 75) if f"10.{n}.0.0/16" not in held]
    bad = {
        f"{free[0]}-16": "not json",
        f"{free[1]}-16": '{"PublicIP":"10.64.0.9","BackendType":"host-gw"}',
        "192.168.50.0-24": '{"PublicIP":"192.168.50.99","BackendType":"host-gw"}',
        "0.0.0.0-0": '{"PublicIP":"192.168.50.99","BackendType":"host-gw"}',
    }
    try:
        for key, value in bad.items():
            mesh.etcdctl("put", f"/hostmesh/subnets/{key}", value)
        wait_until(
            lambda: (
                sum(e["name"] == "record-set-aside" for e in host.status()["conditions"])
                == len(bad)
            ),
            10,
            "every bad record to be named",
        )
        assert kernel(host) == before
    finally:
        for key in bad:
            mesh.etcdctl("del", f"/hostmesh/subnets/{key}")


def test_promise_5_a_foreign_route_is_reported_and_left(mesh: Lab) -> None:
    host, other, _ = hosts(mesh)
    subnet = other.lease() or ""
    host.stop_agent()
    host.run(["ip", "route", "del", subnet, "proto", "140"])
    host.run(["ip", "route", "add", subnet, "via", "192.168.50.1"])
    host.start_agent()
    conflict = host.wait_condition("route-conflict")
    assert subnet in conflict["cause"]
    shown = host.run(["ip", "route", "show", subnet]).stdout
    assert "192.168.50.1 " in shown
    assert host.agentctl("diff", check=False).returncode == 1
    host.run(["ip", "route", "del", subnet, "via", "192.168.50.1"])
    wait_until(lambda: route_to(host, subnet), 5, "our route to take over")


@pytest.mark.parametrize("change", ["deleted", "modified"])
def test_promise_6_a_route_that_somebody_changed_is_repaired_at_once(
    mesh: Lab, change: str
) -> None:
    host, other, third = hosts(mesh)
    subnet = other.lease() or ""
    if change == "deleted":
        host.run(["ip", "route", "del", subnet])
    else:
        host.run(["ip", "route", "replace", subnet, "via", str(third.address), "proto", "140"])

    def repaired() -> bool:
        found = route_to(host, subnet)
        return found is not None and found.get("gateway") == str(other.address)

    wait_until(repaired, 2, "the route to be right again", every_s=0.02)
    assert host.agentctl("diff", check=False).returncode == 0


@pytest.mark.parametrize(
    "disturbance",
    [
        ("iptables", "-D", "DOCKER-USER", "1"),
        ("iptables", "-F", "HOSTMESH-FORWARD"),
        ("iptables", "-t", "nat", "-F", "HOSTMESH-POSTROUTING"),
        ("iptables", "-t", "raw", "-F", "PREROUTING"),
        ("iptables", "-t", "nat", "-I", "POSTROUTING", "-s", "10.0.0.0/8", "-j", "MASQUERADE"),
    ],
    ids=lambda words: " ".join(words[1:5]),
)
def test_promise_6_rules_that_somebody_changed_are_repaired(
    mesh: Lab, web: dict[str, str], disturbance: tuple[str, ...]
) -> None:
    host, other, _ = hosts(mesh)
    before = kernel(host)
    host.run(disturbance)
    assert kernel(host) != before or "MASQUERADE" in disturbance
    try:
        wait_until(lambda: kernel(host)[1] == before[1], 15, "the rules to be right again")
        wait_until(
            lambda: host.agentctl("diff", check=False).returncode == 0, 15, "nothing to differ"
        )
        with Capture(other, "docker0", "icmp") as capture:
            assert host.ping(web[other.name], container="web")
            seen = capture.wait_for(lambda _: True, 5, "the ping")
        assert str(seen.src) == web[host.name]
    finally:
        if "MASQUERADE" in disturbance:
            host.run([each if each != "-I" else "-D" for each in disturbance])


def test_a_restarted_docker_gets_its_rules_in_order_again(mesh: Lab, web: dict[str, str]) -> None:
    host, other, _ = hosts(mesh)
    host.run(["lab-service", "restart", "docker"], timeout_s=120)
    host.docker("start", "web")
    web[host.name] = str(host.container_address("web"))
    wait_until(host.ready, 30, "the host to be ready")

    def unmasqueraded() -> bool:
        with Capture(other, "docker0", "icmp") as capture:
            if not host.ping(web[other.name], container="web"):
                return False
            seen = capture.wait_for(lambda _: True, 5, "the ping")
        return str(seen.src) == web[host.name]

    wait_until(unmasqueraded, 15, "true source addresses again", every_s=0.5)


def test_promise_9_an_address_nobody_owns_fails_at_once_and_does_not_leak(mesh: Lab) -> None:
    host = hosts(mesh)[0]
    with Capture(host, "eth0", "dst net 10.64.0.0/10") as capture:
        for container in ("web", None):
            started = time.monotonic()
            assert not host.fetch("http://10.127.1.1/", container=container, timeout_s=10)
            assert time.monotonic() - started < 5, "it hung instead of failing"
        assert capture.packets() == []


def test_promise_5_strangers_reach_nothing_they_did_not_before(
    mesh: Lab, web: dict[str, str]
) -> None:
    """The stranger adds a route, as a curious neighbour would; forwarding is on by now."""
    host = hosts(mesh)[0]
    stranger = mesh.stranger
    assert stranger is not None
    stranger.run(["ip", "route", "add", host.lease() or "", "via", str(host.address)])
    try:
        done = stranger.run(
            ["curl", "-s", "--max-time", "2", f"http://{web[host.name]}/"], check=False
        )
        assert done.returncode != 0
        assert stranger.run(["ping", "-c1", "-W1", web[host.name]], check=False).returncode != 0
        host.start_container("published", publish=["8080:80"])
        assert stranger.run(["curl", "-sf", f"http://{host.address}:8080/"]).stdout
    finally:
        stranger.run(["ip", "route", "del", host.lease() or ""], check=False)
        host.docker("rm", "-f", "published", check=False)


def test_promise_5_networks_of_one_host_stay_apart_and_internal_stays_internal(mesh: Lab) -> None:
    host, other, _ = hosts(mesh)
    host.docker("network", "create", "blue")
    host.docker("network", "create", "--internal", "vault")
    try:
        blue = str(host.start_container("bb", network="blue", publish=["8081:80"]))
        vault = str(host.start_container("vv", network="vault"))
        assert not host.fetch(f"http://{vault}/", container="web", timeout_s=1)
        assert not host.ping(blue, container="web")
        assert not other.ping(vault, container="web")
        assert not other.fetch(f"http://{vault}/", timeout_s=1)
        # A user-defined network shows its published ports and answers pings, nothing else.
        wait_until(
            lambda: other.fetch(f"http://{blue}/", container="web"), 15, "the published port"
        )
        assert other.ping(blue, container="web")
        host.docker("exec", "-d", "bb", "httpd", "-p", "81", "-h", "/")
        assert not other.fetch(f"http://{blue}:81/", container="web", timeout_s=1)
        assert host.ping(str(other.container_address("web")), container="bb")
    finally:
        host.docker("rm", "-f", "bb", "vv", check=False)
        host.docker("network", "rm", "blue", "vault", check=False)


def test_containers_still_reach_the_world_masqueraded(mesh: Lab) -> None:
    host = hosts(mesh)[0]
    page = host.fetch("http://203.0.113.7/", container="web")
    assert page is not None
    assert str(host.address) in page
