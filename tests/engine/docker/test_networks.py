"""Docker networks of records on real dockerds (26.1, 20.10 and 28.5), driven by driver.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions

from agent.docker.attach.conditions import engine_report
from agent.docker.daemonjson.desired import desired_docker
from agent.docker.engine.engine import Engine
from agent.docker.networks.maker import NetworkMaker
from agent.docker.networks.plan import Wanted, bridge_name
from agent.docker.report import AttachReport
from agent.mesh.networks import DesiredNetwork
from agent.model import Condition

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

DRIVER = "/root/driver.py"
PYTHON = "/opt/hostmesh/venv/bin/python"
LEASE = "10.64.0.0/16"
MOVED = "10.80.0.0/16"
WEB = DesiredNetwork(name="web", length=24, mtu=1450)
BUSY = replace(WEB, name="busy")
SHOP = DesiredNetwork(name="shop", length=28)
AGAIN = replace(WEB, subnet=IPv4Network("10.64.255.0/24"))
REMOVED = replace(WEB, removed=True)
LABEL = "hostmesh.network=web"


class Driven:
    """A host's Docker and the agent's part for networks, at its socket."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.engine = Engine(host.path("/run/docker.sock"), 20.0)
        self.managed = True
        self.maker = NetworkMaker(self.engine, lambda: self.managed, self._link_exists)

    def ensure(
        self, *wanted: DesiredNetwork, complete: bool = True, lease: str = LEASE
    ) -> AttachReport:
        docker = desired_docker(IPv4Network(lease), 1450)
        before = engine_report(self.engine.read())
        return self.maker.ensure(Wanted(wanted, complete), docker, before)

    def ensure_killed(self, at_request: int, after_s: float) -> bool:
        """Do it in a process that is killed; return whether it was."""
        order = {
            "call": "networks",
            "subnet": LEASE,
            "mtu": 1450,
            "settings": {},
            "wanted": [{"name": "web", "mtu": 1450}],
            "complete": True,
            "die_at_request": at_request,
            "after_s": after_s,
        }
        done = self.host.run(
            [PYTHON, DRIVER, json.dumps(order)],
            env={"PYTHONPATH": "/opt/hostmesh/src"},
            timeout_s=100,
            check=False,
        )
        return done.returncode != 0

    def network(self, name: str = "web") -> dict[str, Any]:
        return self.host.inspect(name)

    def subnet(self, name: str = "web") -> str:
        return str(self.network(name)["IPAM"]["Config"][0]["Subnet"])

    def named(self, name: str = "web") -> int:
        listed = self.host.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
        return listed.count(name)

    def reset(self) -> None:
        self.host.run(["sh", "-c", "docker ps -aq | xargs -r docker rm -f"])
        self.host.docker("network", "prune", "-f")

    def _link_exists(self, name: str) -> bool:
        return self.host.run(["ip", "link", "show", name], check=False).returncode == 0


@pytest.fixture(scope="module", params=["forky", "trixie", "bookworm"])
def machine(
    request: pytest.FixtureRequest,
    make_lab: Callable[[LabOptions], AbstractContextManager[Lab]],
) -> Iterator[Driven]:
    options = LabOptions(
        name="dockernet",
        hosts=1,
        suite=request.param,
        etcd_members=0,
        host=HostOptions(agent=False),
    )
    with make_lab(options) as lab:
        host = lab.hosts["host1"]
        host.write_file(DRIVER, Path(__file__).with_name("driver.py").read_text())
        yield Driven(host)


@pytest.fixture
def driven(machine: Driven) -> Driven:
    machine.reset()
    return machine


def names(report: AttachReport) -> list[str]:
    return [each.name for each in report.conditions]


def condition(report: AttachReport, name: str) -> Condition:
    return next(each for each in report.conditions if each.name == name)


def in_facts(report: AttachReport, name: str = "web") -> list[str]:
    return [str(each.subnet) for each in report.facts.networks if each.name == name]


