"""A machine becomes a member by cloud-init's user data and a token, without ssh."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hostmesh_lab.lab import Lab
from hostmesh_lab.machines.booted import BootedHost

from tests.engine.boot import scenes
from tests.engine.boot.conftest import machine

pytestmark = [pytest.mark.engine, pytest.mark.full]

USER_DATA = Path(__file__).parents[3] / "deploy/cloud-init/user-data.yaml"
MADE = "/root/host2.token"


def subnet_of(host: BootedHost) -> str:
    return str(json.loads(host.run(["agentctl", "status", "-o", "json"]).stdout)["subnet"])


def test_a_machine_that_boots_with_a_token_is_a_member(fresh: Lab, package: Path) -> None:
    one, two = machine(fresh, "host1"), machine(fresh, "host2")
    one.write_file("/etc/hostmesh/agent.toml", scenes.settings(fresh), mode=0o600)
    one.install(package)
    fresh.wait_ready(60, ["host1"])
    one.run(["agentctl", "token", "create", "--host", "host2", "--without-account", MADE])
    token = one.read_file(MADE)

    deb = two.copy_in(package)
    text = USER_DATA.read_text().replace("<TOKEN, ONE LINE>", token.strip())
    data = yaml.safe_load(text.replace("<URL OF THE PACKAGE>", f"file://{deb}"))
    for file in data["write_files"]:
        two.write_file("/root/staged", file["content"])  # /run is no part of the disk
        two.run(["install", "-m", file["permissions"], "/root/staged", file["path"]])
    for command in data["runcmd"]:
        two.run(command, timeout_s=180)
    fresh.wait_ready(60, ["host2"])
    found = two.run(["hostmesh-agent", "--host-id"]).stdout.strip()
    assert found == json.loads(token)["id"]
    listed = json.loads(one.run(["agentctl", "leases", "-o", "json"]).stdout)["leases"]
    assert found in {each["host_id"] for each in listed}
    two.run(["test", "!", "-e", "/run/hostmesh.token"])
    subnet = subnet_of(two)

    two.reboot()
    fresh.wait_ready(90, ["host2"])
    assert subnet_of(two) == subnet
    assert two.run(["hostmesh-agent", "--host-id"]).stdout.strip() == found
