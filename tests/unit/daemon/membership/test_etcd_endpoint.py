"""The addresses of etcd's endpoints: few changes, no name twice, none that crowds out another."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

import pytest

from agent.daemon.membership import etcd_endpoint as endpoint
from agent.daemon.membership.etcd_endpoint import EndpointAddress
from agent.daemon.state.events import Endpoints
from agent.model.family import Address

pytestmark = pytest.mark.unit


def address(number: int) -> IPv4Address:
    return IPv4Address("192.0.2.0") + number


class Names:
    """A name server with given answers that remembers its questions."""

    def __init__(self, **answers: Iterable[int]) -> None:
        self.answers = {name: tuple(map(address, numbers)) for name, numbers in answers.items()}
        self.asked: list[str] = []
        self.now_s = 0.0
        self.changes: list[Endpoints] = []

    def __call__(self, names: Iterable[str]) -> Mapping[str, tuple[Address, ...]]:
        asked = list(names)
        self.asked += asked
        return {each: self.answers.get(each, ()) for each in asked}

    def of(self, *endpoints: str) -> EndpointAddress:
        urls = tuple(f"http://{each}:2379" for each in endpoints)
        return EndpointAddress(urls, self.changes.append, ask=self, clock=lambda: self.now_s)


def test_an_address_is_known_without_asking() -> None:
    names = Names()
    made = names.of("192.0.2.1", "192.0.2.2", "192.0.2.1")
    assert made.now == Endpoints(address(1), (address(1), address(2)))
    assert not made.look_up()
    assert names.asked == []


def test_each_name_is_asked_for_once() -> None:
    names = Names(a=[1], b=[2])
    made = names.of("a", "b", "192.0.2.3")
    assert made.look_up()
    assert sorted(names.asked) == ["a", "b"]
    assert made.now == Endpoints(address(1), (address(1), address(2), address(3)))


def test_a_name_whose_answer_rotates_changes_nothing() -> None:
    """Each change would cost a snapshot of etcd and a heartbeat, every minute."""
    names = Names(a=[1, 2, 3])
    made = names.of("a")
    made.look_up()
    first = made.now
    for numbers in ([3, 1], [2], [2, 3, 1], [3]):
        names.answers["a"] = tuple(map(address, numbers))
        names.now_s += 60
        assert not made.look_up()
    assert made.now is first or made.now == first


def test_a_name_with_ever_new_addresses_changes_rarely_and_stays_bounded() -> None:
    names = Names()
    made = names.of("a")
    changes = 0
    for minute in range(120):
        names.answers["a"] = (address(minute % 250),)
        names.now_s += 60
        changes += made.look_up()
    assert len(made.now.addresses) <= 8
    assert changes <= 24


def test_an_address_without_answers_goes_after_an_hour() -> None:
    names = Names(a=[1])
    made = names.of("a")
    made.look_up()
    names.answers["a"] = (address(2),)
    names.now_s = 1800
    made.look_up()
    assert made.now == Endpoints(address(1), (address(1), address(2)))
    names.now_s = 3601
    assert made.look_up()
    assert made.now == Endpoints(address(2), (address(2),))


def test_a_name_server_that_is_gone_takes_nothing_away() -> None:
    names = Names(a=[1])
    made = names.of("a")
    made.look_up()
    names.answers.clear()
    names.now_s = 1e6
    assert not made.look_up()


def test_one_name_with_many_addresses_crowds_no_other_name_out() -> None:
    names = Names(a=range(1, 17), b=[100], c=[101])
    made = names.of("a", "b", "c")
    made.look_up()
    assert made.now.addresses[:3] == (address(1), address(100), address(101))


def test_an_etcd_on_loopback_says_nothing_of_the_uplink() -> None:
    assert Names().of("127.0.0.1").now.address is None


def test_other_endpoints_are_followed_and_the_address_holds_until_theirs_is_known() -> None:
    names = Names(b=[9])
    made = names.of("192.0.2.1")
    made.use(("http://b:2379",))
    assert names.changes == [Endpoints(address(1), ())]
    assert made.look_up()
    assert made.now == Endpoints(address(9), (address(9),))


def test_a_name_that_hangs_holds_no_other_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def resolve(name: str) -> tuple[Address, ...]:
        if name == "slow":
            assert answered.wait(20), "the other name was not asked meanwhile"
            return (address(1),)
        answered.set()
        return (address(2),)

    monkeypatch.setattr(endpoint, "_resolve", resolve)
    found = endpoint.look_up(("http://slow:1", "http://quick:1"))
    assert found == Endpoints(address(1), (address(1), address(2)))
