"""Events without a thread: fold one, and compare the actions it requires."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.daemon.core.consequences import Action, Effect, consequences
from agent.daemon.core.event_handlers import Moment, fold
from agent.daemon.state.agent_state import AgentState, StaleFacts
from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.events import (
    Accepted,
    ConditionsFound,
    ContactChanged,
    CopyWritten,
    DockerReported,
    EndpointFound,
    Endpoints,
    Event,
    HostSeen,
    HostsSilent,
    KernelChanged,
    LeaseChanged,
    Left,
    RoundDone,
    RulesWritten,
    SettingsRead,
    TimersDue,
    ViewSeen,
)
from agent.daemon.state.mesh_state import MeshState
from agent.daemon.state.timers import Timer
from agent.docker.report import AttachReport, ConfigFile
from agent.errors import EtcdUnavailable, StateError
from agent.kernel.netlink_monitor import KernelEvent
from agent.model import (
    Condition,
    DockerFacts,
    DockerState,
    Heartbeat,
    HostFacts,
    HostId,
    Lease,
    Need,
    Needed,
    Route,
    View,
)
from agent.reconcile.reconciler import Report
from agent.settings import Settings
from tests.unit.small_mesh import CONFIG, UPLINK, lease

pytestmark = pytest.mark.unit

OWN = HostId("0" * 32)
NOW = Moment(clock_s=1000.0, wall_s=1_700_000_000.0)
FACTS = HostFacts(links=(), foreign_routes=())
CALM_S = Settings().lease.empty_cluster_grace_s
SWEEP_S = Settings().routes.sweep_grace_s
PASS = Effect(Action.PASS)


def view(*numbers: int, revision: int = 10, cluster: int = 1, beats: bool = True) -> View:
    leases = tuple(map(lease, numbers))
    found = dict(map(beat, numbers)) if beats else {}
    return View(
        cluster_id=cluster, revision=revision, config=CONFIG, leases=leases, heartbeats=found
    )


def beat(number: int) -> tuple[HostId, Heartbeat]:
    host = HostId(f"{number:032x}")
    return host, Heartbeat(
        host_id=host,
        host_name=f"host{number}",
        node_address=lease(number).node_address,
        subnet=None,
        docker=DockerState.READY,
        agent_version="1",
        boot_id="b",
        started_s=0,
    )


def after(state: AgentState, *events: Event, at: Moment = NOW) -> AgentState:
    for each in events:
        state = fold(state, each, at)
    return state


def follows(state: AgentState, event: Event) -> tuple[Effect, ...]:
    """Return the effects but for that of names, which every change of the mesh has."""
    found = consequences(state, after(state, event), event)
    return tuple(each for each in found if each.action is not Action.FOLLOW_NAMES)


FIRST = AgentState(mesh=MeshState(host_id=OWN))
MEMBER = after(
    FIRST,
    HostSeen(FACTS, UPLINK, ()),
    ContactChanged(None),
    ViewSeen(view(0, 1)),
    LeaseChanged(lease(0), ()),
)
DOUBT = view(revision=1, cluster=2)
ALARMED = after(MEMBER, ViewSeen(DOUBT))


def test_the_first_view_is_pinned_checked_copied_and_bounds_the_watch() -> None:
    seen = view(0, 1)
    joined = after(FIRST, HostSeen(FACTS, UPLINK, ()))
    bounds = replace(joined.bounds, in_force=CONFIG.cidrs)
    assert follows(joined, ViewSeen(seen)) == (
        Effect(Action.SET_TIMER_AT, (Timer.SWEEP, NOW.clock_s + SWEEP_S)),
        Effect(Action.RECORD_PEERS, (None, seen, OWN)),
        Effect(Action.PIN_CLUSTER, (1,)),
        Effect(Action.CHECK_RECORDS, (seen,)),
        Effect(Action.SET_TIMER_SOONER, (Timer.COPY, 2.0)),
        Effect(Action.SET_BOUNDS, (bounds,)),
        Effect(Action.WATCH_ROUTES, (CONFIG.cidrs, 140, None)),
        PASS,
    )


def test_a_view_that_says_the_same_costs_no_pass() -> None:
    believed = MEMBER.mesh.believed
    assert believed is not None
    seen = replace(believed, revision=11)
    assert seen.by_subnet is believed.by_subnet
    assert [each.action for each in follows(MEMBER, ViewSeen(seen))] == [
        Action.RECORD_PEERS,
        Action.CHECK_RECORDS,
        Action.SET_TIMER_SOONER,
    ]


def test_promise_4_in_doubt_claims_are_held_before_the_keeper_sees_what_it_lost() -> None:
    """Else it might look for another subnet in an etcd that is not believed."""
    found = [each.action for each in follows(MEMBER, ViewSeen(DOUBT))]
    assert found.index(Action.HOLD_CLAIMS) < found.index(Action.CHECK_RECORDS)
    assert Action.PIN_CLUSTER not in found
    assert not ALARMED.may_delete(NOW.clock_s + 10 * CALM_S)


def test_promise_4_an_alarm_that_ends_holds_deletions_for_the_grace_time() -> None:
    over = after(ALARMED, ViewSeen(view(0, 1, revision=12)))
    assert over.mesh.alarming is None
    assert not over.may_delete(NOW.clock_s + CALM_S - 1)
    assert over.may_delete(NOW.clock_s + CALM_S)
    wakes = Effect(Action.SET_TIMER_AT, (Timer.CALM, NOW.clock_s + CALM_S))
    assert wakes in follows(MEMBER, ViewSeen(DOUBT))


def test_promise_4_a_wipe_that_was_passed_over_holds_deletions() -> None:
    """The loop was busy while the prefix was wiped and half of the holders came back."""
    member = after(MEMBER, ViewSeen(view(0, 1, 2, 3, revision=11)))
    half = ViewSeen(view(0, 1, revision=13)).after(ViewSeen(view(revision=12)))
    assert after(member, replace(half, passed=())).may_delete(NOW.clock_s)
    seen = after(member, half)
    assert seen.mesh.alarming is half.view
    assert not seen.may_delete(NOW.clock_s + 10 * CALM_S)
    back = after(seen, ViewSeen(view(0, 1, 2, revision=14)))
    assert not back.may_delete(NOW.clock_s + CALM_S - 1)
    assert back.may_delete(NOW.clock_s + CALM_S)


def test_promise_4_a_wipe_that_no_watch_saw_holds_deletions() -> None:
    """The watch ended with its member of etcd. The next snapshot has all hosts back but one."""
    member = after(MEMBER, ViewSeen(view(0, 1, 2, revision=11)))
    back = tuple(replace(lease(number), create_revision=12) for number in (0, 1))
    seen = after(member, ViewSeen(replace(view(0, 1, revision=13), leases=back)))
    assert seen.mesh.alarming is None, "one of three may have left"
    assert not seen.may_delete(NOW.clock_s + CALM_S - 1)
    assert seen.may_delete(NOW.clock_s + CALM_S)
    one = replace(view(0, 1, revision=13), leases=(lease(0), back[1]))
    assert after(member, ViewSeen(one)).may_delete(NOW.clock_s), "one that stayed was not wiped"
    left = after(member, ViewSeen(view(0, 1, revision=13)))
    assert left.may_delete(NOW.clock_s), "one that leaves is gone at once"
    renewed = tuple(replace(lease(number), mod_revision=12) for number in (0, 1))
    again = after(member, ViewSeen(replace(view(0, 1, revision=13), leases=renewed)))
    assert again.may_delete(NOW.clock_s), "keys that were written again were not lost"


def test_promise_4_contact_regained_after_an_outage_holds_deletions() -> None:
    away = ContactChanged(EtcdUnavailable("no endpoint answers"))
    for events in ((away, ContactChanged(None)), (ContactChanged(None, was_lost=True),)):
        back = after(MEMBER, *events)
        assert not back.may_delete(NOW.clock_s)
        assert back.may_delete(NOW.clock_s + CALM_S)
    assert after(MEMBER, ContactChanged(None)).may_delete(NOW.clock_s)
    assert not after(MEMBER, away).may_delete(NOW.clock_s + 10 * CALM_S), "promise 3"


def test_an_accepted_view_is_pinned_bounded_and_routed() -> None:
    actions = [each.action for each in follows(ALARMED, Accepted())]
    assert actions == [Action.RECORD_PEERS, Action.PIN_CLUSTER, PASS.action]
    accepted = after(ALARMED, Accepted())
    assert accepted.may_delete(NOW.clock_s)
    assert follows(MEMBER, Accepted()) == ()


def test_promise_3_routes_of_an_earlier_life_wait_for_a_complete_view_and_the_grace_time() -> None:
    """Not before: not by the host's own copy, and not by the first word of etcd."""
    cached = replace(view(0), cached=True)
    copied = replace(FIRST, mesh=replace(FIRST.mesh, believed=cached, config=CONFIG))
    assert not copied.may_sweep(NOW.clock_s + 1e9)
    seen = after(copied, ContactChanged(None), ViewSeen(view(0, 1)))
    assert seen.may_delete(NOW.clock_s)
    assert not seen.may_sweep(NOW.clock_s + SWEEP_S - 1)
    assert seen.may_sweep(NOW.clock_s + SWEEP_S)
    assert follows(seen, TimersDue(frozenset({Timer.SWEEP})))[-1] == PASS


