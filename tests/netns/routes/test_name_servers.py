"""The name servers' addresses on lo: brought back, never taken away, and no other is touched."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from agent.daemon.reconcile.kernel_objects import KernelObjects
from agent.kernel.tables.routes import RouteTable
from agent.mesh.world import World
from agent.model import NETWORKS_LEVEL
from tests.netns.netlab import Host
from tests.netns.routes.scene import scene, world_of

pytestmark = pytest.mark.netns

SERVERS = ("169.254.20.53/32", "169.254.20.54/32")
OTHER = "169.254.20.55/32"


def named(world: World, domain: str = "mesh.example") -> World:
    assert world.config is not None
    return replace(world, config=replace(world.config, domain=domain, level=NETWORKS_LEVEL))


def on_lo(host: Host) -> set[str]:
    words = host.ip("-4 -o address show dev lo").split()
    return {words[n + 1] for n, word in enumerate(words) if word == "inet"} - {"127.0.0.1/8"}


def test_promise_5_only_the_two_addresses_are_kept_and_none_is_deleted(host: Host) -> None:
    one = scene(host)
    one.ip(f"address add {OTHER} dev lo")
    objects = KernelObjects(RouteTable(), 140, time.monotonic)

    def run(world: World) -> bool:
        report = one.call(lambda: objects.run(world, may_delete=True, may_sweep=True))
        return report.complete

    plain = world_of(one)
    assert run(plain)
    assert on_lo(one) == {OTHER}
    assert run(named(plain))
    assert on_lo(one) == {OTHER, *SERVERS}
    one.ip(f"address del {SERVERS[0]} dev lo")
    objects.look_again()
    assert run(named(plain))
    assert on_lo(one) == {OTHER, *SERVERS}
    assert run(plain), "containers that run still ask there"
    assert on_lo(one) == {OTHER, *SERVERS}
    assert run(named(plain))
    one.call(objects.remove_all)
    assert on_lo(one) == {OTHER, *SERVERS}
