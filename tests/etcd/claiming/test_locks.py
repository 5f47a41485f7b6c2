"""The lock to restart Docker, on a real etcd: one host at a time, and never for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from agent.daemon.membership import docker_restart_lock as restartturn
from agent.daemon.membership.docker_restart_lock import DockerRestartLock
from agent.errors import EtcdUnavailable
from agent.etcd import kv
from agent.etcd.client import EtcdClient
from agent.programs import Stopped
from agent.registry.claiming.locks import LockHolder, MeshLock, MeshLocks
from agent.registry.records import LOCKS, Keys
from agent.settings import EtcdSettings
from tests.etcd.support.etcdlab import Etcd, host, registry

pytestmark = pytest.mark.etcd

Make = Callable[[int], MeshLocks]


@pytest.fixture
def client(shared_etcd: Etcd, prefix: str) -> Iterator[EtcdClient]:
    with registry(shared_etcd, prefix=prefix) as found:
        yield found.client


@pytest.fixture
def turns(client: EtcdClient, prefix: str) -> Make:
    return lambda number: MeshLocks(client, prefix, host(number), f"host{number}")


def taken(turns: MeshLocks, ttl_s: int = 15) -> MeshLock:
    turn = turns.take("x", ttl_s)
    assert isinstance(turn, MeshLock)
    return turn


def test_one_host_at_a_time_and_the_other_is_named(turns: Make) -> None:
    first = taken(turns(1))
    other = turns(2).take("x", 15)
    assert isinstance(other, LockHolder)
    assert other.host_name == "host1"
    turns(1).give_back(first)
    taken(turns(2))


def test_of_many_hosts_at_once_one_has_it(turns: Make) -> None:
    most, now, lock = [0], [0], threading.Lock()

    def restart(number: int) -> None:
        mine = turns(number)
        while isinstance(turn := mine.take("x", 15), LockHolder):
            time.sleep(0.01)
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        mine.give_back(turn)

    threads = [threading.Thread(target=restart, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1]
    assert now == [0]


def test_promise_10_a_dead_holders_turn_ends(turns: Make) -> None:
    taken(turns(1), ttl_s=1)
    deadline_s = time.monotonic() + 20
    while isinstance(turns(2).take("x", 15), LockHolder):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def test_a_holder_that_lives_keeps_it(turns: Make) -> None:
    turn = taken(turns(1), ttl_s=1)
    until_s = time.monotonic() + 4
    while time.monotonic() < until_s:
        assert turns(1).keep(turn)
        assert isinstance(turns(2).take("x", 15), LockHolder)
        time.sleep(0.2)
    turns(1).give_back(turn)
    assert not turns(1).keep(turn)


def test_a_holder_whose_key_was_deleted_or_taken_has_no_turn_though_its_etcd_lease_lives(
    client: EtcdClient, turns: Make
) -> None:
    turn = taken(turns(1))
    client.txn("test", [], [kv.delete(turn.key)], [])
    assert not turns(1).keep(turn)
    other = taken(turns(2))
    assert not turns(1).keep(turn)
    assert turns(2).keep(other)


def test_an_agent_that_was_killed_goes_on_with_its_own_turn(turns: Make) -> None:
    taken(turns(1))
    again = taken(turns(1))
    assert isinstance(turns(2).take("x", 15), LockHolder)
    turns(1).give_back(again)
    taken(turns(2))


@pytest.mark.parametrize("value", [b"{}", b"\xff", b'{"HostID": 1}', b"[" * 9000])
def test_promise_8_a_record_that_says_nothing_is_still_a_turn_but_not_without_end(
    client: EtcdClient, turns: Make, prefix: str, value: bytes
) -> None:
    key = Keys(prefix).of(LOCKS, "x")
    client.txn("test", [], [kv.put(key, value, client.grant(60).id)], [])
    assert isinstance(turns(2).take("x", 15), LockHolder)
    client.txn("test", [], [kv.put(key, value)], [])
    taken(turns(2))


def test_promise_10_a_turn_that_stands_too_long_is_minded_no_more(turns: Make) -> None:
    now_s = [1000.0]
    turn = DockerRestartLock(turns(2), threading.Event(), clock=lambda: now_s[0])
    with DockerRestartLock(turns(1), threading.Event())(asked=False):
        for later_s, free in ((0, False), (800, False), (200, True)):
            now_s[0] += later_s
            with turn(asked=False) as held:
                assert (held is None) == free, held


def test_a_turn_lasts_as_long_as_it_is_used(turns: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restartturn, "_TTL_S", 1)
    with DockerRestartLock(turns(1), threading.Event())(asked=False) as held:
        assert held is None
        until_s = time.monotonic() + 5
        while time.monotonic() < until_s:
            with DockerRestartLock(turns(2), threading.Event())(asked=False) as other:
                assert other is not None
            time.sleep(0.2)
    with DockerRestartLock(turns(2), threading.Event())(asked=False) as held:
        assert held is None, "given back at once, not when its time is over"


@pytest.mark.parametrize("taken_by_another", [False, True])
def test_a_turn_that_was_lost_is_known_right_before_the_restart(
    client: EtcdClient, turns: Make, prefix: str, taken_by_another: bool
) -> None:
    """etcd was away for longer than its TTL, while the file was checked and written."""
    key = Keys(prefix).of(LOCKS, "docker-restart")
    first, second = (DockerRestartLock(turns(n), threading.Event()) for n in (1, 2))
    with first(asked=False) as held:
        assert held is None
        assert first.lost() is None
        (record,) = client.txn("test", [kv.absent(key)], [], [kv.get(key)]).ranges[0]
        client.revoke(record.lease_id)
        if not taken_by_another:
            assert first.lost() is None, "taken again"
            with second(asked=False) as other:
                assert other is not None
            return
        with second(asked=False) as other:
            assert other is None
            lost = first.lost()
            assert lost is not None
            assert "host2" in lost[0]
        assert first.lost() is None, "and this host's when the other is done"
    with second(asked=False) as other:
        assert other is None, "given back by whichever lease it was on"


def test_a_turn_that_is_lost_amid_the_restart_is_taken_again(
    client: EtcdClient, turns: Make, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd was away, and is back before the restart is at its end."""
    monkeypatch.setattr(restartturn, "_TTL_S", 1)
    key = Keys(prefix).of(LOCKS, "docker-restart")

    def lease_id() -> int:
        """Of the lock's holder, 0 for none."""
        found = client.txn("test", [], [kv.get(key)]).ranges[0]
        return found[0].lease_id if found else 0

    with DockerRestartLock(turns(1), threading.Event())(asked=False):
        lost = lease_id()
        client.revoke(lost)
        deadline_s = time.monotonic() + 20
        while lease_id() in {0, lost}:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        with DockerRestartLock(turns(2), threading.Event())(asked=False) as other:
            assert other is not None
    assert lease_id() == 0