def test_a_reload_holds_for_the_next_grace_times() -> None:
    """Both are settings that need no restart (docs/settings.md)."""
    settings = Settings()
    settings = replace(
        settings,
        lease=replace(settings.lease, empty_cluster_grace_s=7),
        routes=replace(settings.routes, sweep_grace_s=5),
    )
    assert follows(MEMBER, SettingsRead(settings)) == (
        Effect(Action.APPLY_SETTINGS, (settings,)),
        Effect(Action.SET_TIMER_AT, (Timer.RESYNC, 0.0)),
    )
    seen = after(FIRST, SettingsRead(settings), ViewSeen(view(0)), ViewSeen(DOUBT))
    assert (seen.grace.sweep_from_s, seen.grace.calm_from_s) == (1005.0, 1007.0)


def test_ranges_that_the_operator_allows_are_judged_again() -> None:
    settings = Settings()
    settings = replace(settings, mesh=replace(settings.mesh, within=(IPv4Network("11.0.0.0/8"),)))
    actions = [each.action for each in follows(MEMBER, SettingsRead(settings))]
    assert actions == [
        Action.APPLY_SETTINGS,
        Action.SET_TIMER_AT,
        Action.SET_BOUNDS,
        Action.REREAD_CONFIG,
    ]


def test_a_lease_is_noted_given_to_docker_copied_and_routed() -> None:
    viewed = after(FIRST, HostSeen(FACTS, UPLINK, ()), ViewSeen(view(0, 1)))
    assert follows(viewed, LeaseChanged(lease(0), ())) == (
        Effect(Action.RECORD_SUBNET, (lease(0).subnet,)),
        Effect(Action.SET_TIMER_SOONER, (Timer.COPY, 0.0)),
        Effect(Action.CONFIGURE_DOCKER, (lease(0).subnet, UPLINK.mtu, None, None)),
        PASS,
    )
    assert follows(MEMBER, LeaseChanged(lease(0), ())) == ()
    taken = Condition(name="lease-taken", cause="host9 owns 10.64.0.0/16", hint="")
    lost = LeaseChanged(None, (taken,))
    assert follows(MEMBER, lost) == (
        Effect(Action.SET_CONDITIONS, (ConditionSource.LEASE, (taken,))),
    )
    assert after(MEMBER, lost).mesh.own == lease(0), "promise 3"


