"""The unit of a check on a booted machine: it may send from a container, and little else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(600)]

UNIT = "hostmesh-check.service"
LAB = LabOptions(
    name="checkboot",
    hosts=2,
    host=HostOptions(systemd=True, settings={"check": {"every_s": 5}}),
)
LAB_LAST = True


def last(host: BootedHost) -> dict[str, Any]:
    done = host.agentctl("check", "--last", "-o", "json", check=False)
    found: dict[str, Any] = json.loads(done.stdout or '{"state": "none"}')
    return found


def test_promise_9_the_agent_has_its_unit_test_the_container_path(mesh: Lab) -> None:
    hosts = [mesh.hosts["host1"], mesh.hosts["host2"]]
    for host in hosts:
        host.start_container(f"c-{host.name}")
    one = hosts[0]
    assert isinstance(one, BootedHost)
    wait_until(lambda: last(one)["state"] == "ok", 90, "the agent's own check, of containers")
    (peer,) = last(one)["peers"]
    path = next(each for each in peer["tests"] if each["test"] == "path")
    assert "container c-host1" in path["text"]
    shown = one.unit(UNIT, "Result", "UnitFileState")
    assert shown == {"Result": "success", "UnitFileState": "static"}
    score = one.run(["systemd-analyze", "security", "--no-pager", UNIT]).stdout.split()[-3]
    assert float(score) <= 4.5, score

    # A peer that is down is no failure of the unit.
    hosts[1].stop_agent()
    one.systemctl("start", UNIT)
    hosts[1].start_agent()
    assert one.unit(UNIT, "Result")["Result"] == "success"
