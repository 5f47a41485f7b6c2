"""A watch of several ranges on one stream of a real etcd."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from agent.etcd import kv
from agent.etcd.client import EtcdClient
from agent.etcd.kv import Event
from agent.etcd.watch import WatchStream
from tests.etcd.support.etcdlab import Etcd, settings

pytestmark = pytest.mark.etcd

_RANGES = ((b"/w/a", b"/w/e"), (b"/w/f", b"/w/z"))


@pytest.fixture
def client(etcd: Etcd) -> Iterator[EtcdClient]:
    with closing(EtcdClient(settings(etcd))) as found:
        yield found


def _put(client: EtcdClient, *keys: bytes, value: bytes = b"x") -> int:
    return client.txn("put", [], [kv.put(key, value) for key in keys]).revision


def _until(stream: WatchStream, key: bytes, timeout_s: float = 20) -> list[Event]:
    """Return all events up to the last one of a key."""
    found: list[Event] = []
    until_s = time.monotonic() + timeout_s
    while not any(each.key == key for each in found):
        assert time.monotonic() < until_s, f"no event of {key!r} after {len(found)} others"
        found += stream.next(1.0) or ()
    return found


def _keys(events: Sequence[Event]) -> list[bytes]:
    return [each.key for each in events]


def test_what_lies_between_the_ranges_is_not_sent(client: EtcdClient) -> None:
    after = _put(client, b"/w/a/0")
    with closing(client.watch(_RANGES, after)) as stream:
        for number in range(50):
            _put(client, b"/w/e/%d" % number)
        _put(client, b"/w/f/1")
        assert _keys(_until(stream, b"/w/f/1")) == [b"/w/f/1"]


def test_an_event_of_the_first_range_comes_at_once_although_nothing_else_happens(
    client: EtcdClient,
) -> None:
    """The answer to a progress request says that the last range has nothing before it."""
    with closing(client.watch(_RANGES, _put(client, b"/w/a/0"))) as stream:
        _put(client, b"/w/f/0")
        _until(stream, b"/w/f/0")  # etcd has caught up with both
        started_s = time.monotonic()
        _put(client, b"/w/a/1")
        assert _keys(_until(stream, b"/w/a/1")) == [b"/w/a/1"]
        assert time.monotonic() - started_s < 0.5


def test_one_transaction_that_writes_to_both_ranges_is_seen_as_one(client: EtcdClient) -> None:
    with closing(client.watch(_RANGES, _put(client, b"/w/a/0"))) as stream:
        _put(client, b"/w/f/caught-up")
        _until(stream, b"/w/f/caught-up")  # before, etcd orders the events of one range only
        for number in range(20):
            _put(client, b"/w/a/%d" % number, b"/w/f/%d" % number)
        seen = [each.revision for each in _until(stream, b"/w/a/19")]
        assert seen == sorted(seen)
        assert len(seen) == 40


def test_no_event_is_seen_twice_or_left_out_where_the_watch_begins(client: EtcdClient) -> None:
    _put(client, b"/w/f/0")
    after = _put(client, b"/w/a/0", b"/w/f/1")
    _put(client, b"/w/f/2")
    _put(client, b"/w/a/3")
    with closing(client.watch(_RANGES, after)) as stream:
        assert _keys(_until(stream, b"/w/a/3")) == [b"/w/f/2", b"/w/a/3"]


def test_promise_9_a_quiet_watch_is_answered_on_any_etcd(client: EtcdClient) -> None:
    """Newer ones give no answer while a range starts behind the present revision."""
    with closing(client.watch(_RANGES, _put(client, b"/w/a/0"))) as stream:
        until_s = time.monotonic() + 5
        while stream.next(0.3) is None:
            assert time.monotonic() < until_s
            stream.request_progress()


def test_promise_4_a_reader_that_fell_behind_sees_no_first_range_ahead_of_the_last(
    client: EtcdClient,
) -> None:
    """etcd then reads history for each range, and sends that of one before that of the other."""
    with closing(client.watch(_RANGES, _put(client, b"/w/a/0"))) as stream:
        _put(client, b"/w/f/0")
        _until(stream, b"/w/f/0")
        for number in range(3_000):
            _put(client, b"/w/f/%d" % number, value=b"x" * 4_000)
            _put(client, b"/w/a/%d" % number)
        seen = _until(stream, b"/w/a/2999", 60)
    newest = 0
    for each in seen:
        if each.key.startswith(b"/w/f"):
            assert each.revision > newest, "a first range was ahead"
        newest = max(newest, each.revision)
    assert len(seen) >= 2 * 3_000 - 1
