"""Promise 10: what one peer's change costs does not grow with the mesh."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.bench.control_path import large_mesh
from tests.netns.netlab import Host

pytestmark = pytest.mark.netns

_SMALL, _LARGE = 10, 2_000
_GATEWAYS = 250


@pytest.fixture
def alone() -> Iterator[Host]:
    host = Host("alone")
    host.ip("link add eth0 type veth peer name eth0-peer")
    host.ip("addr add 172.16.0.1/16 dev eth0")
    host.ip("link set eth0 up")
    host.ip("link set eth0-peer up")
    yield host
    host.close()


def calls(work: Callable[[], object]) -> int:
    """Return how many functions ``work`` calls, those written in C included."""
    found = 0

    def count(_frame: FrameType, event: str, _what: object) -> None:
        nonlocal found
        found += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return found


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the most memory that ``work`` takes at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def measured(folder: Path, peers: int) -> tuple[int, int]:
    """Return the calls and the bytes that a peer's new address takes among so many."""
    agent = large_mesh.Agent(folder, peers, _GATEWAYS)
    events = [large_mesh.new_address(1 + shift, shift, _GATEWAYS) for shift in range(1, 8)]
    for event in events[:5]:  # the first fill caches
        agent.follow(event)
    found = calls(lambda: agent.follow(events[5])), peak_bytes(lambda: agent.follow(events[6]))
    assert agent.scheduler.report.complete
    return found


def test_promise_10_a_change_among_2000_peers_costs_what_it_costs_among_10(
    alone: Host, tmp_path: Path
) -> None:
    found = []
    for peers in (_SMALL, _LARGE):
        folder = tmp_path / str(peers)
        folder.mkdir()
        found.append(alone.call(measured, folder, peers))
    (few_calls, few_bytes), (many_calls, many_bytes) = found
    assert many_calls < 1.5 * few_calls
    assert many_bytes < 1.5 * few_bytes
