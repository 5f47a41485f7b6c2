"""Following levels from heartbeats to heartbeats is the same as looking at all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.mesh.level import HeldBack
from agent.model import Heartbeat, HostId
from agent.sharedmap import SharedMap
from tests.unit.routes.test_level import beat

pytestmark = pytest.mark.property

changes = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, 9), st.none() | st.integers(1, 3), max_size=4),
        st.integers(1, 3),
    ),
    max_size=8,
)


@given(changes)
def test_promise_12_following_is_the_same_as_looking_at_all(
    steps: list[tuple[dict[int, int | None], int]],
) -> None:
    beats: SharedMap[HostId, Heartbeat] = SharedMap()
    held = HeldBack()
    for step, level in steps:
        beats = beats.changed(
            {
                HostId(f"{number:032x}"): None if reads is None else beat(number, reads)
                for number, reads in step.items()
            }
        )
        held = held.follow(beats, level)
        assert held == HeldBack.of(beats, level)
        lowest = min((each.level for each in beats.values()), default=level)
        assert bool(held.hosts) == (lowest < level)
