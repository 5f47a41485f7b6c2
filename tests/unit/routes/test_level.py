"""Nothing newer than every host can read is published (promise 12)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.mesh.level import HeldBack, may_publish
from agent.model import DockerState, Heartbeat, HostId
from agent.sharedmap import SharedMap
from tests.unit.small_mesh import CONFIG

pytestmark = pytest.mark.unit


def beat(number: int, level: int) -> Heartbeat:
    return Heartbeat(
        host_id=HostId(f"{number:032x}"),
        host_name=f"host{number}",
        node_address=None,
        subnet=None,
        docker=DockerState.READY,
        agent_version="0.1.1",
        boot_id="b",
        started_s=1.0,
        level=level,
    )


def beats(*levels: int) -> SharedMap[HostId, Heartbeat]:
    made = [beat(number, level) for number, level in enumerate(levels)]
    return SharedMap({each.host_id: each for each in made})


@pytest.mark.parametrize(
    ("level", "configured", "levels", "allowed"),
    [
        (1, None, (), True),
        (1, 1, (1, 1), True),
        (2, None, (2,), False),
        (2, 1, (2, 2), False),
        (2, 2, (2, 2), True),
        (2, 3, (2, 4), True),
        (2, 2, (2, 1, 2), False),
        (3, 3, (2, 3), False),
        (2, 2, (), True),
    ],
)
def test_promise_12_config_and_every_heartbeat_must_have_the_level(
    level: int, configured: int | None, levels: tuple[int, ...], allowed: bool
) -> None:
    config = None if configured is None else replace(CONFIG, level=configured)
    assert may_publish(level, config, beats(*levels)) is allowed


def test_following_costs_what_changed() -> None:
    """The heartbeats that did not change are not looked at again."""
    before = beats(2, 1, 2)
    held = HeldBack.of(before, 2)
    assert [each.host_name for each in held.hosts.values()] == ["host1"]
    assert held.follow(before, 2).hosts is held.hosts
    after = before.changed({HostId(f"{1:032x}"): beat(1, 2), HostId(f"{2:032x}"): beat(2, 1)})
    assert [each.host_name for each in held.follow(after, 2).hosts.values()] == ["host2"]
    assert not held.follow(after, 1).hosts
