"""The gate: Docker waits for its subnet, and never for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostmesh_lab.lab import Lab
from hostmesh_lab.machines.booted import BootedHost
from hostmesh_lab.wait import wait_until

from tests.engine.boot import scenes
from tests.engine.boot.scenes import FRESH

pytestmark = pytest.mark.engine

GATE = "hostmesh-docker-gate.service"
BOUND_S = 8
"""Instead of the unit's own bound, which would only take longer."""

DOCKERD = "/usr/local/sbin/dockerd-of-the-operator"
BROKEN = """#!/bin/sh
case "$*" in *--validate*) ;; *)
    grep -qs bip /etc/docker/daemon.json && set -- "$@" --storage-driver=nonsense ;; esac
exec /usr/sbin/dockerd "$@"
"""
"""Does not start with a lease."""


def new_machine(lab: Lab, package: Path, text: str) -> BootedHost:
    """A machine that has package and seed, and was never booted."""
    made = lab.join(FRESH, boot=False)
    assert isinstance(made, BootedHost)
    scenes.seed_package(made, package, text)
    made.drop_in(GATE, f"[Unit]\nJobTimeoutSec={BOUND_S}\n")
    return made


def test_an_etcd_in_a_container_of_the_same_host_does_not_deadlock(
    fresh: Lab, package: Path
) -> None:
    """The agent waits for etcd, etcd for Docker, Docker for the gate, and the gate for so long."""
    text = (
        '[etcd]\nendpoints = ["http://127.0.0.1:2379"]\n[mesh]\ncidr = "10.64.0.0/10"\n'
        '[host]\nuplink = "eth0"\n[docker]\nexpendable = ["etcd"]\n'
        "[lease]\nempty_cluster_grace_s = 0\n"
    )
    host = new_machine(fresh, package, text)
    host.power_on()
    wait_until(lambda: scenes.docker_starts(host) == 1, 60, "Docker was let go")
    shown = host.unit("agent", "ActiveState", "StatusText")
    assert shown["ActiveState"] == "activating"
    assert shown["StatusText"].startswith("waiting for a subnet; etcd-unreachable")
    gate = host.journal(GATE)
    assert [each for each in gate if "'timeout'" in str(each["MESSAGE"])]
    etcd = ["/usr/bin/etcd", "--data-dir", "/var/lib/etcd-in-docker"]
    options = ["--network=host", "--restart=always", "--volume=/:/host", "--entrypoint=chroot"]
    inspect = ["image", "inspect", "lab"]
    wait_until(lambda: host.docker(*inspect, check=False).returncode == 0, 20, "the image")
    host.docker("run", "-d", "--name=etcd", *options, "lab", "/host", *etcd)
    fresh.wait_ready(60, [host.name])
    assert scenes.docker_starts(host) == 2
    host.wait_booted(30)
    lease = host.status()["subnet"]
    host.reboot()
    fresh.wait_ready(60, [host.name])
    assert host.status()["subnet"] == lease
    assert scenes.docker_starts(host) == 1
    host.shut_down()


def test_promise_7_a_dockerd_that_fails_under_systemd_is_rolled_back_past_its_limit_of_starts(
    fresh: Lab, package: Path
) -> None:
    """No program restarted it: the gate let it start with the lease, and systemd gave up on it."""
    host = new_machine(fresh, package, scenes.settings(fresh))
    host.write_file(DOCKERD, BROKEN, mode=0o755)
    exec_start = f"ExecStart=\nExecStart={DOCKERD} -H fd://\n"
    host.drop_in("docker", f"[Service]\n{exec_start}RestartSec=200ms\n")
    host.power_on()
    found = host.wait_condition("docker-rolled-back", 90)
    # dockerd's own line, from the journal; 20.10 does not name the driver.
    assert "error initializing graphdriver" in found["cause"] or "nonsense" in found["cause"]
    assert scenes.docker_starts(host) >= 4, "three, and the one with the previous file"
    assert host.docker("info", check=False).returncode == 0
    assert host.unit("docker", "ActiveState")["ActiveState"] == "active"
    assert not host.path("/etc/docker/daemon.json").exists()
    host.drop_in("docker", "")
    host.agentctl("docker", "restart", "--now", "--yes", timeout_s=120)
    fresh.wait_ready(60, [host.name])
    assert "docker-rolled-back" not in host.conditions()
    host.shut_down()


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
