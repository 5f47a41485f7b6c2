"""Nothing newer than every host can read is published (promise 12)."""

from __future__ import annotations

import pytest

from agent.mesh.level import HeldBack
from agent.model import DockerState, Heartbeat, HostId
from agent.sharedmap import SharedMap

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
    ("level", "levels", "held"),
    [
        (1, (1, 1), []),
        (2, (2, 4), []),
        (2, (2, 1, 2), ["host1"]),
        (3, (2, 3), ["host0"]),
        (2, (), []),
    ],
)
def test_promise_12_a_host_that_reads_less_holds_the_level_back(
    level: int, levels: tuple[int, ...], held: list[str]
) -> None:
    found = HeldBack.of(beats(*levels), level).hosts.values()
    assert [each.host_name for each in found] == held


def test_following_costs_what_changed() -> None:
    """The heartbeats that did not change are not looked at again."""
    before = beats(2, 1, 2)
    held = HeldBack.of(before, 2)
    assert [each.host_name for each in held.hosts.values()] == ["host1"]
    assert held.follow(before, 2).hosts is held.hosts
    after = before.changed({HostId(f"{1:032x}"): beat(1, 2), HostId(f"{2:032x}"): beat(2, 1)})
    assert [each.host_name for each in held.follow(after, 2).hosts.values()] == ["host2"]
    assert not held.follow(after, 1).hosts
