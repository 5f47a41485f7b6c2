"""Every section of docs/troubleshooting.md on a mesh that is broken as the section says.

A section's prompts are typed in order; each line below a prompt must be in what the command
prints. Numbers may differ, and "…" matches any text. `editor FILE` does the fault's own edit.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import SETTINGS, HostOptions
from hostmesh_lab.underlay.topology import TWO_LANS
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(900)]

LAB = LabOptions(name="trouble", hosts=4, host=HostOptions(systemd=True))
LAB_LAST = True  # names are on
TUNNEL = LabOptions(name="tunnel", hosts=2, topology=TWO_LANS, backend={"Type": "vxlan"})
PAGE = Path(__file__).parents[3] / "docs/troubleshooting.md"
_PROMPT = re.compile(r"    (host\d)# (.*)")
_DEADLINE_S = 45.0


class Typed(NamedTuple):
    """A command of the page, with the lines below it."""

    host: str
    command: str
    shown: tuple[str, ...]


def sections() -> dict[int, list[Typed]]:
    """The numbered sections of the page: what is typed, and what is seen."""
    found: dict[int, list[Typed]] = {}
    for part in re.split(r"(?m)^## ", PAGE.read_text())[1:]:
        number = int(part.partition(".")[0])
        found[number] = []
        for line in part.splitlines():
            if prompt := _PROMPT.match(line):
                found[number].append(Typed(prompt[1], prompt[2], ()))
            elif line.startswith("    ") and found[number]:
                last = found[number].pop()
                found[number].append(last._replace(shown=(*last.shown, line[4:])))
            elif line:
                found[number].append(Typed("", "", ()))
    return {number: [each for each in typed if each.host] for number, typed in found.items()}


def pattern(line: str) -> re.Pattern[str]:
    """Return a pattern for a printed line: other numbers, other ids, any text for "…"."""
    text = re.sub(r"\b[0-9a-f]{32}\b|\d+(?:\.\d+)*(?: ?m?[smhd]\b)?", "0", line.strip())
    parts = (re.escape(part) for part in re.split("…", re.sub(r"\s+", " ", text)))
    return re.compile(".*".join(parts))


def misses(typed: Typed, printed: str) -> list[str]:
    """The lines of the page that were not printed."""
    lines = [re.sub(r"\s+", " ", _steady(line.strip())) for line in printed.splitlines()]
    return [
        line for line in typed.shown if not any(pattern(line).fullmatch(each) for each in lines)
    ]


def _steady(line: str) -> str:
    return re.sub(r"\b[0-9a-f]{32}\b|\d+(?:\.\d+)*(?: ?m?[smhd]\b)?", "0", line)


def follow(lab: Lab, number: int, edit: Callable[[], None] | None = None) -> None:
    """Type what a section says, and see what it shows."""
    for typed in sections()[number]:
        host = lab.hosts[typed.host]
        if typed.command.startswith("editor "):
            assert edit is not None
            edit()
            continue
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            done = host.run(["sh", "-c", typed.command], check=False, timeout_s=120)
            printed = done.stdout + done.stderr
            missing = misses(typed, printed)
            if not missing:
                break
            # The agent's next look may bring what the page shows.
            assert time.monotonic() < deadline, f"{typed.host}# {typed.command}\n{printed}"
            host.run(["sh", "-c", "agentctl wait --ready --timeout 1"], check=False)


@pytest.fixture
def lan(mesh: Lab) -> Iterator[Lab]:
    """Four hosts that are ready, with names and a container each on the first three."""
    one = mesh.hosts["host1"]
    if "names" not in one.agentctl("config", "show").stdout:
        one.agentctl("config", "set", "--level", "3")
        one.agentctl("config", "set", "--names", "on")
        for host in mesh.hosts.values():  # their Dockers restart once, one after the other
            wait_until(
                lambda host=host: "169.254.20.53" in host.read_file("/etc/docker/daemon.json"),  # type: ignore[misc]
                60,
                f"{host.name}'s Docker to use the name servers",
            )
        mesh.wait_ready(60)
        for number in (1, 2, 3):
            mesh.hosts[f"host{number}"].start_container(
                f"web{number}", options=["--restart=always"]
            )
    yield mesh
    for host in mesh.hosts.values():
        if host.proc() is None:
            host.boot()
    mesh.wait_ready(90)


def settings(host: Host, old: str, new: str) -> None:
    host.write_file(SETTINGS, host.read_file(SETTINGS).replace(old, new))


def restart_agent(host: Host) -> None:
    host.run(["systemctl", "restart", "--no-block", "hostmesh-agent"])


def forget(host: Host) -> None:
    """Start the agent as on a host that was never a member; its folder of names stays mounted."""
    host.run(["sh", "-c", "find /var/lib/hostmesh -maxdepth 1 -type f -delete"])
    restart_agent(host)


def leave(host: Host) -> None:
    """Leave the mesh; Docker is as before."""
    host.agentctl("leave", timeout_s=90)


def daemon_json(host: Host, text: str) -> None:
    host.write_file("/etc/docker/daemon.json", text)
    host.run(["systemctl", "restart", "docker"], timeout_s=90)


def test_1_no_agent(lan: Lab) -> None:
    lan.hosts["host3"].stop_agent()
    follow(lan, 1)


def test_2_settings_with_a_mistake(lan: Lab) -> None:
    host = lan.hosts["host3"]
    good = host.read_file(SETTINGS)
    settings(host, "endpoints", "endpoint")
    restart_agent(host)
    follow(lan, 2, lambda: host.write_file(SETTINGS, good))


def test_3_etcd_is_away(lan: Lab) -> None:
    lan.etcd["etcd1"].stop()
    try:
        follow(lan, 3)
    finally:
        lan.etcd["etcd1"].start()


def test_4_etcd_refuses_a_host(lan: Lab) -> None:
    etcd = lan.etcd["etcd1"]
    for words in ("user add root:pw", "user grant-role root root", "auth enable"):
        etcd.etcdctl(*words.split())
    try:
        restart_agent(lan.hosts["host3"])
        follow(lan, 4)
    finally:
        etcd.etcdctl("--user", "root:pw", "auth", "disable")


def test_5_no_config(lan: Lab) -> None:
    host = lan.hosts["host4"]
    leave(host)
    host.stop_agent()
    good = host.read_file(SETTINGS)
    endpoints = json.dumps(lan.endpoints())
    host.write_file(SETTINGS, f'[etcd]\nendpoints = {endpoints}\nprefix = "/hostmash"\n')
    forget(host)
    follow(lan, 5, lambda: host.write_file(SETTINGS, good))


def test_6_the_mesh_overlaps_a_network(lan: Lab) -> None:
    host = lan.hosts["host4"]
    leave(host)
    host.run(["ip", "address", "add", "10.99.0.1/24", "dev", "lo"])
    host.agentctl("join")
    follow(lan, 6)


def test_7_docker_must_restart(lan: Lab) -> None:
    host = lan.hosts["host4"]
    leave(host)
    host.start_container("old")
    host.agentctl("join")
    follow(lan, 7)
    host.remove_container("old")


def test_8_daemon_json_has_a_bip(lan: Lab) -> None:
    host = lan.hosts["host4"]
    leave(host)
    daemon_json(host, '{"bip": "172.30.0.1/16"}\n')
    host.agentctl("join")
    follow(lan, 8)
    leave(host)
    daemon_json(host, "{}\n")
    host.agentctl("join")


def test_9_a_clone(lan: Lab) -> None:
    host = lan.hosts["host4"]
    copied = lan.hosts["host2"].read_file("/etc/machine-id")
    leave(host)
    host.stop_agent()
    host.write_file("/etc/machine-id", copied)
    forget(host)
    follow(lan, 9)
    assert host.read_file("/etc/machine-id") != copied


def test_10_a_host_is_off(lan: Lab) -> None:
    lan.hosts["host3"].kill()
    wait_until(
        lambda: "peer-dead" in lan.hosts["host1"].conditions(), 60, "the silent host to be noticed"
    )
    follow(lan, 10)


def test_11_a_rule_of_the_operator(lan: Lab) -> None:
    host = lan.hosts["host1"]
    host.run(["iptables", "-I", "FORWARD", "-i", "eth0", "-j", "DROP"])
    try:
        follow(lan, 11)
    finally:
        host.run(["iptables", "-D", "FORWARD", "1"])


def test_12_a_route_of_another_program(lan: Lab) -> None:
    subnet = lan.hosts["host2"].lease() or ""
    page = next(each for each in sections()[12] if each.command.startswith("ip route del"))
    assert "10.109.0.0/16" in page.command
    host = lan.hosts["host1"]
    host.run(["ip", "route", "add", subnet, "via", "192.168.50.1", "metric", "1"])
    status, _, diff = sections()[12]
    wait_until(
        lambda: not misses(status, host.agentctl("status").stdout), 20, "the conflict to be shown"
    )
    host.run(["sh", "-c", page.command.replace("10.109.0.0/16", subnet)])
    wait_until(lambda: not misses(diff, host.agentctl("diff", check=False).stdout), 20, "no diff")


def test_13_a_source_check(lan: Lab) -> None:
    with lan.hosts["host2"].source_check():
        follow(lan, 13)


def test_14_a_closed_port(lan: Lab) -> None:
    host = lan.hosts["host2"]
    host.docker("network", "create", "app")
    host.start_container("db", network="app")
    try:
        follow(lan, 14)
    finally:
        host.remove_container("db")
        host.docker("network", "rm", "app")


def test_15_a_network_outside_the_lease(lan: Lab) -> None:
    host = lan.hosts["host2"]
    host.docker("network", "create", "--subnet", "172.25.0.0/24", "old")
    host.start_container("legacy", network="old")
    follow(lan, 15)
    host.remove_container("legacy")
    host.docker("network", "rm", "old")


def test_16_flushed_rules(lan: Lab) -> None:
    lan.hosts["host1"].run(["iptables", "-F"])
    follow(lan, 16)


def test_17_a_dns_of_the_operator(lan: Lab) -> None:
    host = lan.hosts["host4"]
    leave(host)
    daemon_json(host, '{"dns": ["192.168.50.5"]}\n')
    host.agentctl("join")
    lan.wait_ready(60)
    host.start_container("app")
    follow(lan, 17)
    host.remove_container("app")
    leave(host)
    daemon_json(host, "{}\n")
    host.agentctl("join")


def test_18_a_network_that_was_removed(lan: Lab) -> None:
    host = lan.hosts["host1"]
    host.agentctl("network", "create", "shop", timeout_s=60)
    host.start_container("front", network="shop")
    host.docker("stop", "-t", "0", "front")
    host.docker("network", "rm", "shop")
    wait_until(lambda: "network-id-gone" in host.conditions(), 30, "the network to be made again")
    follow(lan, 18)
    host.remove_container("front")
    host.agentctl("network", "rm", "shop", timeout_s=60)


@pytest.fixture(scope="module")
def tunnel(make_lab: Callable[[LabOptions], Lab]) -> Iterator[Lab]:
    """Two hosts with a router between them, and a container each."""
    with make_lab(TUNNEL) as lab:
        for number in (1, 2):
            lab.hosts[f"host{number}"].start_container(f"web{number}")
        yield lab


def test_19_a_dropped_port(tunnel: Lab) -> None:
    tunnel.drop_udp("lan2", [8472])
    try:
        follow(tunnel, 19)
    finally:
        tunnel.drop_udp("lan2")


def test_20_a_smaller_link(tunnel: Lab) -> None:
    assert tunnel.world is not None
    rule = "FORWARD -p udp --dport 8472 -m length --length 1401: -j DROP"
    tunnel.world.run(["iptables", "-A", *rule.split()])
    follow(tunnel, 20)


def test_every_section_has_a_test() -> None:
    tested = {int(found[1]) for name in globals() if (found := re.match(r"test_(\d+)_", name))}
    assert tested == set(sections())
