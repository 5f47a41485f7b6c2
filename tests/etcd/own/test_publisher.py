"""Slices and endpoints of one host, kept in a real etcd as they are wished."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from agent.errors import EtcdUnavailable
from agent.etcd import kv
from agent.etcd.errors import PermissionDeniedError
from agent.etcd.kv import Page, TxnResult
from agent.model import Condition, Lease
from agent.model.endpoint import ENDPOINTS_MOST, Endpoint, EndpointAddress, Health
from agent.model.network import NetworkSlice
from agent.registry.own.own_records import Holding
from agent.registry.own.publisher import Publication, Publisher
from agent.registry.records import ENDPOINTS, LEASES, SLICES, encode_endpoint, endpoint_key
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import Etcd, Heard, config, host, registry, renew, request
from tests.waiting import eventually

pytestmark = pytest.mark.etcd

_OWN = host(1)


def endpoint(number: int, name: str = "", health: Health = Health.NONE) -> Endpoint:
    place = EndpointAddress(network="bridge", address=IPv4Address("10.64.0.0") + number)
    return Endpoint(
        host_id=_OWN,
        container_id=f"{number:016x}" + "c" * 48,
        name=name or f"web{number}",
        health=health,
        addresses=(place,),
    )


def part(network: str, subnet: str = "10.64.1.0/24") -> NetworkSlice:
    return NetworkSlice(host_id=_OWN, network=network, subnet=IPv4Network(subnet))


class Scene:
    """A host with a lease, its publisher, and the transactions by which that publishes."""

    def __init__(self, mesh: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mesh = mesh
        self.lease = mesh.claim(request(1))
        self.heard = Heard()
        self.published = Heard()
        self.faults: list[Exception] = []
        self.publisher = Publisher(mesh, _OWN, self.heard)
        real = mesh.client.txn

        def counted(action: str, *more: object) -> TxnResult:
            if action.startswith("publish"):
                if self.faults:
                    raise self.faults[-1]
                self.published(action)
            return real(action, *more)  # type: ignore[arg-type]

        monkeypatch.setattr(mesh.client, "txn", counted)

    def wish(
        self,
        endpoints: tuple[Endpoint, ...] | None = None,
        slices: tuple[NetworkSlice, ...] | None = None,
        lease: Lease | None = None,
    ) -> None:
        held = lease or self.lease
        holding = Holding.of(self.mesh.keys.of(LEASES, held.subnet), held)
        self.publisher.publish(Publication(holding, slices, endpoints))

    def names(self) -> list[str]:
        found = self.mesh.client.range(*self.mesh.keys.range(ENDPOINTS)).records
        return [self.mesh.keys.read(ENDPOINTS, each).name for each in found]

    def conditions(self) -> tuple[Condition, ...]:
        return self.heard.last or ()


@pytest.fixture
def scene(mesh: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    found = Scene(mesh, monkeypatch)
    found.publisher.start()
    try:
        yield found
    finally:
        started_s = time.monotonic()
        found.publisher.stop()
        assert time.monotonic() - started_s < 2.1


def test_what_is_wished_is_published_changed_and_withdrawn(scene: Scene) -> None:
    scene.wish((endpoint(2), endpoint(3)), (part("shop"),))
    eventually(lambda: scene.names() == ["web2", "web3"])
    found = scene.mesh.snapshot().slices
    assert found[_OWN, "shop"].subnet == IPv4Network("10.64.1.0/24")
    since_s = found[_OWN, "shop"].since_s
    assert since_s is not None
    scene.wish((endpoint(3, "api"),), (part("shop"), part("db", "10.64.2.0/24")))
    eventually(lambda: scene.names() == ["api"])
    eventually(lambda: len(scene.mesh.snapshot().slices) == 2)
    assert scene.mesh.snapshot().slices[_OWN, "shop"].since_s == since_s
    scene.wish((), ())
    eventually(lambda: scene.names() == [])
    eventually(lambda: not scene.mesh.snapshot().slices)


def test_promise_10_a_thousand_containers_that_start_at_once_cost_ten_transactions(
    scene: Scene,
) -> None:
    started_s = time.monotonic()
    scene.wish(tuple(map(endpoint, range(1, 1001))))
    eventually(lambda: len(scene.names()) == 1000, timeout_s=20)
    assert len(scene.published) == 10
    assert time.monotonic() - started_s > 7 * 0.2 * 0.9, "no more than about five a second"


def test_promise_10_changes_that_follow_each_other_are_joined(scene: Scene) -> None:
    scene.wish(())
    for number in range(1, 200):
        scene.wish(tuple(map(endpoint, range(1, number + 1))))
        time.sleep(0.005)  # the rate is what is tested
    eventually(lambda: len(scene.names()) == 199, timeout_s=20)
    took_s = scene.published.times_s[-1] - scene.published.times_s[0]
    assert len(scene.published) <= 3 + took_s / 0.2 + 1


def test_the_first_change_is_written_at_once(scene: Scene) -> None:
    scene.wish((endpoint(2),))
    eventually(lambda: scene.names() == ["web2"])
    wished_s = time.monotonic()
    scene.wish((endpoint(2, health=Health.HEALTHY),))
    eventually(lambda: len(scene.published) == 2, every_s=0.002)
    assert scene.published.times_s[-1] - wished_s < 0.1


def test_promise_6_what_an_earlier_run_left_is_compared_first(scene: Scene) -> None:
    scene.wish((endpoint(2), endpoint(3)))
    eventually(lambda: len(scene.names()) == 2)
    scene.publisher.stop()
    again = Publisher(scene.mesh, _OWN, scene.heard)
    again.start()
    before = len(scene.published)
    try:
        holding = Holding.of(scene.mesh.keys.of(LEASES, scene.lease.subnet), scene.lease)
        again.publish(Publication(holding))  # Docker has not answered
        again.publish(Publication(holding, (), (endpoint(3), endpoint(4))))
        eventually(lambda: scene.names() == ["web3", "web4"])
        assert len(scene.published) == before + 1
    finally:
        again.stop()


def test_promise_3_nothing_is_withdrawn_before_docker_has_answered(scene: Scene) -> None:
    scene.wish((endpoint(2),), (part("shop"),))
    eventually(lambda: scene.names() and scene.mesh.snapshot().slices)
    before = len(scene.published)
    scene.wish(None, (part("db"),))
    eventually(lambda: [key for _, key in scene.mesh.snapshot().slices] == ["db"])
    assert scene.names() == ["web2"]
    assert len(scene.published) == before + 1


def test_promise_4_nothing_is_written_under_a_lease_that_is_not_this_hosts(scene: Scene) -> None:
    scene.wish((endpoint(2),))
    eventually(lambda: scene.names() == ["web2"])
    scene.mesh.release(_OWN)  # and the lease's end is theirs
    assert scene.names() == []
    taken = scene.mesh.claim(request(2, wanted=scene.lease.subnet, only_wanted=True))
    assert taken.subnet == scene.lease.subnet
    scene.wish((endpoint(3),))
    eventually(lambda: len(scene.published) == 2)
    assert scene.names() == []
    assert scene.conditions() == ()


def test_all_is_attached_anew_when_the_lease_was_claimed_again(scene: Scene) -> None:
    wished = tuple(map(endpoint, range(1, 151)))
    scene.wish(wished, (part("shop"),))
    eventually(lambda: len(scene.names()) == 150)
    scene.mesh.release(_OWN)
    again = scene.mesh.claim(request(1))
    scene.wish(wished, (part("shop"),), again)
    eventually(lambda: len(scene.names()) == 150)
    for kind in (ENDPOINTS, SLICES):
        found = scene.mesh.client.range(*scene.mesh.keys.range(kind)).records
        assert {each.lease_id for each in found} == {again.etcd_lease_id}


def test_promise_3_another_lifetime_of_the_lease_withdraws_no_slice(scene: Scene) -> None:
    """It takes a new etcd lease; what hangs on the previous one is attached to that by and by."""
    scene.wish((), (part("shop"),))
    eventually(lambda: scene.mesh.snapshot().slices)
    longer = renew(scene.mesh, scene.lease, ttl_s=3_000)
    assert longer.etcd_lease_id != scene.lease.etcd_lease_id
    assert scene.mesh.snapshot().slices
    scene.wish((), (part("shop"),), longer)
    start, end = scene.mesh.keys.range(SLICES)
    eventually(
        lambda: scene.mesh.client.range(start, end).records[0].lease_id == longer.etcd_lease_id
    )


@pytest.mark.parametrize("deleted", [True, False])
def test_what_another_program_changes_is_written_again(scene: Scene, deleted: bool) -> None:
    scene.wish((endpoint(2),), (part("shop"),))
    eventually(lambda: scene.names() and scene.mesh.snapshot().slices)
    key = scene.mesh.keys.of(SLICES, (_OWN, "shop"))
    by_another = kv.delete(key) if deleted else kv.put(key, b'{"Subnet":"10.64.9.0/24"}')
    scene.mesh.client.txn("w", [], [by_another])
    view = scene.mesh.snapshot()
    scene.publisher.notice_slices(view.revision, view.slices)
    eventually(
        lambda: (
            (found := scene.mesh.snapshot().slices)
            and found[_OWN, "shop"].subnet == IPv4Network("10.64.1.0/24")
        )
    )


def test_a_view_that_is_older_than_the_last_write_says_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = scene.mesh.snapshot()
    scene.wish((), (part("shop"),))
    eventually(lambda: scene.mesh.snapshot().slices)
    reads, real = Heard(), scene.mesh.client.range

    def counted(start: bytes, *more: Any, **named: Any) -> Page:  # noqa: ANN401  # handed on
        reads(start)
        return real(start, *more, **named)

    monkeypatch.setattr(scene.mesh.client, "range", counted)
    scene.publisher.notice_slices(old.revision, old.slices)
    scene.wish((endpoint(2),), (part("shop"),))
    eventually(lambda: len(scene.published) == 2)
    assert not [each for each in reads.items if b"/slices/" in each]


def test_promise_10_a_program_that_goes_on_to_change_them_is_answered_less_and_less(
    scene: Scene,
) -> None:
    scene.wish((), (part("shop"),))
    eventually(lambda: scene.mesh.snapshot().slices)
    key = scene.mesh.keys.of(SLICES, (_OWN, "shop"))
    until_s = time.monotonic() + 3
    while time.monotonic() < until_s:
        scene.mesh.client.txn("w", [], [kv.delete(key)])
        view = scene.mesh.snapshot()
        scene.publisher.notice_slices(view.revision, view.slices)
        time.sleep(0.02)  # another program's pace
    assert len(scene.published) <= 7


def test_while_etcd_is_away_only_the_newest_wish_is_kept(scene: Scene) -> None:
    scene.faults.append(EtcdUnavailable("away"))
    for number in range(2, 30):
        scene.wish((endpoint(number),))
    scene.faults.clear()
    eventually(lambda: scene.names() == ["web29"])
    assert len(scene.published) == 1
    assert scene.conditions() == ()


def test_promise_9_a_role_that_may_not_write_there_is_a_condition(scene: Scene) -> None:
    scene.faults.append(PermissionDeniedError("permission denied"))
    scene.wish((endpoint(2),), ())
    eventually(scene.conditions)
    (found,) = scene.conditions()
    assert (found.name, "hosts.sh add" in found.hint) == ("endpoints-not-published", True)
    scene.faults.clear()
    eventually(lambda: not scene.conditions(), timeout_s=20)
    assert scene.names() == ["web2"]


def test_promise_9_and_10_more_than_a_host_may_have_is_a_condition(scene: Scene) -> None:
    scene.wish(tuple(map(endpoint, range(1, ENDPOINTS_MOST + 3))))
    eventually(lambda: len(scene.names()) == ENDPOINTS_MOST, timeout_s=30)
    (found,) = scene.conditions()
    assert f"{ENDPOINTS_MOST + 2}" in found.cause
    scene.wish(())
    eventually(lambda: not scene.conditions())


def test_promise_9_and_10_a_record_that_readers_refuse_is_a_condition_and_costs_itself(
    scene: Scene,
) -> None:
    large = endpoint(2)
    places = tuple(
        EndpointAddress(network="n" * 120, address=IPv4Address("10.64.0.9"), aliases=("a" * 120,))
        for _ in range(32)
    )
    object.__setattr__(large, "addresses", places)
    assert len(encode_endpoint(large)) > ENDPOINTS.largest_bytes
    scene.wish((large, endpoint(3)))
    eventually(lambda: scene.names() == ["web3"])
    (found,) = scene.conditions()
    assert endpoint_key(large)[1] in found.cause


def test_a_paused_publisher_writes_nothing_more(scene: Scene) -> None:
    scene.wish((endpoint(2),))
    eventually(lambda: scene.names() == ["web2"])
    assert scene.publisher.pause()
    scene.mesh.release(_OWN)
    assert scene.names() == []
    scene.lease = scene.mesh.claim(request(1))
    scene.wish((endpoint(2),))
    eventually(lambda: scene.names() == ["web2"])


def test_promise_10_nothing_wakes_while_nothing_changes(scene: Scene) -> None:
    from tests.etcd.test_directory import wakes_of  # noqa: PLC0415  # only here

    scene.wish((endpoint(2),), (part("shop"),))
    eventually(lambda: scene.names() and scene.mesh.snapshot().slices)
    before = wakes_of("publisher")
    time.sleep(1)
    assert wakes_of("publisher") - before < 8


@contextlib.contextmanager
def _publishing(mesh: Registry, lease: Lease) -> Iterator[Heard]:
    heard = Heard()
    publisher = Publisher(mesh, _OWN, heard)
    publisher.start()
    holding = Holding.of(mesh.keys.of(LEASES, lease.subnet), lease)
    publisher.publish(Publication(holding, (part("shop"),), (endpoint(2),)))
    try:
        yield heard
    finally:
        publisher.stop()


def test_an_etcd_that_was_away_gets_what_is_wished_by_then(etcd: Etcd) -> None:
    with registry(etcd) as mesh:
        mesh.create_config(config("10.64.0.0/12"))
        lease = mesh.claim(request(1))
        etcd.pause()
        with _publishing(mesh, lease) as heard:
            assert threading.active_count() < 40
            etcd.resume()
            eventually(lambda: mesh.snapshot().slices, timeout_s=20)
            assert not heard.last