def test_a_record_makes_a_network_and_once_is_enough(driven: Driven) -> None:
    report = driven.ensure(WEB, SHOP)
    assert names(report) == []
    made = driven.network()
    assert made["Labels"] == {"hostmesh.network": "web", "hostmesh.managed": "network"}
    assert made["Options"]["com.docker.network.bridge.name"] == bridge_name("web")
    assert made["Options"]["com.docker.network.driver.mtu"] == "1450"
    assert driven.subnet() == "10.64.255.0/24", "Docker takes the first ones itself"
    assert driven.subnet("shop").endswith("/28")
    assert in_facts(report) == ["10.64.255.0/24"]
    driven.host.start_container("client", network="web")
    mtu = driven.host.docker("exec", "client", "cat", "/sys/class/net/eth0/mtu").stdout.strip()
    assert mtu == "1450"
    again = driven.ensure(WEB, SHOP)
    assert (names(again), driven.network()["Id"]) == ([], made["Id"])


@pytest.mark.parametrize("how", [("rm", "web"), ("prune", "-f")])
def test_a_network_that_was_removed_has_the_same_subnet_again(
    driven: Driven, how: tuple[str, ...]
) -> None:
    driven.ensure(WEB)
    driven.host.docker("network", *how)
    assert driven.named() == 0
    for name in ("a", "b"):
        driven.host.docker("network", "create", name)
    report = driven.ensure(AGAIN)
    assert (names(report), in_facts(report)) == ([], ["10.64.255.0/24"])


def test_where_its_subnet_was_taken_meanwhile_it_gets_another(driven: Driven) -> None:
    driven.host.docker("network", "create", "--subnet", "10.64.255.128/25", "other")
    report = driven.ensure(AGAIN)
    assert (names(report), driven.subnet()) == ([], "10.64.254.0/24")


def test_containers_that_refer_to_the_old_id_are_named_and_the_commands_help(
    driven: Driven,
) -> None:
    driven.ensure(WEB)
    driven.host.start_container("client", network="web")
    driven.host.docker("stop", "-t0", "client")
    driven.host.docker("network", "rm", "web")
    report = driven.ensure(AGAIN)
    found = condition(report, "network-id-gone")
    assert "client refer to Docker network web" in found.cause
    failed = driven.host.docker("start", "client", check=False)
    assert failed.returncode != 0, "the condition is true"
    assert "docker network disconnect -f web client" in found.hint
    driven.host.docker("network", "disconnect", "-f", "web", "client")
    driven.host.docker("network", "connect", "web", "client")
    driven.host.docker("start", "client")
    assert names(driven.ensure(AGAIN)) == []


def test_a_network_without_the_label_is_never_adopted(driven: Driven) -> None:
    driven.host.docker("network", "create", "--subnet", "172.30.0.0/24", "web")
    made = driven.network()["Id"]
    report = driven.ensure(WEB)
    assert "172.30.0.0/24" in condition(report, "network-name-taken").cause
    assert (driven.network()["Id"], driven.named()) == (made, 1)
    gone = driven.ensure(REMOVED)
    assert (names(gone), driven.named()) == ([], 1), "nor removed"


def test_a_compose_files_own_network_is_the_slice(driven: Driven) -> None:
    driven.host.docker("network", "create", "--label", LABEL, "shop_web")
    assert names(driven.ensure(WEB)) == []
    assert driven.named() == 0, "one of a name on a host"
    driven.host.docker("network", "rm", "shop_web")  # docker compose down
    driven.ensure(WEB)
    assert driven.named() == 1
    inside = ("--subnet", "10.64.128.0/24")
    driven.host.docker("network", "create", "--label", LABEL, *inside, "shop_web")
    report = driven.ensure(WEB)
    assert (names(report), driven.named(), len(in_facts(report, "shop_web"))) == ([], 0, 1)
    removed = driven.ensure(REMOVED)
    assert condition(removed, "network-remains").subject == "shop_web"
    assert driven.named("shop_web") == 1


def test_a_removed_network_goes_when_nothing_is_attached(driven: Driven) -> None:
    driven.ensure(WEB)
    driven.host.docker("create", "--name=new", "--network=web", "lab")
    driven.host.start_container("stopped", network="web")
    driven.host.docker("stop", "-t0", "stopped")
    driven.host.start_container("client", network="web")
    for name in ("client", "stopped", "new"):
        report = driven.ensure(REMOVED)
        assert name in condition(report, "network-in-use").cause
        assert driven.named() == 1
        driven.host.docker("rm", "-f", name)
    report = driven.ensure(REMOVED)
    assert (names(report), in_facts(report), driven.named()) == ([], [], 0)


def test_promise_4_a_network_without_a_record_goes_only_when_all_records_are_known(
    driven: Driven,
) -> None:
    driven.ensure(WEB)
    driven.host.docker("network", "create", "--label", LABEL.replace("web", "mine"), "mine")
    driven.ensure(complete=False)
    assert driven.named() == 1
    driven.ensure(complete=True)
    assert driven.named() == 0
    assert driven.named("mine") == 1