def test_a_restart_that_goes_on_without_its_agent_keeps_the_turn_for_its_ttl(turns: Make) -> None:
    second = DockerRestartLock(turns(2), threading.Event())
    with pytest.raises(Stopped), DockerRestartLock(turns(1), threading.Event())(asked=False):
        raise Stopped
    with second(asked=False) as held:
        assert held is not None
    with DockerRestartLock(turns(1), threading.Event())(asked=False) as held:
        assert held is None, "the next run of that agent has it at once"
    with second(asked=False) as held:
        assert held is None


def test_a_turn_that_etcd_cannot_confirm_holds_the_restart(
    turns: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(*_: object) -> bool:
        raise EtcdUnavailable("no endpoint answers")

    turn = DockerRestartLock(turns(1), threading.Event())
    with turn(asked=False):
        monkeypatch.setattr(MeshLocks, "keep", keep)
        lost = turn.lost()
        assert lost is not None
        assert "no endpoint answers" in lost[0]
    with turn(asked=True):
        assert turn.lost() is None, "the operator sees the other hosts"


def test_who_waits_for_the_operator_waits_for_its_turn(turns: Make) -> None:
    first, second = (DockerRestartLock(turns(n), threading.Event()) for n in (1, 2))
    order: list[str] = []
    entered = threading.Event()

    def wait() -> None:
        entered.set()
        with second(asked=True) as held:
            order.append("second" if held is None else held[0])

    waiter = threading.Thread(target=wait)
    with first(asked=False) as held:
        assert held is None
        waiter.start()
        assert entered.wait(5)
        with second(asked=False) as other:
            assert other is not None, "a restart that no client waits for is tried again later"
        order.append("first")
    waiter.join(30)
    assert order == ["first", "second"]


def test_the_agent_that_stops_does_not_wait_for_its_turn(turns: Make) -> None:
    stopping = threading.Event()
    with DockerRestartLock(turns(1), threading.Event())(asked=False):
        stopping.set()
        started_s = time.monotonic()
        with DockerRestartLock(turns(2), stopping)(asked=True) as held:
            assert held is not None
        assert time.monotonic() - started_s < 30


def test_without_etcd_only_the_operators_restart_goes_ahead(prefix: str) -> None:
    unreachable = EtcdSettings(endpoints=("http://127.0.0.1:9",), call_timeout_s=0.3)
    with closing(EtcdClient(unreachable)) as client:
        turn = DockerRestartLock(MeshLocks(client, prefix, host(1), "host1"), threading.Event())
        with turn(asked=False) as held:
            assert held is not None
            assert "etcd cannot be asked" in held[0]
        with turn(asked=True) as held:
            assert held is None
