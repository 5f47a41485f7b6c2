"""Given kernel state and leases, do this, expect that: list, plan, apply on a real kernel."""

from __future__ import annotations

import errno
import random
import signal
import sys
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.daemon.reconcile.protocol_migration import ProtocolMigration
from agent.daemon.store.state_file import StateFile
from agent.errors import KernelError
from agent.kernel.tables.routes import RouteTable
from agent.mesh.desired import desired_objects
from agent.mesh.world import World
from agent.model import Route
from agent.reconcile.interfaces import Operation, OperationKind, Reason
from agent.reconcile.plan import Plan
from agent.reconcile.tracker import compare
from tests.netns.netlab import Host, Lan, Pinger, drop_net_admin
from tests.netns.routes.scene import CIDR, KIND, lease, one_pass, repair, scene, shown, world_of

pytestmark = pytest.mark.netns

PEER_A = "10.64.1.0/24"
PEER_B = "10.64.2.0/24"


@pytest.fixture
def one(host: Host) -> Host:
    """A host with an uplink 192.0.2.1/24 and, unused, a second interface."""
    return scene(host)


def test_promise_6_first_pass_programs_all_and_second_finds_nothing(one: Host) -> None:
    world = world_of(one, lease(PEER_A, "192.0.2.11"), lease(PEER_B, "192.0.2.12"))

    results, plan = repair(one, world)

    assert all(result.ok for result in results)
    assert len(plan.operations) == 3
    assert shown(one) == {
        "unreachable 10.64.0.0/10",
        "10.64.1.0/24 via 192.0.2.11 dev eth0",
        "10.64.2.0/24 via 192.0.2.12 dev eth0",
    }
    assert repair(one, world)[1] == Plan()


def test_promise_6_deleted_route_comes_back(one: Host) -> None:
    world = world_of(one, lease(PEER_A, "192.0.2.11"))
    repair(one, world)
    one.ip(f"route del {PEER_A}")

    _, plan = repair(one, world)

    assert [(each.kind, each.reason) for each in plan.operations] == [
        (OperationKind.REPLACE, Reason.MISSING)
    ]
    assert "10.64.1.0/24 via 192.0.2.11 dev eth0" in shown(one)


@pytest.mark.parametrize(
    "how",
    [
        "via 192.0.2.99",
        "via 198.51.100.9 dev eth1",
        "via 192.0.2.11 mtu 1300",
        "via 192.0.2.11 src 192.0.2.2",
        "via 192.0.2.11 realm 5",
        "via 192.0.2.11 onlink dev eth0",
        "nexthop via 192.0.2.11 nexthop via 192.0.2.12",
        "dev eth0 scope link",
    ],
)
def test_promise_6_modified_route_is_set_right(one: Host, how: str) -> None:
    one.ip("addr add 192.0.2.2/24 dev eth0")
    world = world_of(one, lease(PEER_A, "192.0.2.11"))
    repair(one, world)
    one.ip(f"route replace {PEER_A} proto 140 {how}")

    _, plan = repair(one, world)

    assert [each.reason for each in plan.operations] == [Reason.MODIFIED]
    assert "10.64.1.0/24 via 192.0.2.11 dev eth0" in shown(one)
    assert repair(one, world)[1] == Plan()


@pytest.mark.parametrize("kind", ["blackhole", "prohibit", "throw", "unreachable"])
def test_promise_6_route_turned_into_a_refusal_is_set_right(one: Host, kind: str) -> None:
    world = world_of(one, lease(PEER_A, "192.0.2.11"))
    repair(one, world)
    one.ip(f"route replace {kind} {PEER_A} proto 140")

    _, plan = repair(one, world)

    assert [each.reason for each in plan.operations] == [Reason.MODIFIED]
    assert "10.64.1.0/24 via 192.0.2.11 dev eth0" in shown(one)


def test_promise_5_route_replaced_by_another_protocol_is_left_until_it_goes(one: Host) -> None:
    world = world_of(one, lease(PEER_A, "192.0.2.11"))
    repair(one, world)
    one.ip(f"route replace {PEER_A} via 192.0.2.77 proto 186")

    _, plan = repair(one, world)

    assert plan.operations == ()
    (condition,) = plan.conditions(KIND)
    assert condition.name == "route-conflict"
    assert "bgp (186)" in condition.cause
    assert "192.0.2.77" in one.ip(f"route show {PEER_A}")

    one.ip(f"route del {PEER_A}")
    _, plan = repair(one, world)
    assert [each.reason for each in plan.operations] == [Reason.MISSING]
    assert "10.64.1.0/24 via 192.0.2.11 dev eth0" in shown(one)