def test_promise_2_a_new_node_address_reconnects_and_sets_dockers_mtu() -> None:
    other = replace(UPLINK, node_address=IPv4Address("192.0.2.7"), mtu=1400)
    assert follows(MEMBER, HostSeen(FACTS, other, ())) == (
        Effect(Action.RECONNECT_ETCD),
        Effect(Action.RECORD_UPLINK, (other,)),
        Effect(Action.CONFIGURE_DOCKER, (lease(0).subnet, 1400, None, None)),
        Effect(Action.PROBE_HOSTS, (frozenset(), other)),
        PASS,
    )


def test_a_look_that_found_the_same_or_other_links_only_costs_nothing() -> None:
    assert follows(MEMBER, HostSeen(FACTS, UPLINK, ())) == ()


def test_others_routes_and_what_the_host_needs_cost_a_pass() -> None:
    rival = Route(destination=IPv4Network("10.65.0.0/16"), link="eth0")
    seen = replace(FACTS, foreign_routes=(rival,))
    assert follows(MEMBER, HostSeen(seen, UPLINK, ())) == (PASS,)
    needs = replace(FACTS, needed=(Needed(IPv4Address("198.51.100.1"), Need.ETCD),))
    bounds = replace(MEMBER.bounds, needed=needs.needed)
    assert follows(MEMBER, HostSeen(needs, UPLINK, ())) == (
        Effect(Action.SET_BOUNDS, (bounds,)),
        Effect(Action.REREAD_CONFIG, (bounds.needed, bounds.allowed)),
        PASS,
    )


