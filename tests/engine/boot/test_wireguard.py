"""wireguard-go in its own unit on booted machines: the agent starts it and leaves it alone."""

from __future__ import annotations

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(900)]

UNIT = "hostmesh-wireguard.service"
BY_SYSTEMD: dict[str, dict[str, list[str]]] = {"wireguard": {"start_command": []}}
LAB = LabOptions(
    name="wgboot",
    hosts=2,
    host=HostOptions(systemd=True, settings=BY_SYSTEMD),
    backend={"Type": "wireguard"},
)


def pid_of(host: Host, unit: str) -> str:
    return host.run(["systemctl", "show", "-p", "MainPID", "--value", unit]).stdout.strip()


def reaches(host: Host, address: str) -> bool:
    done = host.run(["ping", "-c1", "-W1", address], check=False)
    return bool(done.returncode == 0)


def test_the_unit_outlives_the_agent_and_comes_back_after_a_reboot(mesh: Lab) -> None:
    one, two = mesh.hosts["host1"], mesh.hosts["host2"]
    assert isinstance(one, BootedHost)
    target = two.addresses("docker0")[0].partition("/")[0]
    wait_until(lambda: reaches(one, target), 120, "host2 through the tunnel")
    process = pid_of(one, UNIT)
    assert process != "0"
    one.run(["systemctl", "restart", "hostmesh-agent.service"])
    wait_until(lambda: one.status().get("state") == "ready", 60, "the agent to be ready")
    assert pid_of(one, UNIT) == process
    assert reaches(one, target)
    one.run(["systemctl", "kill", "-s", "KILL", UNIT])
    wait_until(lambda: pid_of(one, UNIT) not in {"0", process}, 30, "systemd to start it again")
    wait_until(lambda: reaches(one, target), 60, "the agent to fill the new device")
    one.reboot()
    mesh.wait_ready(120)
    wait_until(lambda: reaches(one, target), 60, "host2 after the reboot")
    one.agentctl("leave", "--force", timeout_s=120)
    wait_until(lambda: pid_of(one, UNIT) == "0", 20, "wireguard-go to end with its device")
