"""Some minutes of the walk that `make soak` takes for hours (tests/soak)."""

from __future__ import annotations

import pytest
from hostmesh_lab.lab import Lab

from tests.soak.walk import Limit, options, walk

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(1800)]

LAB = options(4)
LAB_LAST = True
SEED, STEPS = 3890, 16
"""Among these steps are faults of agents, hosts and etcd, a backend, a network and a wipe."""


def test_promises_2_3_6_and_10_hold_on_a_walk(mesh: Lab) -> None:
    walk(mesh, SEED, Limit(steps=STEPS))
