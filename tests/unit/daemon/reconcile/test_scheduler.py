"""When the passes over the kernel come back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import cast

import pytest

from agent.daemon.reconcile.kernel_objects import ObjectsReport
from agent.daemon.reconcile.kernel_pass import KernelPass, RulesReport
from agent.daemon.reconcile.scheduler import Scheduler
from agent.daemon.state.timers import Timers
from agent.daemon.telemetry.condition_registry import ConditionRegistry
from agent.errors import KernelError
from agent.mesh.object_kinds import FDB, route_kind
from agent.mesh.world import World
from agent.reconcile.reconciler import Report

pytestmark = pytest.mark.unit


@dataclass
class Objects:
    sources_failed: bool = False


@dataclass
class HalfListed:
    """A kernel that refuses a route again and again, and cannot list one kind this time."""

    objects: Objects = field(default_factory=Objects)

    def build(self, _world: World, **_may: bool) -> ObjectsReport:
        routes = Report(kind=route_kind(140), desired=1, installed=0, again_in_s=60.0)
        unlisted = Report(kind=FDB, failed=1, error=KernelError("no buffer space"))
        return ObjectsReport((routes, unlisted), (), 60.0)

    def rules(self, _world: World) -> RulesReport:
        return RulesReport()


def test_a_kind_that_was_not_listed_does_not_wait_for_another_ones_pause() -> None:
    timers = Timers(time.monotonic)
    scheduler = Scheduler(
        kernel=cast("KernelPass", HalfListed()),
        conditions=ConditionRegistry(time.monotonic),
        timers=timers,
        check_s=3600,
    )
    scheduler.run(World(), may_delete=False, may_sweep=False, docker_seen=True)
    assert timers.wait_s(3600) < 5
