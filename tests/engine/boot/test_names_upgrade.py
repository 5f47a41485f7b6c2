"""An upgrade of the package under a hundred queries a second loses no query."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hostmesh_lab.lab import Lab
from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.machines.dns_load import DnsLoad
from hostmesh_lab.machines.kinds import NAME_SERVERS
from hostmesh_lab.parallel import in_parallel
from hostmesh_lab.wait import wait_until

from tests.engine.boot import scenes
from tests.engine.boot.conftest import machine
from tests.engine.names.test_names import in_force

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(600)]

OUTSIDE = "world.example"
"""A name that the upstream alone answers."""
INSIDE = "web.host2.hostmesh.internal"


@pytest.fixture(scope="module")
def hosts(fresh: Lab, package: Path) -> list[BootedHost]:
    """Two members with names; host1 has a container that asks, host2 one with a name."""
    hosts = [machine(fresh, name) for name in ("host1", "host2")]
    for host in hosts:
        host.write_file("/etc/hostmesh/agent.toml", scenes.settings(fresh), mode=0o600)
    in_parallel(lambda host: host.install(package), hosts)
    fresh.wait_ready(90, [host.name for host in hosts])
    hosts[0].agentctl("config", "set", "--level", "3")
    hosts[0].agentctl("config", "set", "--names", "on")
    for host in hosts:
        wait_until(lambda host=host: in_force(host), 120, f"{host.name}'s Docker to have names")  # type: ignore[misc]
    fresh.wait_ready(90, [host.name for host in hosts])
    hosts[0].start_container("client", command=["sleep", "9999"])
    hosts[1].start_container("web")
    wait_until(lambda: resolves(hosts[0]), 30, f"the client to find {INSIDE}")
    return hosts


def resolves(host: BootedHost) -> bool:
    """Return whether both servers know the name for the container that asks."""
    done = host.agentctl("resolve", INSIDE, "--from", "client", "-o", "json", check=False)
    return {each["status"] for each in json.loads(done.stdout)["answers"]} == {"NOERROR"}


def servers(host: BootedHost) -> list[int]:
    """Return the processes of both name servers."""
    units = [f"hostmesh-dns@{address}.service" for address in NAME_SERVERS]
    return [int(host.unit(unit, "MainPID")["MainPID"]) for unit in units]


def test_an_upgrade_under_a_hundred_queries_a_second_loses_none(
    hosts: list[BootedHost], newer: Path
) -> None:
    host = hosts[0]
    agent, before = scenes.main_pid(host), servers(host)
    version = scenes.package_version(host)
    with DnsLoad(host, "client", OUTSIDE) as outside, DnsLoad(host, "client", INSIDE) as inside:
        host.install(newer)
        wait_until(lambda: scenes.main_pid(host) not in (0, agent), 60, "the new agent")
        wait_until(host.ready, 60, "the new agent to be ready")
    assert scenes.package_version(host) == f"{version}.next"
    after = servers(host)
    assert 0 not in after
    assert not set(after) & set(before), "both servers run the new version"
    for load in (outside, inside):
        print(load)
        assert load.asked > 100
        assert load.lost == 0, load