def test_promise_5_foreign_route_that_appears_between_list_and_apply_is_not_overwritten(
    one: Host,
) -> None:
    world = world_of(one, lease(PEER_A, "192.0.2.11"))
    table = RouteTable()
    tracker = compare(KIND, desired_objects(world).of(Route), one.call(table.list_all))
    plan = tracker.plan(may_delete=True)
    one.ip(f"route add {PEER_A} via 192.0.2.77 proto static")

    results = one.call(table.apply, plan.operations)

    failed = [result for result in results if not result.ok]
    assert len(failed) == 1
    assert "192.0.2.77" in one.ip(f"route show {PEER_A}")
    assert repair(one, world)[1].conditions(KIND)[0].name == "route-conflict"


def test_promise_5_deletion_spares_a_foreign_route_under_the_same_key(one: Host) -> None:
    world = world_of(one, lease(PEER_A, "192.0.2.11"))
    repair(one, world)
    one.ip(f"route append {PEER_A} via 192.0.2.77 proto static")
    one.ip("route add 10.64.9.0/24 via 192.0.2.78 proto static")

    repair(one, world_of(one))

    left = one.ip("route show root 10.64.0.0/10")
    assert "192.0.2.77" in left
    assert "192.0.2.78" in left
    assert "192.0.2.11" not in left


def test_promise_5_same_key_appended_twice_leaves_the_agents_route_once(one: Host) -> None:
    world = world_of(one, lease(PEER_A, "192.0.2.11"))
    repair(one, world)
    one.ip(f"route append {PEER_A} via 192.0.2.66 proto 140")

    repair(one, world)

    assert "192.0.2.66" not in one.ip("route show")
    assert "10.64.1.0/24 via 192.0.2.11 dev eth0" in shown(one)


def test_promise_4_nothing_is_deleted_before_a_complete_view(one: Host) -> None:
    one.ip("route add 10.64.7.0/24 via 192.0.2.17 proto 140")
    world = world_of(one, complete=False)

    _, plan = repair(one, world)

    assert [str(route.destination) for route in plan.held] == ["10.64.7.0/24"]
    assert "10.64.7.0/24 via 192.0.2.17 dev eth0" in shown(one)
    repair(one, world_of(one))
    assert shown(one) == {"unreachable 10.64.0.0/10"}


def test_stale_routes_of_an_earlier_life_in_another_table_are_swept(one: Host) -> None:
    one.ip("route add 10.64.7.0/24 via 192.0.2.17 proto 140 table 77")
    one.ip("route add 10.64.8.0/24 via 192.0.2.18 proto 140 metric 50")
    one.ip("route add 10.64.8.0/24 via 192.0.2.18 proto static table 77")

    repair(one, world_of(one))

    assert shown(one, "table all proto 140") == {"unreachable 10.64.0.0/10"}
    assert "192.0.2.18" in one.ip("route show table 77")


def test_promise_5_routes_of_a_former_protocol_are_taken_over_others_are_not(one: Host) -> None:
    ours = [
        "unreachable 10.64.0.0/10",
        "10.64.1.0/24 via 192.0.2.11 dev eth0",
        "10.64.2.0/24 via 192.0.2.12 dev eth0 table 77",
    ]
    others = [
        "10.64.3.0/24 via 192.0.2.13 dev eth0 proto 77",
        "10.64.4.0/24 via 192.0.2.14 dev eth0 proto 140 advmss 1400",
        "10.64.5.0/24 via 192.0.2.15 dev eth0 proto 77",
        "172.16.0.0/16 via 192.0.2.16 dev eth0 proto 140",
    ]
    for route in (*(f"{each} proto 140" for each in ours), *others):
        one.ip(f"route add {route}")
    one.ip("route append 10.64.5.0/24 via 192.0.2.99 proto 140")

    table = RouteTable(141)
    results, there = one.call(table.take_over, 140, (CIDR,))
    table.close()

    assert [each.problem for each in results] == ["", "", ""]
    assert there == len(results)
    assert shown(one, "table all proto 141") == set(ours)
    left = shown(one, "table main")
    assert set(others) <= left
    assert "10.64.5.0/24 via 192.0.2.99 dev eth0 proto 140" in left


