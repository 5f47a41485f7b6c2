"""The unit of wireguard-go: which device gets the owner mark."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.netns.netlab import Host

pytestmark = pytest.mark.netns

UNIT = Path(__file__).parents[3] / "systemd/hostmesh-wireguard.service"


def run(host: Host, key: str) -> list[int]:
    """Run the unit's commands under one key; return how each ended."""
    lines = [each.partition("=") for each in UNIT.read_text().splitlines()]
    commands = [shlex.split(value) for name, _, value in lines if name == key]
    return [host.call(subprocess.run, each, check=False).returncode for each in commands]


def test_promise_5_the_unit_does_not_start_beside_another_programs_device(host: Host) -> None:
    assert run(host, "ExecStartPre") == [0]
    host.ip("link add hm-wg type bridge")
    (refused,) = run(host, "ExecStartPre")
    assert refused != 0


def test_the_device_gets_the_owner_mark(host: Host) -> None:
    host.ip("link add hm-wg type bridge")
    assert run(host, "ExecStartPost") == [0]
    assert "alias hostmesh" in host.ip("link show hm-wg")
