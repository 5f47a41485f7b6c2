"""The name servers' own units on a booted machine: what an operator does to them loses no query."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.machines.dns_load import DnsLoad
from hostmesh_lab.machines.kinds import NAME_SERVERS, HostOptions
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

LAB = LabOptions(name="dnsboot", hosts=1, host=HostOptions(systemd=True))
UNITS = [f"hostmesh-dns@{address}.service" for address in NAME_SERVERS]


def state(host: BootedHost, address: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        host.run(["cat", f"/run/hostmesh-dns/{address}.json"]).stdout
    )
    return found


def _runs_again(host: BootedHost, unit: str, restarts: str) -> bool:
    shown = host.unit(unit, "ActiveState", "NRestarts")
    return shown["ActiveState"] == "active" and shown["NRestarts"] != restarts


def test_the_servers_run_confined_and_outlive_the_agent_and_kills(mesh: Lab) -> None:
    host = mesh.hosts["host1"]
    assert isinstance(host, BootedHost)
    addresses = host.addresses("lo")
    assert {f"{each}/32" for each in NAME_SERVERS} <= set(addresses)
    pids = [host.unit(unit, "MainPID")["MainPID"] for unit in UNITS]
    assert "0" not in pids
    for pid in pids:
        status = host.run(["cat", f"/proc/{pid}/status"]).stdout
        assert "CapEff:\t0000000000000000" in status
        assert "Uid:\t0\t" not in status
    for unit in UNITS:
        ordering = host.unit(unit, "Before")["Before"]
        assert "docker.service" in ordering
        score = host.run(["systemd-analyze", "security", "--no-pager", unit]).stdout.split()[-3]
        assert float(score) <= 1.7, score

    host.systemctl("restart", "hostmesh-agent.service")
    host.systemctl("restart", "docker.service")
    assert [host.unit(unit, "MainPID")["MainPID"] for unit in UNITS] == pids

    host.start_container("client", command=["sleep", "600"])
    with DnsLoad(host, "client", "world.example") as load:
        for unit in UNITS:
            restarts = host.unit(unit, "NRestarts")["NRestarts"]
            host.systemctl("kill", "--signal=9", unit)
            wait_until(lambda: _runs_again(host, unit, restarts), 20, f"{unit} again")  # noqa: B023
        for unit in UNITS:
            host.systemctl("restart", unit)
    assert load.asked > 100
    assert load.lost == 0, load

    host.reboot()
    assert {f"{each}/32" for each in NAME_SERVERS} <= set(host.addresses("lo"))
    for address in NAME_SERVERS:
        assert state(host, address)["upstreams"]
