"""Learn the TTLs of flannel's leases, with few requests."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.errors import EtcdUnavailable
from agent.model import HostId, Lease
from agent.registry.flannel_ttl import FlannelTtls

pytestmark = pytest.mark.unit

FLANNEL = [
    Lease(
        subnet=IPv4Network(f"10.64.{n}.0/24"),
        node_address=IPv4Address("192.0.2.7"),
        backend="host-gw",
        etcd_lease_id=100 + n,
    )
    for n in range(10)
]
OURS = replace(FLANNEL[9], host_id=HostId("0" * 32), ttl_s=86_400, renewed_s=0.0)
ENDLESS = replace(FLANNEL[8], etcd_lease_id=0)


class Etcd:
    def __init__(self) -> None:
        self.asked: list[int] = []
        self.now_s = 1000.0
        self.takes_s = 0.0
        self.away = False

    def ask(self, lease_id: int) -> int | None:
        self.asked.append(lease_id)
        self.now_s += self.takes_s
        if self.away:
            raise EtcdUnavailable("no")
        return 80_000 if lease_id != 105 else None

    def clock(self) -> float:
        return self.now_s


@pytest.fixture(name="etcd")
def etcd_fixture() -> Etcd:
    return Etcd()


def test_only_flannels_are_asked_once_and_counted_down(etcd: Etcd) -> None:
    left = FlannelTtls(etcd.ask, etcd.clock)
    leases = [*FLANNEL[:3], ENDLESS, OURS]
    assert left.of(leases) == {each.subnet: 80_000 for each in FLANNEL[:3]}
    etcd.now_s += 60
    assert left.of(leases) == {each.subnet: 79_940 for each in FLANNEL[:3]}
    assert etcd.asked == [100, 101, 102]


def test_a_renewed_record_is_asked_again_and_an_old_answer_too(etcd: Etcd) -> None:
    left = FlannelTtls(etcd.ask, etcd.clock)
    left.of(FLANNEL[:2])
    renewed = replace(FLANNEL[0], etcd_lease_id=200)
    etcd.now_s += 1
    left.of([renewed, FLANNEL[1]])
    assert etcd.asked == [100, 101, 200]
    etcd.now_s += 601
    left.of([renewed, FLANNEL[1]])
    assert etcd.asked == [100, 101, 200, 101, 200]


def test_promise_10_a_look_is_bounded_and_the_next_goes_on(etcd: Etcd) -> None:
    left = FlannelTtls(etcd.ask, etcd.clock, most=3)
    assert len(left.of(FLANNEL[:5])) == 3
    assert len(left.of(FLANNEL[:5])) == 5
    etcd.takes_s = 1.5
    slow = FlannelTtls(etcd.ask, etcd.clock)
    assert len(slow.of(FLANNEL[:5])) == 2, "no request is begun after 2 s"


def test_what_is_gone_or_cannot_be_asked_is_not_known(etcd: Etcd) -> None:
    left = FlannelTtls(etcd.ask, etcd.clock)
    assert left.of([FLANNEL[5]]) == {}
    etcd.away = True
    assert left.of(FLANNEL[:4]) == {}
    assert etcd.asked == [105, 100], "one error ends the look"
    assert left.of(FLANNEL[:4], may_ask=False) == {}
    assert len(etcd.asked) == 2
    etcd.away = False
    assert len(left.of(FLANNEL[:4])) == 4
    assert left.of([]) == {}
