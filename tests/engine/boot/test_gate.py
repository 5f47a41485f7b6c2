"""The gate: Docker waits for its subnet, and never for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostmesh_lab.booted import BootedHost
from hostmesh_lab.lab import Lab
from hostmesh_lab.wait import wait_until

from tests.engine.boot import scenes
from tests.engine.boot.scenes import FRESH

pytestmark = pytest.mark.engine

GATE = "hostmesh-docker-gate.service"
BOUND_S = 8
"""Instead of the unit's own bound, which would only take longer."""


def new_machine(lab: Lab, package: Path, text: str) -> BootedHost:
    """A machine that has package and seed, and was never booted."""
    made = lab.join(FRESH, boot=False)
    assert isinstance(made, BootedHost)
    scenes.seed_package(made, package, text)
    made.drop_in(GATE, f"[Unit]\nJobTimeoutSec={BOUND_S}\n")
    return made


def test_docker_is_held_back_no_longer_than_the_bound(fresh: Lab, package: Path) -> None:
    """As when etcd is to run in a container of the same host: then all wait for each other."""
    text = (
        '[etcd]\nendpoints = ["http://127.0.0.1:2379"]\n[mesh]\ncidr = "10.64.0.0/10"\n'
        '[host]\nuplink = "eth0"\n[docker]\nexpendable = ["etcd"]\n'
    )
    host = new_machine(fresh, package, text)
    host.power_on()
    wait_until(lambda: scenes.docker_starts(host) == 1, 60, "Docker was let go")
    shown = host.unit("agent", "ActiveState", "StatusText")
    assert shown["ActiveState"] == "activating"
    assert shown["StatusText"].startswith("waiting for a subnet; etcd-unreachable")
    assert [each for each in host.journal(GATE) if "'timeout'" in str(each["MESSAGE"])]
    host.kill()


def test_an_agent_that_cannot_start_holds_nothing_back_and_is_never_given_up(
    fresh: Lab, package: Path
) -> None:
    """It is tried again and again; a corrected settings file is enough."""
    host = new_machine(fresh, package, "[etcd]\nendpoint = []\n")
    host.power_on()
    wait_until(lambda: scenes.docker_starts(host) == 1, 60, "Docker starts")
    assert not [each for each in host.journal(GATE) if "'timeout'" in str(each["MESSAGE"])]
    assert host.unit(GATE, "ConditionResult", "ActiveState")["ActiveState"] == "inactive"
    wait_until(lambda: int(host.unit("agent", "NRestarts")["NRestarts"]) >= 1, 30, "tried again")
    host.write_file("/etc/hostmesh/agent.toml", scenes.settings(fresh), mode=0o600)
    fresh.wait_ready(60, [host.name])
    host.shut_down()
