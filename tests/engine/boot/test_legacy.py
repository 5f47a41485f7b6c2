"""The hardened unit where iptables is the old one: another socket, and a lock of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.wait import wait_until

from tests.engine.boot import scenes
from tests.engine.boot.conftest import machine
from tests.engine.conftest import running_lab

pytestmark = [pytest.mark.engine, pytest.mark.full]


@pytest.fixture
def legacy(suite: str) -> Iterator[Lab]:
    """As `fresh`, with iptables-legacy on both machines."""
    options = LabOptions(
        name=f"legacy-{suite}",
        hosts=2,
        suite=suite,
        host=replace(scenes.FRESH, iptables="legacy"),
        cidr=None,
    )
    with running_lab(options) as lab:
        yield lab


def test_a_host_with_iptables_legacy_joins_is_kept_right_and_is_given_back(
    legacy: Lab, package: Path
) -> None:
    one, two = machine(legacy, "host1"), machine(legacy, "host2")
    before = scenes.left_behind(two)
    for host in (one, two):
        host.write_file("/etc/hostmesh/agent.toml", scenes.settings(legacy), mode=0o600)
        host.install(package)
        legacy.wait_ready(60, [host.name])
    web = {host.name: host.start_container("web") for host in (one, two)}
    assert one.ping(web["host2"], container="web")

    def ours(variant: str) -> list[str]:
        return [line for line in two.iptables("filter", variant=variant) if "HOSTMESH" in line]

    rules = ours("legacy")
    assert rules
    assert not ours("nft")
    jump = next(line for line in rules if " -j HOSTMESH" in line)
    two.run(["sh", "-c", f"iptables-legacy -w -D {jump.removeprefix('-A ')}"])
    assert ours("legacy") != rules
    wait_until(lambda: ours("legacy") == rules, 60, "the rules to be put back")
    assert two.conditions() == {}
    two.remove_container("web")
    two.run(["dpkg", "--purge", "hostmesh"], timeout_s=120)
    wait_until(lambda: two.system_state() == "running", 20, "calm again")
    assert scenes.lasting_differences(two, before, patience_s=10) == []
