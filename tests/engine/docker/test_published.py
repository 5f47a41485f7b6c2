"""The records that a host publishes of its containers and networks follow its real Docker."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

LAB = LabOptions(name="mesh", hosts=3, host=HostOptions(reject_forward=True))
LAB_LAST = True  # a host loses its lease, and one leaves

_NAME = "published"


@pytest.fixture(autouse=True, scope="module")
def _level(mesh: Lab) -> None:
    mesh.hosts["host1"].agentctl("config", "set", "--level", "3")


@pytest.fixture
def web(mesh: Lab) -> Iterator[Host]:
    """A host with a part of mesh network shop and a container on it."""
    host = mesh.hosts["host1"]
    host.docker("network", "create", "--label", "hostmesh.network=shop", "shop")
    host.start_container(_NAME, options=["--network", "shop", "--network-alias", "api"])
    yield host
    host.docker("rm", "-f", _NAME, check=False)
    host.docker("network", "rm", "shop", check=False)
    if host.status().get("state") == "left":
        host.agentctl("join")
    mesh.wait_ready(60)


def containers(host: Host, name: str = _NAME) -> list[str]:
    """The addresses of containers of a name that a host knows of others."""
    found = json.loads(host.agentctl("containers", "-o", "json").stdout)["containers"]
    mine = [each for each in found if each["name"] == name]
    return [place["address"] for each in mine for place in each["addresses"]]


def keys(mesh: Lab, folder: str) -> dict[str, str]:
    """The records under a folder, with the etcd lease of each."""
    found = json.loads(mesh.etcdctl("get", "--prefix", f"/hostmesh/{folder}/", "-w", "json"))
    return {each["key"]: each.get("lease", 0) for each in found.get("kvs", ())}


def test_a_container_is_known_elsewhere_while_it_runs(mesh: Lab, web: Host) -> None:
    other = mesh.hosts["host2"]
    address = str(web.container_address(_NAME))
    wait_until(lambda: containers(other) == [address], 20, "the container to be known")
    assert len(keys(mesh, "slices")) == 1
    web.docker("stop", "-t", "0", _NAME)
    wait_until(lambda: not containers(other), 10, "the container to be gone")
    web.docker("start", _NAME)
    wait_until(lambda: containers(other), 10, "the container to be back")


def test_promise_6_a_killed_agent_withdraws_what_ended_meanwhile(mesh: Lab, web: Host) -> None:
    other = mesh.hosts["host2"]
    wait_until(lambda: containers(other), 20, "the container to be known")
    web.kill_agent(stay_down=True)
    web.docker("rm", "-f", _NAME)
    web.start_container("second", options=["--network", "shop"])
    assert containers(other), "an agent that is down withdraws nothing"
    web.start_agent()
    wait_until(lambda: containers(other, "second"), 30, "the new container to be known")
    assert not containers(other)
    assert len(keys(mesh, "slices")) == 1
    web.docker("rm", "-f", "second")


@pytest.mark.usefixtures("web")
def test_records_move_to_a_lease_that_was_claimed_again(mesh: Lab) -> None:
    other = mesh.hosts["host2"]
    wait_until(lambda: containers(other), 20, "the container to be known")
    before = keys(mesh, "endpoints")
    other.agentctl("remove", "--force", "host1")
    wait_until(lambda: containers(other), 30, "the container to be known again")

    def attached() -> bool:
        leases = set(keys(mesh, "subnets").values())
        found = {**keys(mesh, "endpoints"), **keys(mesh, "slices")}
        return len(found) >= len(before) and set(found.values()) <= leases

    wait_until(attached, 20, "all to hang on leases that are there")


def test_leaving_withdraws_everything_at_once(mesh: Lab, web: Host) -> None:
    other = mesh.hosts["host2"]
    wait_until(lambda: containers(other), 20, "the container to be known")
    own = web.status()["host"]["id"]
    web.agentctl("leave", "--force", check=False)  # the operator's network stays
    for folder in (f"endpoints/{own}", f"slices/{own}"):
        assert keys(mesh, folder) == {}
    assert not containers(other)
