"""Members that boot: they come back as they were, and whatever is done to the agent, packets pass.

The tests of this file use the same machines, one after the other.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hostmesh_lab.lab import Lab
from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.machines.capture import Pinger
from hostmesh_lab.wait import wait_until

from tests.engine import impostor
from tests.engine.boot import etcdkit, scenes
from tests.engine.boot.conftest import machine
from tests.engine.boot.scenes import FRESH

pytestmark = pytest.mark.engine

KEEP = ["--restart=always"]


@dataclass
class Mesh:
    """Two members whose package was installed while Docker ran, with a container on each."""

    lab: Lab
    one: BootedHost
    two: BootedHost
    web: dict[str, str]
    before: list[str]
    install_s: float
    starts: dict[str, int] = field(default_factory=dict)
    third: BootedHost | None = None


@pytest.fixture(scope="module")
def mesh(fresh: Lab, package: Path) -> Mesh:
    one, two = machine(fresh, "host1"), machine(fresh, "host2")
    before = scenes.left_behind(two)
    first = {host.name: scenes.docker_starts(host) for host in (one, two)}
    for host in (one, two):
        host.write_file("/etc/hostmesh/agent.toml", scenes.settings(fresh), mode=0o600)
    since_s = time.monotonic()
    one.install(package)
    fresh.wait_ready(60, ["host1"])
    two.install(package)
    fresh.wait_ready(60, ["host2"])
    starts = {host.name: scenes.docker_starts(host) - first[host.name] for host in (one, two)}
    web = {host.name: host.start_container("web", options=KEEP) for host in (one, two)}
    took_s = scenes.until_reply_s(one, web["host2"], since_s, 20)
    return Mesh(fresh, one, two, web, before, took_s, starts)


def test_a_package_that_is_installed_makes_a_member_without_another_word(mesh: Mesh) -> None:
    """The agent restarts Docker before it says READY, and neither waits for the other."""
    assert mesh.starts == {"host1": 1, "host2": 1}
    for host in (mesh.one, mesh.two):
        shown = host.unit("agent", "ActiveState", "NRestarts", "StatusText", "UnitFileState")
        assert shown["ActiveState"] == "active"
        assert shown["NRestarts"] == "0"
        assert shown["UnitFileState"] == "enabled"
        assert "from etcd" in shown["StatusText"]
    assert mesh.two.ping(mesh.web["host1"], container="web")
    print(
        f"two installs, one after the other, to the first cross-host reply: {mesh.install_s:.1f} s"
    )


def test_the_unit_that_runs_is_the_hardened_one(mesh: Mesh) -> None:
    checked = mesh.one.run(
        ["systemd-analyze", "security", "--no-pager", "hostmesh-agent.service"], check=False
    ).stdout
    exposure = float(checked.strip().splitlines()[-1].split(": ")[1].split()[0])
    print(f"systemd-analyze security hostmesh-agent.service: {exposure}")
    assert exposure <= 3.0
    status = mesh.one.read_file(f"/proc/{scenes.main_pid(mesh.one)}/status")
    values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    # CAP_CHOWN, CAP_NET_ADMIN, CAP_NET_RAW
    assert int(values["CapEff"], 16) == int(values["CapBnd"], 16) == 1 << 0 | 1 << 12 | 1 << 13
    assert values["NoNewPrivs"] == "1"
    assert values["Seccomp"] == "2"
    names = ["hostmesh-agent.service", "hostmesh-docker-gate.service"]
    verified = mesh.one.run(["systemd-analyze", "verify", "--man=no", *names], check=False)
    assert "hostmesh" not in verified.stdout + verified.stderr


def test_what_the_package_brings_for_other_programs_is_used_by_them(mesh: Mesh) -> None:
    """The protocol's name, networkd's and the log's settings, completion in a shell."""
    host = mesh.one
    shown = host.run(["ip", "-4", "route", "show", "proto", "hostmesh"]).stdout
    assert f"via {mesh.two.address} dev eth0" in shown
    assert " proto hostmesh" in host.run(["ip", "-4", "route"]).stdout
    read = host.run(["systemd-analyze", "--no-pager", "cat-config", "systemd/networkd.conf"]).stdout
    assert "\nManageForeignRoutes=no\n" in read
    assert host.unit("agent", "LogRateLimitBurst")["LogRateLimitBurst"] == "2000"
    assert [x for x in host.journal("agent") if x["SYSLOG_IDENTIFIER"] == "hostmesh-agent"]
    complete = (
        ". /usr/share/bash-completion/completions/agentctl; COMP_WORDS=(agentctl remove '')"
        "; COMP_CWORD=2; $(complete -p agentctl | sed 's/.*-F \\([^ ]*\\).*/\\1/');"
        " printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    assert "host2" in host.run(["bash", "-c", complete]).stdout.splitlines()


def test_promise_11_a_users_process_that_is_called_dockerd_changes_nothing(mesh: Mesh) -> None:
    host, table = mesh.one, "from agent.docker.service.dockerd_process import DockerdFinder"
    with impostor.running(host) as pid:
        host.systemctl("restart", "docker")
        host.restart_agent()
        mesh.lab.wait_ready(30, ["host1"])
        host.docker("network", "create", "--subnet", "172.30.0.0/24", "seen")
        try:
            host.wait_condition("network-not-routable", 20)
            assert set(host.conditions()) == {"network-not-routable"}
        finally:
            host.docker("network", "rm", "seen")
        program = f"{table}; print(DockerdFinder().dockerd().pid)"
        found = int(host.run(["/usr/lib/hostmesh/bin/python3", "-I", "-c", program]).stdout)
        assert found == int(host.unit("docker", "MainPID")["MainPID"]) != pid
        assert len(impostor.dockerds_of_root(host)) == 1
        assert scenes.is_gone(host, impostor.SOCKET)


def test_a_reload_is_refused_whole_or_done_at_once(mesh: Mesh) -> None:
    host, pid = mesh.one, scenes.main_pid(mesh.one)
    good = scenes.settings(mesh.lab)
    host.write_file(
        "/etc/hostmesh/agent.toml", good + '[log]\nlevel = "debug"\n[routes]\nrsync_s = 1\n'
    )
    refused = host.systemctl("reload", "hostmesh-agent", check=False)
    assert refused.returncode != 0
    assert "rsync_s" in host.log("agent")
    assert "settings-refused" in host.conditions()
    assert not [line for line in host.log("agent").splitlines() if '"level": "debug"' in line]
    changed = '[log]\nformat = "console"\n[agent]\nsocket_group = "systemd-journal"\n'
    host.write_file("/etc/hostmesh/agent.toml", good + changed)
    host.systemctl("reload", "hostmesh-agent")
    assert "settings-refused" not in host.conditions()
    assert "agent.socket_group" in host.conditions()["settings-need-restart"]["cause"]
    assert [line for line in host.log("agent").splitlines() if " settings-read " in line]
    assert scenes.main_pid(host) == pid
    host.restart_agent()
    mesh.lab.wait_ready(30, [host.name])
    assert host.conditions() == {}
    group = host.run(["stat", "-c", "%G %a", "/run/hostmesh/agent.sock"]).stdout.split()
    assert group == ["systemd-journal", "660"]
    host.write_file("/etc/hostmesh/agent.toml", good)
    host.run(["sh", "-c", f"kill -HUP {scenes.main_pid(host)}"])
    wait_until(lambda: "settings-need-restart" in host.conditions(), 10, "SIGHUP reads them too")


def test_promise_3_stopping_the_agent_leaves_the_data_path_alone(mesh: Mesh) -> None:
    with scenes.Watched(mesh.two, "web", mesh.web["host1"]) as pings:
        mesh.one.stop_agent()
        assert mesh.one.mesh_routes()
        mesh.one.start_agent()
        mesh.lab.wait_ready(30, ["host1"])
    assert pings.missed() == []


def test_an_agent_that_hangs_is_restarted_and_no_packet_is_lost(mesh: Mesh) -> None:
    host = mesh.one
    host.drop_in("agent", "[Service]\nWatchdogSec=4\n")
    host.restart_agent()
    mesh.lab.wait_ready(30, ["host1"])
    pid = scenes.main_pid(host)
    with scenes.Watched(mesh.two, "web", mesh.web["host1"]) as pings:
        host.pause_agent()
        wait_until(lambda: scenes.main_pid(host) not in (0, pid), 30, "another agent")
        mesh.lab.wait_ready(30, ["host1"])
    assert pings.missed() == []
    said = host.log("agent")
    assert "Watchdog timeout" in said
    assert "Current thread" in said or "Thread 0x" in said


def test_promise_3_an_upgrade_of_the_package_loses_no_packet(mesh: Mesh, newer: Path) -> None:
    host = mesh.one
    pid, version = scenes.main_pid(host), scenes.package_version(host)
    starts = scenes.docker_starts(host)
    with scenes.Watched(mesh.two, "web", mesh.web["host1"]) as pings:
        host.install(newer)
        wait_until(lambda: scenes.main_pid(host) not in (0, pid), 20, "the new agent")
        mesh.lab.wait_ready(30, ["host1"])
    assert scenes.package_version(host) == f"{version}.next"
    assert pings.missed() == []
    print(f"upgrade: {len(pings.replies)} pings at 10 ms, none lost")
    assert scenes.docker_starts(host) == starts


def test_an_agent_that_is_disabled_and_runs_is_no_old_one_after_an_upgrade(
    mesh: Mesh, package: Path
) -> None:
    """Its program is replaced under it; disabled it stays."""
    host = mesh.one
    host.systemctl("disable", "hostmesh-agent.service")
    pid = scenes.main_pid(host)
    host.install(package)
    wait_until(lambda: scenes.main_pid(host) not in (0, pid), 20, "the new agent")
    mesh.lab.wait_ready(30, ["host1"])
    assert host.unit("agent", "UnitFileState")["UnitFileState"] == "disabled"
    host.systemctl("enable", "hostmesh-agent.service")


def test_promise_2_a_member_that_reboots_comes_back_with_its_subnet(mesh: Mesh) -> None:
    host = mesh.one
    lease, address = host.lease(), mesh.web["host1"]
    pings = Pinger(mesh.two, address, every_s=0.05)
    pings.wait_reply(10, "the container before the reboot")
    took_s = host.reboot()
    mesh.lab.wait_ready(30, ["host1"])
    wait_until(lambda: str(host.container_address("web")) == address, 20, "the same address")
    wait_until(lambda: mesh.two.ping(address), 10, "the container answers again")
    pings.stop()
    assert host.lease() == lease
    assert scenes.docker_starts(host) == 1
    assert not [x for x in host.journal("agent") if "docker-restart-due" in str(x.get("MESSAGE"))]
    silence_s = scenes.longest_silence_s(pings)
    print(f"reboot: {took_s:.1f} s, its container silent for {silence_s:.1f} s")
    print(host.run(["systemd-analyze", "critical-chain", "--no-pager", "docker.service"]).stdout)


def test_promise_5_a_boot_has_no_moment_at_which_strangers_reach_a_container(mesh: Mesh) -> None:
    """FORWARD accepts, and the agent is kept from Docker's API long after containers run."""
    host, stranger = mesh.one, mesh.lab.stranger
    assert stranger is not None
    late = "/run/docker-late.sock"
    settings = f'{scenes.settings(mesh.lab)}[docker]\nsocket = "{late}"\n'
    host.write_file("/etc/hostmesh/agent.toml", settings, mode=0o600)
    host.write_file("/etc/sysctl.d/90-router.conf", "net.ipv4.ip_forward = 1\n")
    address = mesh.web["host1"]
    stranger.run(["ip", "route", "replace", host.lease() or "", "via", host.address])
    with scenes.Knocking(stranger, address, 80) as knocking:
        knocking.wait_asked(1)
        host.shut_down()
        host.power_on()
        wait_until(lambda: scenes.runs(host, "web"), 60, "the container runs again")
        assert str(host.container_address("web")) == address
        assert ":FORWARD ACCEPT" in "\n".join(host.iptables())
        knocking.wait_asked(knocking.asked + 50)
        assert knocking.answered == []
        assert not mesh.two.ping(address, wait_s=1), "what opens waits for Docker's answer"
        host.run(["ln", "-s", "/run/docker.sock", late])
        mesh.lab.wait_ready(60, [host.name])
        wait_until(lambda: mesh.two.ping(address, wait_s=1), 20, "the mesh reaches it")
        knocking.wait_asked(knocking.asked + 50)
        assert knocking.answered == []
    host.path("/etc/sysctl.d/90-router.conf").unlink()
    host.write_file("/etc/hostmesh/agent.toml", scenes.settings(mesh.lab), mode=0o600)
    host.restart_agent()
    mesh.lab.wait_ready(30, [host.name])


def test_promise_3_a_member_that_reboots_without_etcd_works_from_its_copy(mesh: Mesh) -> None:
    host, address = mesh.one, mesh.web["host1"]
    etcd = mesh.lab.etcd["etcd1"]
    etcd.stop()
    try:
        host.reboot()
        shown = host.unit("agent", "ActiveState", "StatusText")
        assert shown["ActiveState"] == "active"
        assert "from this host's copy" in shown["StatusText"]
        assert scenes.docker_starts(host) == 1
        wait_until(lambda: mesh.two.ping(address, container="web"), 20, "reached without etcd")
        assert host.ping(mesh.web["host2"], container="web")
    finally:
        etcd.start()
    # Ready they are without etcd; the next test wants a watch that hears of a new host.
    wait_until(lambda: mesh.one.conditions() == {} == mesh.two.conditions(), 40, "etcd is heard")
    mesh.lab.wait_ready(20, ["host1", "host2"])


def test_a_machine_that_boots_for_the_first_time_joins_and_nobody_types(
    mesh: Mesh, package: Path
) -> None:
    """Package and seed are in the image. Docker starts once, with its subnet."""
    made = mesh.lab.join(FRESH, boot=False)
    assert isinstance(made, BootedHost)
    scenes.seed_package(made, package, scenes.settings(mesh.lab))
    made.write_file(
        "/etc/systemd/system/web.service",
        "[Unit]\nAfter=lab-image.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        "ExecStart=docker run --detach --restart=always --name web lab\n",
    )
    mesh.third = made
    made.write_file(
        "/etc/systemd/system/multi-user.target.d/web.conf", "[Unit]\nWants=web.service\n"
    )
    since_s = time.monotonic()
    made.boot()
    address = made.container_address("web")
    took_s = scenes.until_reply_s(mesh.one, address, since_s, 20)
    print(f"first boot, power to cross-host reply: {took_s:.1f} s")
    for host in (mesh.one, mesh.two):
        assert host.ping(address, container="web")
        assert made.ping(mesh.web[host.name], container="web")
    assert scenes.docker_starts(made) == 1
    assert made.unit("hostmesh-docker-gate.service", "Result")["Result"] == "success"
    assert made.conditions() == {}
    modes = made.run(["stat", "-c", "%a %n", "/etc/docker", "/etc/docker/daemon.json"]).stdout
    assert modes.splitlines() == ["755 /etc/docker", "644 /etc/docker/daemon.json"]
    mesh.lab.wait_ready(20)


def test_the_etcd_kit_runs_on_machines_and_a_host_can_join_it(mesh: Mesh) -> None:
    """deploy/etcd as its users run it: certificates, three units, one account for each host."""
    assert mesh.third is not None
    hosts = {f"etcd{n}": host for n, host in enumerate((mesh.one, mesh.two, mesh.third), 1)}
    kit = etcdkit.Kit(hosts)
    try:
        kit.start()
        for host in hosts.values():
            shown = host.unit(etcdkit.UNIT, "ActiveState", "User")
            assert shown == {"ActiveState": "active", "User": "etcd"}
        kit.enable()
        checked = kit.doctor(mesh.third)
        states = {each["check"]: each["state"] for each in checked["checks"]}
        assert states["etcd endpoint"] == states["etcd account"] == states["clock"] == "ok", checked
        # A member that dies is started again; the other two need a new leader at the most.
        pid = int(mesh.one.unit(etcdkit.UNIT, "MainPID")["MainPID"])
        mesh.one.run(["kill", "-9", str(pid)])
        for host in (mesh.two, mesh.one):
            wait_until(lambda host=host: kit.healthy(host), 20, f"{host.name}'s member")  # type: ignore[misc]
        assert mesh.one.unit(etcdkit.UNIT, "NRestarts")["NRestarts"] == "1"
    finally:
        kit.remove()


def test_a_removal_returns_the_host_to_what_it_was(mesh: Mesh) -> None:
    """Line by line: daemon.json, routes, rules, sets, sysctls, units, files; a purge forgets."""
    host = mesh.two
    host.remove_container("web")
    had = host.lease()
    host.run(["dpkg", "--remove", "hostmesh"], timeout_s=120)
    assert host.mesh_routes() == []
    assert not [line for line in host.iptables() if "HOSTMESH" in line]
    assert "ActiveState=inactive" in host.systemctl("show", "hostmesh-agent").stdout
    assert scenes.is_gone(host, "/usr/bin/agentctl")
    assert scenes.is_gone(host, "/run/hostmesh")
    assert scenes.is_gone(host, "/etc/docker/daemon.json")
    assert str(had) not in [each["subnet"] for each in mesh.one.leases()]
    kept = ["/etc/hostmesh/agent.toml", "/var/lib/hostmesh/state.json",
            "/etc/iproute2/rt_protos.d/hostmesh.conf"]  # fmt: skip
    assert not [path for path in kept if scenes.is_gone(host, path)]
    host.run(["dpkg", "--purge", "hostmesh"], timeout_s=120)
    wait_until(lambda: host.system_state() == "running", 20, "calm again")
    assert scenes.lasting_differences(host, mesh.before, patience_s=10) == []


@pytest.mark.full
def test_apt_installs_and_upgrades_the_package_from_a_folder(
    mesh: Mesh, package: Path, newer: Path
) -> None:
    host = mesh.two
    scenes.clear(host)  # the test before has, where it was selected, too
    host.write_file("/etc/hostmesh/agent.toml", scenes.settings(mesh.lab), mode=0o600)
    host.add_repository([package])
    assert "Setting up hostmesh" in host.apt("install", "hostmesh")
    mesh.lab.wait_ready(60, [host.name])
    host.add_repository([newer])
    assert "hostmesh-next.deb" in host.apt("--print-uris", "install", "hostmesh")
    host.apt("install", "hostmesh")
    version = host.run(["dpkg-query", "--show", "--showformat=${Version}", "hostmesh"]).stdout
    assert version.endswith(".next")
    host.apt("purge", "hostmesh")
    assert scenes.is_gone(host, "/usr/bin/agentctl")
