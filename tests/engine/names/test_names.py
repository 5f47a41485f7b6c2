"""Containers of three hosts find each other by name, with real clients, whatever is away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from hostmesh_lab import shell
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.dns_load import DnsLoad
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

from tests.unit.ctl.schemas import check

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

IMAGES = ("lab", "lab-glibc", "lab-musl")
OPTIONS = HostOptions(images=IMAGES[1:], reject_forward=True)
LAB = LabOptions(name="names", hosts=3, host=OPTIONS)
LAB_LAST = True

DOMAIN = "hostmesh.internal"
SHORT = ("api", "backend")
"""Names of one container that answer in its network only."""
WHOLE = (f"api.web.{DOMAIN}", f"api.host2.{DOMAIN}")
SEARCHED = ("api.web", "api.host2")
"""musl does not search a name with a dot."""


def in_force(host: Host) -> bool:
    """Return whether Docker was started with the name servers."""
    journal = json.loads(host.read_file("/var/lib/hostmesh/daemon.json.journal"))
    return journal["phase"] == "applied" and "169.254.20.53" in host.read_file(
        "/etc/docker/daemon.json"
    )


def turn_on(mesh: Lab) -> None:
    host = mesh.hosts["host1"]
    host.agentctl("config", "set", "--level", "3")
    host.agentctl("config", "set", "--names", "on")
    hosts = mesh.hosts.values()
    wait_until(lambda: all(map(in_force, hosts)), 120, "every Docker to have the name servers")
    mesh.wait_ready(60)
    host.agentctl("network", "create", "web")
    wait_until(lambda: all(map(has_network, hosts)), 30, "network web on each host")


def has_network(host: Host) -> bool:
    return host.docker("network", "inspect", "web", check=False).returncode == 0


@pytest.fixture(scope="module", autouse=True)
def named(mesh: Lab) -> None:
    """Names are on; host2 serves a page, and each host has a container of each C library."""
    turn_on(mesh)
    one, two = mesh.hosts["host1"], mesh.hosts["host2"]
    backend = ["--network-alias", "backend"]
    two.start_container("api", network="web", publish=["8080:80"], options=backend)
    one.start_container("front")
    for image in IMAGES:
        for network in ("web", "bridge"):
            name = f"{image}-{network}"
            one.start_container(name, network=network, image=image, command=("sleep", "9999"))


def fetched(host: Host, container: str, name: str) -> str:
    """Return the page that a container gets from a host name, "" for none."""
    if container.startswith(("lab-g", "lab-m")):
        asked = ["docker", "exec", container, "lookup", name, "80", "/cgi-bin/hostname"]
        return host.run(asked, check=False, timeout_s=30).stdout.strip()
    page = host.fetch(f"http://{name}/cgi-bin/hostname", container=container)
    return (page or "").strip()


def looked_up(host: Host, container: str, name: str) -> str:
    """Return the addresses that a container's C library finds, "" for none."""
    done = host.docker("exec", container, "lookup", name, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def resolved(host: Host, name: str, container: str) -> dict[str, object]:
    done = host.agentctl("resolve", name, "--from", container, "-o", "json", check=False)
    document: dict[str, object] = json.loads(done.stdout)
    check("resolve", document)
    return document


def statuses(host: Host, name: str, container: str) -> set[str]:
    answers = resolved(host, name, container)["answers"]
    assert isinstance(answers, list)
    return {each["status"] for each in answers}


@pytest.mark.parametrize("image", IMAGES)
def test_every_c_library_finds_a_container_of_another_host(mesh: Lab, image: str) -> None:
    """Docker sets ndots:0 on user networks, where musl never searches."""
    one = mesh.hosts["host1"]
    expected = fetched(one, f"{image}-web", str(mesh.hosts["host2"].container_address("api")))
    assert expected
    searched = () if image == "lab-musl" else SEARCHED
    for name in (*SHORT, *WHOLE, *searched):
        in_web = f"{image}-web"
        wait_until(lambda: fetched(one, in_web, name) == expected, 20, f"{name} from {in_web}")  # noqa: B023
    for name in (*WHOLE, *searched):
        assert fetched(one, f"{image}-bridge", name) == expected, name
    assert fetched(one, f"{image}-bridge", "front"), "a container on docker0, too"
    assert fetched(one, f"{image}-bridge", "world.example"), "other names are forwarded"
    assert fetched(one, f"{image}-web", "world.example")


def test_a_container_gets_no_name_of_a_network_that_it_may_not_reach(mesh: Lab) -> None:
    one, two = mesh.hosts["host1"], mesh.hosts["host2"]
    two.docker("network", "create", "--label", "hostmesh.access=closed", "shut")
    two.start_container("secret", network="shut")
    wait_until(lambda: "secret.host2" in one.agentctl("names").stdout, 20, "the name")
    assert statuses(one, f"secret.host2.{DOMAIN}", "lab-bridge") == {"NXDOMAIN"}
    candidates = resolved(one, "secret.host2", "lab-bridge")["candidates"]
    assert isinstance(candidates, list)
    assert candidates[0]["why"] == "network shut is closed to other networks"
    assert not fetched(one, "lab-glibc-bridge", f"secret.host2.{DOMAIN}")
    assert not fetched(one, "lab-glibc-bridge", "api"), "a plain name is for its own network"
    assert statuses(one, f"host2.host.{DOMAIN}", "lab-bridge") == {"NOERROR"}


def test_an_unhealthy_container_is_answered_only_where_no_other_is_healthy(mesh: Lab) -> None:
    one, three = mesh.hosts["host1"], mesh.hosts["host3"]
    health = ["--health-cmd", "test -e /healthy", "--health-interval", "1s", "--network-alias", "q"]
    bad = three.start_container("bad", network="web", options=health)
    name = f"q.web.{DOMAIN}"

    def answered() -> set[str]:
        found = resolved(one, name, "lab-web")["answers"]
        assert isinstance(found, list)
        return {address for each in found for address in each["addresses"]}

    wait_until(lambda: answered() == {bad}, 20, "the only address")
    good = one.start_container("good", network="web", options=["--network-alias", "q"])
    wait_until(lambda: answered() == {good}, 20, "the healthy one")
    three.docker("exec", "bad", "touch", "/healthy")
    wait_until(lambda: answered() == {good, bad}, 20, "both")


@contextmanager
def etcd_away(mesh: Lab) -> Iterator[None]:
    mesh.etcd["etcd1"].stop()
    try:
        yield
    finally:
        mesh.etcd["etcd1"].start()
        mesh.wait_ready(60)


def test_promise_3_names_stay_while_etcd_agent_and_docker_are_away(mesh: Lab) -> None:
    one = mesh.hosts["host1"]
    name = f"api.web.{DOMAIN}"
    with DnsLoad(one, "lab-web", name) as load:
        one.kill_agent()
        wait_until(one.ready, 60, "the agent")
        with etcd_away(mesh):
            one.restart_agent()
            wait_until(lambda: one.conditions().get("etcd-unreachable"), 60, "the loss of etcd")
            assert fetched(one, "lab-glibc-web", name)
            assert statuses(one, f"nothing.web.{DOMAIN}", "lab-web") == {"SERVFAIL"}, "not proven"
    assert load.asked > 100
    assert load.lost == 0, load
    wait_until(
        lambda: statuses(one, f"nothing.web.{DOMAIN}", "lab-web") == {"NXDOMAIN"}, 60, "absence"
    )


def test_containers_ask_beside_a_firewall_that_drops_input(mesh: Lab) -> None:
    """As ufw does: it lets in what is established, and drops all else that no rule names."""
    one = mesh.hosts["host1"]
    established = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED")
    rules = [("INPUT", *match, "-j", "ACCEPT") for match in (("-i", "lo"), established)]
    for rule in rules:
        one.run(["iptables", "-A", *rule])
    one.run(["iptables", "-P", "INPUT", "DROP"])
    try:
        assert fetched(one, "lab-glibc-web", f"api.web.{DOMAIN}")
        assert fetched(one, "lab-glibc-bridge", "world.example")
    finally:
        one.run(["iptables", "-P", "INPUT", "ACCEPT"])
        for rule in rules:
            one.run(["iptables", "-D", *rule])


@pytest.mark.full
def test_docker_forwards_from_an_internal_network_only_to_its_own_bridge(mesh: Lab) -> None:
    """docs/names.md: Docker 26 and later, and what helps there."""
    one = mesh.hosts["host1"]
    one.docker("network", "create", "--internal", "vault")
    ask_in_vault = partial(
        one.start_container, network="vault", image="lab-glibc", command=("sleep", "9999")
    )
    ask_in_vault("inside")
    beside = str(one.start_container("beside", network="vault"))
    own, outside = f"host1.host.{DOMAIN}", "world.example"
    assert looked_up(one, "inside", "beside") == beside, "Docker's own names"
    assert looked_up(one, "lab-glibc-web", own) == str(one.address)
    for name in (own, outside):
        assert looked_up(one, "inside", name) == "", name

    (ipam,) = one.inspect("vault")["IPAM"]["Config"]
    server = one.popen(["hostmesh-dns", "--listen", ipam["Gateway"], "--status", "/run/lab"])
    try:
        ask_in_vault("advised", options=["--dns", ipam["Gateway"]])
        wait_until(lambda: looked_up(one, "advised", outside) == "203.0.113.7", 20, outside)
        assert looked_up(one, "advised", own) == str(one.address)
        assert looked_up(one, "advised", "beside") == beside
        assert looked_up(one, "inside", outside) == "", "without --dns"
    finally:
        shell.kill_session(server)


@pytest.mark.full
def test_names_outlast_a_restart_of_docker(mesh: Lab) -> None:
    one, two = mesh.hosts["host1"], mesh.hosts["host2"]
    two.docker("update", "--restart", "always", "api")
    two.run(["lab-service", "restart", "docker"], timeout_s=120)
    name = f"api.web.{DOMAIN}"
    wait_until(lambda: fetched(one, "lab-glibc-web", name), 60, "the page after the restart")


def test_the_doctor_and_the_metrics_know_the_servers(mesh: Lab) -> None:
    one = mesh.hosts["host1"]
    said = one.agentctl("doctor", check=False).stdout
    assert f"169.254.20.53 says host1.host.{DOMAIN} is {one.address}" in said
    metrics = one.run(
        ["curl", "-s", "--unix-socket", "/run/hostmesh/agent.sock", "http://x/metrics"]
    )
    assert 'hostmesh_dns_up{server="169.254.20.53"} 1.0' in metrics.stdout
    document = json.loads(one.agentctl("names", "-o", "json").stdout)
    check("names", document)
    assert document["complete"]


@pytest.mark.full
def test_promise_2_a_host_that_boots_without_etcd_answers_names_of_others(mesh: Lab) -> None:
    one = mesh.hosts["host1"]
    one.kill()
    mesh.etcd["etcd1"].stop()
    try:
        one.boot()
        one.docker("start", "lab-glibc-web")
        wait_until(lambda: fetched(one, "lab-glibc-web", f"api.web.{DOMAIN}"), 60, "the page")
    finally:
        mesh.etcd["etcd1"].start()
    mesh.wait_ready(90)