def test_a_move_of_the_cidr_makes_unused_networks_again_and_names_the_others(
    driven: Driven,
) -> None:
    driven.ensure(WEB, BUSY)
    driven.host.start_container("client", network="busy")
    report = driven.ensure(WEB, BUSY, lease=MOVED)
    assert (driven.subnet(), in_facts(report)) == ("10.80.255.0/24", ["10.80.255.0/24"])
    assert driven.subnet("busy").startswith("10.64.")
    found = condition(report, "network-in-use")
    assert (found.subject, "client" in found.cause, MOVED in found.cause) == (
        "busy",
        True,
        True,
    )
    driven.host.docker("rm", "-f", "client")
    assert names(driven.ensure(WEB, BUSY, lease=MOVED)) == []
    assert driven.subnet("busy").startswith("10.80.")


def test_another_mtu_makes_an_unused_network_again(driven: Driven) -> None:
    driven.ensure(WEB)
    driven.ensure(replace(AGAIN, mtu=1420))
    assert driven.network()["Options"]["com.docker.network.driver.mtu"] == "1420"
    assert driven.subnet() == "10.64.255.0/24"


def test_a_bridge_that_is_there_already_is_refused(driven: Driven) -> None:
    """Docker would use it, and leave it behind."""
    bridge = bridge_name("web")
    driven.host.run(["ip", "link", "add", bridge, "type", "bridge"])
    try:
        report = driven.ensure(WEB)
        assert bridge in condition(report, "network-bridge-taken").cause
        assert driven.named() == 0
    finally:
        driven.host.run(["ip", "link", "delete", bridge])
    assert names(driven.ensure(WEB)) == []
    driven.reset()
    option = f"com.docker.network.bridge.name={bridge}"
    driven.host.docker("network", "create", "-o", option, "other")
    assert "other" in condition(driven.ensure(WEB), "network-bridge-taken").cause


def test_no_space_is_said(driven: Driven) -> None:
    driven.host.docker("network", "create", "--subnet", "10.64.128.0/17", "large")
    found = condition(driven.ensure(WEB), "network-no-space")
    assert "large (10.64.128.0/17)" in found.cause
    assert driven.named() == 0


def test_promise_7_a_docker_that_is_the_operators_is_left_alone(driven: Driven) -> None:
    driven.managed = False
    try:
        assert names(driven.ensure(WEB)) == ["network-not-made"]
    finally:
        driven.managed = True
    assert driven.named() == 0


def test_promise_6_killed_after_docker_made_it_nothing_is_made_twice(driven: Driven) -> None:
    """Killed before each request to Docker, and while Docker makes it."""
    for step in range(1, 20):
        killed = False
        for after_s in (0.0, 0.03):
            driven.reset()
            killed = driven.ensure_killed(step, after_s)
            assert driven.named() <= 1
            assert names(driven.ensure(WEB)) == []
            assert driven.named() == 1
        if not killed:
            break
    assert 3 < step < 19


def test_it_survives_a_restart_of_dockerd_with_and_without_live_restore(driven: Driven) -> None:
    driven.ensure(WEB)
    made = driven.network()["Id"]
    for text in ('{"live-restore": true}', "{}"):
        driven.host.write_file("/etc/docker/daemon.json", text)
        driven.host.service("restart", "docker")
        driven.host.start_container("client", network="web")
        driven.host.service("restart", "docker")
        assert names(driven.ensure(AGAIN)) == []
        assert (driven.network()["Id"], driven.named()) == (made, 1)
        driven.host.docker("rm", "-f", "client")
    driven.host.run(["rm", "/etc/docker/daemon.json"])
    driven.host.service("stop", "docker")
    try:
        assert names(driven.ensure(WEB)) == ["docker-absent"]
    finally:
        driven.host.service("start", "docker")
    assert driven.network()["Id"] == made


def test_a_host_that_leaves_gives_its_networks_back(driven: Driven) -> None:
    driven.ensure(WEB, BUSY)
    driven.host.start_container("client", network="busy")
    done, todo = driven.maker.remove_unused()
    assert done == ("removed Docker network web",)
    (left,) = todo
    assert "docker network rm busy" in left
    assert "client" in left
    assert (driven.named(), driven.named("busy")) == (0, 1)
