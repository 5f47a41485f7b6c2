"""A member of a mesh, for the tests of the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.daemon.member import CONTAINER, Member, make_agent, running
from tests.netns.netlab import Host, Lan
from tests.waiting import eventually


@pytest.fixture
def here(lan: Lan) -> Host:
    """192.0.2.1 on eth0 with a default gateway; 192.0.2.11 has the container 10.64.1.5."""
    made = lan.add("192.0.2.1/24")
    made.ip("route add default via 192.0.2.254")
    there = lan.add("192.0.2.11/24")
    there.ip(f"addr add {CONTAINER}/32 dev lo")
    return made


@pytest.fixture
def member(here: Host, tmp_path: Path) -> Iterator[Member]:
    agent = make_agent(here, tmp_path)
    with running(agent, here):
        made = Member(here, agent)
        made.joins()
        eventually(made.is_right, 10)
        yield made
