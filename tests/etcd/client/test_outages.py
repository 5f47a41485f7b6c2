"""etcd cut off, led by another, down for long and back: noticed in time, quietly, and made good.

A cable is a real link of a network namespace. ``silence`` drops everything while both ends look
well, ``pull`` takes the carrier of the other end, and the last way takes this host's own link.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from agent.errors import EtcdUnavailable
from agent.model import Lease
from agent.registry.directory import Directory
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import (
    Etcd,
    Heard,
    Wire,
    cluster,
    config,
    host,
    leader_of,
    registry,
    request,
    wired_cluster,
)
from tests.etcd.support.hostprocess import Member
from tests.waiting import eventually

pytestmark = pytest.mark.etcd

_NOTICED_S = 15.0


@pytest.fixture
def wired() -> Iterator[tuple[Etcd, Wire]]:
    """An etcd at the end of a cable."""
    with Wire(2) as wire, Etcd(wire=wire) as etcd:
        yield etcd, wire


_CUTS: dict[str, Callable[[Wire], None]] = {
    "dropped": Wire.silence,
    "pulled": Wire.pull,
    "own link": lambda wire: wire.own_link("down"),
}


@pytest.mark.parametrize(
    "cut", ["dropped", *(pytest.param(each, marks=pytest.mark.full) for each in list(_CUTS)[1:])]
)
def test_promise_10_a_cut_is_noticed_within_15_s_by_calls_and_by_the_watch(
    wired: tuple[Etcd, Wire], cut: str
) -> None:
    etcd, wire = wired
    views, problems = Heard(), Heard()
    with registry(etcd) as mesh:
        mesh.create_config(config())
        mesh.claim(request(1))
        directory = Directory(mesh, views, problems)
        directory.start()
        eventually(lambda: problems.items and problems.last[0] is None)
        _CUTS[cut](wire)
        cut_s = time.monotonic()
        with pytest.raises(EtcdUnavailable) as refused:
            mesh.snapshot()
        assert time.monotonic() - cut_s < _NOTICED_S
        assert etcd.endpoint in refused.value.message
        eventually(lambda: problems.last[0] is not None, timeout_s=_NOTICED_S)
        assert time.monotonic() - cut_s < _NOTICED_S
        seen = len(views)
        etcd.put("/hostmesh/reservations/10.70.0.0-16", f'{{"HostID":"{host(5)}"}}')
        wire.mend()
        wire.own_link("up")
        eventually(lambda: problems.last[0] is None, timeout_s=20)
        eventually(lambda: views.last.reservations, timeout_s=5)
        assert all(view.leases for view in views.items[seen:])
        directory.stop()


def _claims(mesh: Registry, number: int) -> Lease | None:
    try:
        return mesh.claim(request(number))
    except EtcdUnavailable:
        return None


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("killed", marks=pytest.mark.full),
        pytest.param("paused", marks=pytest.mark.full),
        "cut off",
    ],
)
def test_fail_over_when_the_leader_is_killed_paused_or_cut_off(fault: str) -> None:
    """The leader is the member in use; claims go on and the watch sees them within 15 s."""
    with wired_cluster() as members:
        leader = leader_of(members)
        others = [each for each in members if each is not leader]
        views, problems = Heard(), Heard()
        with registry(leader, *others) as mesh:
            mesh.create_config(config())
            mesh.claim(request(1))
            directory = Directory(mesh, views, problems)
            directory.start()
            eventually(lambda: problems.items and problems.last[0] is None)
            if fault == "cut off":
                assert leader.wire is not None
                leader.wire.silence()
            elif fault == "paused":
                leader.pause()
            else:
                leader.kill()
            fault_s = time.monotonic()
            lease = eventually(lambda: _claims(mesh, 2), timeout_s=_NOTICED_S)
            left_s = _NOTICED_S - (time.monotonic() - fault_s)
            eventually(lambda: views.last.lease_of(host(2)) == lease, timeout_s=left_s)
            eventually(lambda: problems.last[0] is None)
            directory.stop()
        if leader.wire is not None:
            leader.wire.mend()
        if fault == "paused":
            leader.resume()


def test_a_member_that_still_accepts_connections_and_has_no_leader_is_left() -> None:
    """The member in use is cut off from the other members only, not from this host."""
    with wired_cluster() as members:
        used, *others = members
        views, problems = Heard(), Heard()
        with registry(used, *others) as mesh:
            mesh.create_config(config())
            mesh.claim(request(1))
            directory = Directory(mesh, views, problems)
            directory.start()
            eventually(lambda: problems.items and problems.last[0] is None)
            assert used.wire is not None
            for each in others:
                used.wire.forbid(each.address)
            cut_s = time.monotonic()
            lease = eventually(lambda: _claims(mesh, 2), timeout_s=_NOTICED_S)
            left_s = _NOTICED_S - (time.monotonic() - cut_s)
            eventually(lambda: views.last.lease_of(host(2)) == lease, timeout_s=left_s)
            with registry(used) as alone, pytest.raises(EtcdUnavailable):  # it does accept
                alone.snapshot()
            directory.stop()


def _down(down_s: float, members: list[Etcd]) -> tuple[float, int, list[dict[str, object]]]:
    """Take every member down for a while and bring all back.

    Returns:
        The share of a core that the host used meanwhile, its lines of log in that time, and
        what it said of its lease when all was well again.
    """
    with registry(members[0]) as mesh:
        mesh.create_config(config())
    with Member(*members) as member:
        before = eventually(member.lease)
        eventually(lambda: member.said("problem"))
        for each in members:
            each.kill()
        eventually(lambda: member.said("problem")[-1]["problem"] is not None, timeout_s=15)
        lines, used_s, started_s = len(member.log_lines()), member.cpu_s(), time.monotonic()
        time.sleep(down_s)
        share = (member.cpu_s() - used_s) / (time.monotonic() - started_s)
        lines = len(member.log_lines()) - lines
        for each in members:
            each.start()
        eventually(lambda: member.said("problem")[-1]["problem"] is None, timeout_s=30)
        with registry(members[0]) as mesh:
            eventually(lambda: mesh.snapshot().heartbeats, timeout_s=20)
            found = mesh.snapshot().lease_of(host(1))
            assert found is not None
            assert str(found.subnet) == before["lease"]
        return share, lines, member.said("lease")


def test_promise_10_an_etcd_that_is_down_costs_no_cpu_and_few_words() -> None:
    with cluster() as members:
        share, lines, said = _down(10, members)
    print(f"{share:.2%} of a core, {lines} lines in 10 s")
    assert share < 0.01
    assert lines <= 5
    assert [each["conditions"] for each in said if each["conditions"]] == []


@pytest.mark.full
def test_promise_10_a_cluster_down_for_minutes_and_back() -> None:
    with cluster() as members:
        share, lines, _ = _down(180, members)
    print(f"{share:.2%} of a core, {lines} lines in 3 minutes")
    assert share < 0.01
    assert lines <= 3 * 5