def test_promise_10_very_many_are_taken_over_a_part_at_a_time(one: Host, tmp_path: Path) -> None:
    """The watchdog is fed in between; a kill there costs nothing either."""
    one.batch([f"route add 10.64.{n}.0/24 via 192.0.2.11 proto 140" for n in range(200)])
    one.batch([f"route add 10.65.{n}.0/24 via 192.0.2.11 proto 140" for n in range(250)])
    one.batch([f"route add 10.66.{n}.0/24 via 192.0.2.11 proto 140" for n in range(250)])
    StateFile(tmp_path).change(route_protocol=140)
    for left in (200, 0):
        state = StateFile(tmp_path)
        assert state.now.route_protocol == 140
        table = RouteTable(141)
        migration = ProtocolMigration(table, 141, state)
        assert one.call(migration.settle, (CIDR,), 0.0)
        table.close()
        assert len(shown(one)) == left
        assert migration.settled is (left == 0)
    assert len(shown(one, "proto 141")) == 700
    assert StateFile(tmp_path).now.route_protocol == 141


def test_a_table_that_was_never_written_is_an_empty_one(one: Host) -> None:
    world = replace(world_of(one, lease(PEER_A, "192.0.2.11")), route_table=100)
    table = RouteTable(table=100)

    for _ in range(2):
        results, _ = one.call(one_pass, world, table)
        assert all(result.ok for result in results)

    assert shown(one, "table 100") == {
        "unreachable 10.64.0.0/10 proto 140",
        "10.64.1.0/24 via 192.0.2.11 dev eth0 proto 140",
    }
    assert shown(one) == set()
    assert one.call(one_pass, world, table)[1] == Plan()
    table.close()


def test_promise_6_replacement_comes_before_deletion_and_loses_no_ping(lan: Lan) -> None:
    """A peer moves to another address; the stale address goes on answering meanwhile."""
    here = lan.add("192.0.2.1/24")
    peer = lan.add("192.0.2.11/24")
    peer.ip("addr add 192.0.2.12/24 dev eth0")
    peer.ip("link add docker0 type bridge")
    peer.ip("addr add 10.64.1.1/24 dev docker0")
    peer.ip("link set docker0 up")
    first = world_of(here, lease(PEER_A, "192.0.2.11"))
    second = world_of(here, lease(PEER_A, "192.0.2.12"))
    repair(here, first)
    ping = Pinger(here, "10.64.1.1", 0.002)
    changes = 0
    while ping.sent < 300 or changes < 100:
        repair(here, second)
        repair(here, first)
        changes += 2
    seen = ping.stop()

    assert seen.lost == []
    assert seen.refused == 0


def test_one_failing_operation_does_not_stop_the_rest(one: Host) -> None:
    bad = Route(
        destination=IPv4Network("10.64.3.0/24"), gateway=IPv4Address("203.0.113.1"), protocol=140
    )
    good = Route(
        destination=IPv4Network("10.64.4.0/24"), gateway=IPv4Address("192.0.2.14"), protocol=140
    )
    operations = [
        Operation(OperationKind.REPLACE, route, Reason.MISSING) for route in (bad, good, bad)
    ]

    results = one.call(RouteTable().apply, operations)

    assert [result.ok for result in results] == [False, True, False]
    assert "10.64.3.0/24" in results[0].problem
    assert "10.64.4.0/24 via 192.0.2.14 dev eth0" in shown(one)


def test_apply_reports_each_failure_among_thousands(one: Host) -> None:
    operations = []
    for number in range(3000):
        gateway = "203.0.113.1" if number % 7 == 0 else "192.0.2.14"
        route = Route(
            destination=IPv4Network(f"10.{64 + number // 256}.{number % 256}.0/24"),
            gateway=IPv4Address(gateway),
            protocol=140,
        )
        operations.append(Operation(OperationKind.REPLACE, route, Reason.MISSING))

    results = one.call(RouteTable().apply, operations)

    assert [result.ok for result in results] == [number % 7 != 0 for number in range(3000)]


def test_promise_9_eperm_is_an_error_with_a_hint_and_never_an_empty_list(one: Host) -> None:
    world = world_of(one, lease(PEER_A, "192.0.2.11"))
    repair(one, world)
    one.ip(f"route replace {PEER_A} via 192.0.2.99 proto 140")
    one.call(drop_net_admin)

    results, _ = repair(one, world)

    (failed,) = [result for result in results if not result.ok]
    assert failed.error is not None
    assert getattr(failed.error, "errno", None) == errno.EPERM
    assert "CAP_NET_ADMIN" in failed.error.hint


