"""Which endpoint a host asks first, and which one next."""

from __future__ import annotations

from collections import Counter

import pytest

from agent.etcd.connections import ConnectionPool
from agent.settings import EtcdSettings

pytestmark = pytest.mark.unit

_ENDPOINTS = tuple(f"http://192.0.2.{number}:2379" for number in (1, 2, 3))


def _pool() -> ConnectionPool:
    return ConnectionPool(EtcdSettings(endpoints=_ENDPOINTS))


def _tried(pool: ConnectionPool, count: int) -> list[str]:
    """Return the endpoints of so many tries, each of which fails."""
    found = []
    for _ in range(count):
        connection = pool.current()
        found.append(connection.endpoint)
        pool.leave(connection, "a test")
    pool.close()
    return found


def test_promise_1_hosts_that_know_no_cluster_ask_the_same_endpoint_first() -> None:
    """If their settings mix two clusters, they meet in one."""
    assert _tried(_pool(), 4) == [*_ENDPOINTS, _ENDPOINTS[0]]


def test_hosts_that_know_the_cluster_use_all_members() -> None:
    first: Counter[str] = Counter()
    for _ in range(300):
        pool = _pool()
        pool.spread()
        tried = _tried(pool, 4)
        assert sorted(tried[:3]) == sorted(_ENDPOINTS)  # a call tries each of them
        assert tried[3] == tried[0]
        first[tried[0]] += 1
    assert min(first[each] for each in _ENDPOINTS) > 50


def test_hosts_that_leave_one_member_do_not_all_go_to_the_same_one() -> None:
    following = set()
    for _ in range(100):
        pool = _pool()
        assert pool.current().endpoint == _ENDPOINTS[0]
        pool.spread()  # the mesh's cluster became known by its answer
        first, following_one = _tried(pool, 2)
        assert first == _ENDPOINTS[0]  # a stream runs there
        following.add(following_one)
    assert following == set(_ENDPOINTS[1:])


def test_an_endpoint_stays_current_when_others_are_found() -> None:
    pool = _pool()
    pool.spread()
    now = pool.current().endpoint
    pool.use(("http://192.0.2.9:2379", *_ENDPOINTS))
    assert pool.current().endpoint == now
    assert pool.endpoints == ("http://192.0.2.9:2379", *_ENDPOINTS)
    pool.close()
