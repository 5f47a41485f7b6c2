"""firewalld and ufw on a host of the mesh: what they drop is said, and what repairs it is tried."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

pytestmark = pytest.mark.engine
LAB = LabOptions(name="firewalld", hosts=2, packages=["firewalld", "ufw"])
MANAGES = {"firewall": {"firewalld": "manage"}}
BOOTED = LabOptions(
    name="fwdboot",
    hosts=2,
    host=HostOptions(systemd=True, packages=LAB.packages, settings=MANAGES),
)
OPERATORS = "192.0.2.0/24"
START = """
[ -S /run/dbus/system_bus_socket ] || { mkdir -p /run/dbus; dbus-daemon --system --fork; }
firewalld
until firewall-cmd --state; do sleep 0.1; done"""
STOP = """
daemon=$(cat /run/firewalld.pid); kill $daemon
while [ -e /proc/$daemon ]; do sleep 0.1; done"""


@pytest.fixture(scope="module")
def webs(mesh: Lab) -> dict[str, str]:
    """A container on each host, reached from the other before anything is changed."""
    found = {name: host.start_container("web") for name, host in mesh.hosts.items()}
    assert mesh.hosts["host1"].ping(found["host2"], container="web")
    return found


def shell(host: Host, text: str) -> str:
    return host.run(["sh", "-ec", text], timeout_s=30).stdout


def sources(host: Host) -> dict[str, set[str]]:
    """The sources of zone trusted, at run time and permanently."""
    return {
        when: set(shell(host, f"firewall-cmd {when} --zone=trusted --list-sources").split())
        for when in ("", "--permanent")
    }


def kept(mesh: Lab) -> dict[str, set[str]]:
    """Return what :func:`sources` says of host2 once its agent has added the mesh's."""
    wanted = {"10.64.0.0/10", mesh.hosts["host1"].address, OPERATORS}
    return {"": wanted, "--permanent": wanted}


def reached(mesh: Lab, webs: dict[str, str]) -> list[bool]:
    """host2's container from a container of host1 and from host1 itself; host1's from host2's."""
    one, two = mesh.hosts["host1"], mesh.hosts["host2"]
    return [
        one.ping(webs["host2"], container="web", wait_s=1),
        one.ping(webs["host2"], wait_s=1),
        two.ping(webs["host1"], container="web", wait_s=1),
    ]


def test_firewallds_default_is_a_warning_everywhere_and_its_command_repairs_it(
    mesh: Lab, webs: dict[str, str]
) -> None:
    one, two = mesh.hosts["host1"], mesh.hosts["host2"]
    shell(two, START)
    assert reached(mesh, webs) == [False, False, False]
    found = two.wait_condition("firewalld-blocks-mesh")
    assert found["severity"] == "warning"
    assert "10.64.0.0/10" in found["cause"]
    assert one.address in found["cause"]
    doctor = json.loads(two.agentctl("doctor", "-o", "json", check=False).stdout)
    line = next(each for each in doctor["checks"] if each["check"] == "nft chains")
    assert (line["state"], line["hint"]) == ("warn", found["hint"])
    trace = json.loads(
        two.agentctl("trace", webs["host1"], webs["host2"], "-o", "json", check=False).stdout
    )
    rules = next(each for each in trace["steps"] if each["step"] == "rules")
    assert rules["result"] == "unknown"
    assert "inet firewalld filter_FORWARD" in rules["text"]
    shell(two, found["hint"].partition(" (or ")[0])
    assert reached(mesh, webs) == [True, True, True]
    wait_until(lambda: "firewalld-blocks-mesh" not in two.conditions(), 20, "no condition")
    shell(two, STOP + "; rm /etc/firewalld/zones/trusted.xml")


def test_a_dropping_chain_of_nft_is_a_warning_until_its_commands_let_the_mesh_pass(
    mesh: Lab,
) -> None:
    one, two = mesh.hosts["host1"], mesh.hosts["host2"]
    web = str(one.container_address("web"))
    chain = "add chain inet filter forward { type filter hook forward priority 0; policy drop; }"
    shell(one, f"nft add table inet filter; nft '{chain}'")
    try:
        assert not two.ping(web, wait_s=1)
        found = one.wait_condition("operator-nft-chain")
        assert (found["severity"], found["subject"]) == ("warning", "inet filter forward")
        commands = found["hint"].removeprefix("accept it: ").partition("; also write")[0]
        shell(one, commands)
        assert two.ping(web)
        wait_until(lambda: "operator-nft-chain" not in one.conditions(), 20, "no condition")
    finally:
        shell(one, "nft delete table inet filter")