def test_promise_4_listing_error_is_raised(one: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    table = RouteTable(timeout_s=0.2)
    repair(one, world_of(one))

    def nothing(*_: object) -> bytes:
        raise TimeoutError

    class Deaf:
        def __getattr__(self, name: str) -> object:
            return nothing if name == "recv" else lambda *_: None

    one.call(table.list_all)
    assert table.session._socket is not None
    monkeypatch.setattr(table.session._socket, "_socket", Deaf())
    with pytest.raises(KernelError):
        one.call(table.list_all)
    assert one.call(table.list_all).own


def test_promise_5_full_table_of_foreign_routes_is_left_alone(one: Host) -> None:
    foreign = [
        f"route add 10.{64 + number // 256}.{number % 256}.0/24 via 192.0.2.77 proto 186"
        for number in range(5000)
    ]
    one.batch(foreign)
    before = one.ip("route show proto 186")
    world = world_of(one, lease(PEER_A, "192.0.2.11"), lease("10.100.0.0/16", "192.0.2.12"))

    _, plan = repair(one, world)

    assert [str(conflict.wanted.destination) for conflict in plan.conflicts] == [PEER_A]
    assert one.ip("route show proto 186") == before
    assert "10.100.0.0/16 via 192.0.2.12 dev eth0" in shown(one)


def test_promise_8_no_record_moves_the_default_route_or_the_underlay(one: Host) -> None:
    one.ip("route add default via 192.0.2.254")
    before = one.ip("route show")
    hostile = [
        lease("0.0.0.0/0", "192.0.2.11"),
        lease("192.0.2.0/24", "192.0.2.11"),
        lease("10.0.0.0/8", "192.0.2.11"),
        lease("10.64.0.0/10", "192.0.2.11"),
        lease("10.64.0.0/17", "192.0.2.11"),
        lease("10.64.5.0/24", "10.64.6.1"),
        lease("10.64.6.0/24", "0.0.0.0"),  # noqa: S104 # a hostile record
        lease("10.64.7.0/24", "255.255.255.255"),
        lease("10.64.8.0/24", "192.0.2.255"),
        lease("10.64.9.0/24", "192.0.2.1"),
    ]

    repair(one, world_of(one, *hostile))

    assert shown(one) == {"unreachable 10.64.0.0/10"}
    one.ip("route del unreachable 10.64.0.0/10")
    assert one.ip("route show") == before


def test_promise_9_addresses_in_no_lease_fail_at_once_and_never_leave(lan: Lan) -> None:
    here = lan.add("192.0.2.1/24")
    gateway = lan.add("192.0.2.254/24")
    here.ip("route add default via 192.0.2.254")
    gateway.ip("addr add 10.64.0.9/32 dev lo")
    leaking = Pinger(here, "10.64.0.9", 0.01)
    time.sleep(0.1)
    assert leaking.stop().answered > 0

    repair(here, world_of(here, lease(PEER_A, "192.0.2.11")))

    ping = Pinger(here, "10.64.0.9", 0.01)
    time.sleep(0.1)
    seen = ping.stop()
    assert seen.answered == 0
    assert seen.refused == seen.sent > 0


def test_promise_6_killed_at_any_moment_then_run_again_equals_desired(one: Host) -> None:
    kill_and_converge(one, rounds=10, seed=4)


@pytest.mark.full
@pytest.mark.timeout(1500)
def test_promise_6_killed_three_hundred_times_under_changing_leases(one: Host) -> None:
    kill_and_converge(one, rounds=300, seed=1848)


def kill_and_converge(one: Host, rounds: int, seed: int) -> None:
    """kill -9 a process that reconciles towards changing leases; then one pass must be enough."""
    choose = random.Random(seed)  # noqa: S311 # not for secrets
    one.ip("route add 10.64.200.0/24 via 192.0.2.77 proto static")
    script = Path(__file__).with_name("reconcile_loop.py")
    cut = 0
    for round_number in range(rounds):
        victim = one.popen([sys.executable, str(script), str(choose.randrange(1 << 30))])
        assert victim.stdout is not None
        victim.stdout.readline()  # it has started to write
        time.sleep(choose.uniform(0, 0.05))
        victim.send_signal(signal.SIGKILL)
        victim.wait(10)
        victim.stdout.close()
        cut += not is_whole(one)

        wanted = [
            lease(f"10.64.{number}.0/24", f"192.0.2.{choose.randrange(11, 200)}")
            for number in choose.sample(range(1, 200), 100)
        ]
        world: World = world_of(one, *wanted)
        results, _ = repair(one, world)
        assert all(result.ok for result in results), round_number
        listing = one.call(RouteTable().list_all)
        assert set(listing.own) == set(desired_objects(world).of(Route).values()), round_number
        assert "192.0.2.77" in one.ip("route show 10.64.200.0/24")
    print(f"{cut} of {rounds} kills fell into the middle of a plan")
    assert cut >= rounds / 10


def is_whole(one: Host) -> bool:
    """Whether all routes are of one world of the victim's, which gives each one gateway."""
    return len({line.split()[2] for line in shown(one) if " via " in line}) == 1