def test_a_look_that_fails_keeps_the_uplink_and_is_repeated() -> None:
    missing = Condition(name="uplink-missing", cause="no interface fits", hint="")
    failed = HostSeen(FACTS, UPLINK, (missing,), failed=True)
    assert follows(MEMBER, failed) == (
        Effect(Action.SET_CONDITIONS, (ConditionSource.HOST, (missing,))),
        Effect(Action.SET_TIMER, (Timer.HOST, 2.0)),
    )
    assert after(after(MEMBER, failed), TimersDue(frozenset({Timer.HOST}))).look == StaleFacts()


def test_writes_of_kernel_and_programs_cause_passes_in_any_state() -> None:
    changed = KernelEvent(links=frozenset({"eth0"}))
    assert follows(MEMBER, KernelChanged(changed)) == (Effect(Action.PASS_KERNEL, (changed,)),)
    assert follows(MEMBER, RulesWritten(("a (1)",))) == (Effect(Action.PASS_RULES, (("a (1)",),)),)


def test_only_an_event_that_may_delete_foreign_routes_lists_them() -> None:
    other = Route(destination=IPv4Network("198.51.100.0/24"), link="eth0")
    facts = replace(FACTS, foreign_routes=(other,))
    state = after(MEMBER, HostSeen(facts, UPLINK, ()))
    for event, look in (
        (KernelEvent(links=frozenset({"veth1"})), StaleFacts(links=True, everything=False)),
        (KernelEvent(links=frozenset({"eth0"})), StaleFacts()),
        (KernelEvent(ways=True), StaleFacts()),
        (KernelEvent(resync=True), StaleFacts()),
        (KernelEvent(), StaleFacts(links=False, everything=False)),
    ):
        assert after(state, KernelChanged(event)).look == look


def test_another_address_of_etcd_has_the_host_looked_at_and_its_way_watched() -> None:
    found = EndpointFound(Endpoints(IPv4Address("203.0.113.5"), (IPv4Address("203.0.113.5"),)))
    assert after(MEMBER, found).look == StaleFacts()
    assert follows(MEMBER, found) == (
        Effect(Action.WATCH_ROUTES, (CONFIG.cidrs, 140, IPv4Address("203.0.113.5"))),
    )


def test_docker_costs_a_pass_when_its_networks_change_and_a_restart_is_noted() -> None:
    facts = DockerFacts(reachable=True, version="27")
    report = AttachReport(state=DockerState.READY, facts=facts, config=ConfigFile.WRITTEN)
    assert follows(MEMBER, DockerReported(report)) == (PASS,)
    state = after(MEMBER, DockerReported(report))
    assert follows(state, DockerReported(report)) == ()
    again = replace(report, restarted=True)
    assert follows(state, DockerReported(again)) == (Effect(Action.RECORD_RESTART),)


def test_a_silent_host_costs_a_pass_only_where_a_heartbeat_lapsed() -> None:
    peer = lease(1).node_address
    lapsed = ViewSeen(view(0, 1, revision=11, beats=False))
    assert follows(MEMBER, HostsSilent(frozenset({peer}))) == ()
    assert Effect(Action.PROBE_HOSTS, (frozenset({peer}), UPLINK)) in follows(MEMBER, lapsed)
    state = after(MEMBER, lapsed)
    assert follows(state, HostsSilent(frozenset({IPv4Address("198.51.100.7")}))) == ()
    assert follows(state, HostsSilent(frozenset({peer}))) == (PASS,)
    assert state.last_seen.last_heartbeat_s[HostId(f"{1:032x}")] == NOW.wall_s