def test_ufw_leaves_the_mesh_alone(mesh: Lab, webs: dict[str, str]) -> None:
    """Its default: deny incoming and routed traffic, by iptables chains."""
    one, two = mesh.hosts["host1"], mesh.hosts["host2"]
    try:
        for host in (one, two):
            shell(host, "ufw --force enable")
        assert "deny (routed)" in shell(two, "ufw status verbose")
        assert reached(mesh, webs) == [True, True, True]
        assert two.conditions() == {}
    finally:
        for host in (one, two):
            shell(host, "ufw disable")


def test_the_agent_keeps_its_sources_in_firewalld_and_takes_them_back(
    mesh: Lab, webs: dict[str, str]
) -> None:
    two = mesh.hosts["host2"]
    add = f"--zone=trusted --add-source={OPERATORS}"
    shell(two, f"{START}; firewall-cmd {add}; firewall-cmd --permanent {add}")
    two.extra_settings({**MANAGES, "mesh": {"cidr": "10.64.0.0/10"}}, mesh.endpoints())
    two.restart_agent()
    wait_until(lambda: sources(two) == kept(mesh), 30, "the agent's sources")
    wait_until(lambda: "firewalld-blocks-mesh" not in two.conditions(), 20, "no condition")
    assert reached(mesh, webs) == [True, True, True]
    shell(two, "firewall-cmd --reload")
    assert reached(mesh, webs) == [True, True, True]
    two.remove_container("web")
    two.agentctl("leave")
    assert sources(two) == {"": {OPERATORS}, "--permanent": {OPERATORS}}


@pytest.mark.full
def test_sources_that_were_removed_come_back_and_leave_needs_no_firewalld(
    mesh: Lab, webs: dict[str, str]
) -> None:
    """Goes on where the test before it ends."""
    one, two = mesh.hosts["host1"], mesh.hosts["host2"]
    if two.status()["state"] != "left":  # it was not selected
        test_the_agent_keeps_its_sources_in_firewalld_and_takes_them_back(mesh, webs)
    two.agentctl("join")
    wait_until(lambda: sources(two) == kept(mesh), 40, "the sources after a join")
    shell(two, "firewall-cmd --zone=trusted --remove-source=10.64.0.0/10")
    wait_until(lambda: sources(two) == kept(mesh), 20, "the source that was removed")
    shell(two, STOP)
    two.agentctl("leave")
    zone = two.read_file("/etc/firewalld/zones/trusted.xml")
    assert OPERATORS in zone
    assert "10.64.0.0/10" not in zone
    assert one.address not in zone


@pytest.mark.full
@pytest.mark.parametrize("options", [pytest.param(BOOTED, id="booted")])
def test_the_hardened_unit_keeps_firewalld_in_order_over_a_reboot_and_leaves_without_it(
    make_lab: Callable[[LabOptions], AbstractContextManager[Lab]], options: LabOptions
) -> None:
    """firewalld starts before Docker then, which makes a zone and maybe a policy of its own."""
    with make_lab(options) as lab:
        one, two = lab.hosts["host1"], lab.hosts["host2"]
        assert isinstance(two, BootedHost)
        webs = {
            name: host.start_container("web", options=["--restart=always"])
            for name, host in lab.hosts.items()
        }
        two.systemctl("enable", "--now", "firewalld")
        wait_until(lambda: reached(lab, webs) == [True] * 3, 60, "the mesh through firewalld")
        assert {"10.64.0.0/10", one.address} <= sources(two)["--permanent"]
        two.reboot()
        lab.wait_ready(60)
        wait_until(lambda: reached(lab, webs) == [True] * 3, 60, "the mesh after a reboot")
        assert two.conditions() == {}
        two.systemctl("stop", "firewalld")
        two.remove_container("web")
        two.agentctl("leave")
        zone = two.read_file("/etc/firewalld/zones/trusted.xml")
        assert "10.64.0.0/10" not in zone
        assert one.address not in zone