def test_each_timer_causes_its_actions() -> None:
    def due(*timers: Timer) -> tuple[Effect, ...]:
        return follows(MEMBER, TimersDue(frozenset(timers)))[1:]

    assert follows(MEMBER, TimersDue(frozenset({Timer.RULES}))) == (
        Effect(Action.PASS_TIMERS, (frozenset({Timer.RULES}),)),
    )
    assert due(Timer.RESYNC) == (
        Effect(Action.SET_TIMER, (Timer.RESYNC, Settings().routes.resync_s)),
        Effect(Action.PASS_EVERYTHING),
    )
    assert due(Timer.COPY) == (Effect(Action.SAVE_COPY, (MEMBER.mesh,)),)
    assert due(Timer.CALM) == (PASS,)


def test_a_host_that_leaves_keeps_nothing_and_says_nothing_of_its_lease() -> None:
    lost = Condition(name="lease-taken", cause="", hint="")
    state = after(MEMBER, LeaseChanged(lease(0), (lost,)))
    assert follows(state, Left(left=True)) == (
        Effect(Action.SET_CONDITIONS, (ConditionSource.LEASE, ())),
        Effect(Action.LEAVE),
        Effect(Action.FOLLOW_CONTAINERS, (None,)),
        Effect(Action.PASS_EVERYTHING),
    )
    gone = after(state, Left(left=True), LeaseChanged(lease(0), (lost,)))
    assert gone.world() is None
    assert gone.conditions[ConditionSource.LEASE] == ()
    assert follows(gone, Left(left=False)) == (Effect(Action.PASS_EVERYTHING),)


def test_promise_9_an_unwritten_copy_is_a_condition_until_it_is_written() -> None:
    full = CopyWritten(StateError("cannot write: No space left on device"))
    damaged = ConditionsFound(
        ConditionSource.COPY_DAMAGED, (Condition(name="copy-damaged", cause="", hint=""),)
    )
    reported, save = follows(MEMBER, full)
    source, (condition,) = reported.given
    assert (reported.action, source, condition.name) == (
        Action.SET_CONDITIONS,
        ConditionSource.COPY,
        "copy-not-written",
    )
    assert save == Effect(Action.SAVE_COPY, (MEMBER.mesh,)), "what came meanwhile"
    failing = after(MEMBER, damaged, full)
    assert all(
        failing.conditions[each] for each in (ConditionSource.COPY, ConditionSource.COPY_DAMAGED)
    )
    for event in (CopyWritten(None), Left(left=True)):
        assert after(failing, event).conditions[ConditionSource.COPY] == ()
    assert after(failing, CopyWritten(None)).conditions[ConditionSource.COPY_DAMAGED] == ()
    left = after(failing, Left(left=True), full)
    assert left.conditions[ConditionSource.COPY] == ()


def test_conditions_are_replaced_once_per_change() -> None:
    found = ConditionsFound(ConditionSource.THREADS, (Condition(name="x", cause="a", hint=""),))
    tell = Effect(Action.SET_CONDITIONS, (ConditionSource.THREADS, found.conditions))
    assert follows(MEMBER, found) == (tell,)
    assert follows(after(MEMBER, found), found) == ()
    gone = ConditionsFound(ConditionSource.THREADS, ())
    assert follows(after(MEMBER, found), gone) == (
        Effect(Action.SET_CONDITIONS, (ConditionSource.THREADS, ())),
    )


def test_a_lease_that_ran_out_counts_as_ended_only_while_etcd_is_away() -> None:
    old: Lease = replace(lease(0), renewed_s=NOW.wall_s - 100, ttl_s=50)
    done = RoundDone(Report(), settled=True, configured=True)
    away = ContactChanged(EtcdUnavailable("x"))
    held = after(MEMBER, LeaseChanged(old, ()))
    assert not after(held, done).lease_ended
    assert after(held, away, done).lease_ended
    assert follows(held, done) == ()


def test_configured_waits_for_daemon_json() -> None:
    done = RoundDone(Report(), settled=True, configured=True)
    assert not after(MEMBER, done).configured
    facts = DockerFacts(reachable=True)
    report = AttachReport(state=DockerState.READY, facts=facts, config=ConfigFile.WRITTEN)
    assert after(MEMBER, DockerReported(report), done).configured
