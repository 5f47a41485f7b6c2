"""Fold one event into the agent's state. Pure: handlers do nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from agent.daemon.state import conditions as tell
from agent.daemon.state import events
from agent.daemon.state.agent_state import LookDue, Snapshot
from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.deletion_grace import Grace
from agent.daemon.state.mesh_state import Known
from agent.daemon.state.timers import Timer
from agent.docker.report import ConfigFile
from agent.model import View
from agent.registry import trust

__all__ = ["Moment", "fold"]

_Handler = Callable[[Snapshot, Any, "Moment"], Snapshot]


@dataclass(frozen=True, slots=True)
class Moment:
    """When an event is folded.

    Attributes:
        clock_s: Monotonic seconds.
        wall_s: Unix seconds, in which a lease says when it was renewed.
    """

    clock_s: float
    wall_s: float


def fold(state: Snapshot, event: events.Event, at: Moment) -> Snapshot:
    """Return the state after ``event``."""
    return _HANDLERS[type(event)](state, event, at)


def _view(state: Snapshot, event: events.ViewSeen, at: Moment) -> Snapshot:
    for view in (*event.passed, event.view):
        state = _seen(state, view, at)
    return state


def _seen(state: Snapshot, view: View, at: Moment) -> Snapshot:
    before = state.known
    known = before.with_view(view, now_s=at.wall_s, ttl_s=state.settings.lease.ttl_s)
    alarm = before.alarming is not None or known.alarming is not None
    grace = state.grace
    if alarm or trust.many_gone(before.believed, view):
        grace = grace.hold(_calm_from_s(state, at))  # who is alive may be about to register again
    silence = state.silence.follow(view, at.wall_s)
    return _believing(replace(state, silence=silence), known, grace, at)


def _accepted(state: Snapshot, _event: events.Accepted, at: Moment) -> Snapshot:
    known = state.known
    if known.alarming is None:
        return state
    return _believing(state, known.accepted(at.wall_s), state.grace.end(), at)


def _believing(state: Snapshot, known: Known, grace: Grace, at: Moment) -> Snapshot:
    if known.complete:
        grace = grace.complete(at.clock_s + state.settings.routes.sweep_grace_s)
    return replace(state, known=known, grace=grace)


def _calm_from_s(state: Snapshot, at: Moment) -> float:
    return at.clock_s + state.settings.lease.empty_cluster_grace_s


def _contact(state: Snapshot, event: events.ContactChanged, at: Moment) -> Snapshot:
    grace, problem = state.grace, event.problem
    if problem is not None or event.was_lost:
        believed = state.known.believed
        grace = grace.contact_lost(followed=believed is not None and not believed.cached)
    if problem is None:
        state = state.saying(ConditionSource.ETCD, ())
        grace = grace.contact_made(_calm_from_s(state, at))
        return replace(state, grace=grace, contact_problem="")
    state = state.saying(ConditionSource.ETCD, (tell.etcd_unreachable(problem),))
    return replace(state, grace=grace, contact_problem=problem.message)


def _lease(state: Snapshot, event: events.LeaseChanged, _at: Moment) -> Snapshot:
    known = state.known
    # What the keeper posted before it was paused would stay for as long as the host is out.
    state = state.saying(ConditionSource.LEASE, () if known.left else event.conditions)
    return replace(state, known=known.with_lease(event.lease, event.former, event.conditions))


def _docker(state: Snapshot, event: events.DockerReported, _at: Moment) -> Snapshot:
    report = event.report
    known = state.known.with_docker(report.facts, report.state)
    state = state.saying(ConditionSource.DOCKER, report.conditions)
    return replace(state, known=replace(known, docker_config=report.config))


def _kernel(state: Snapshot, event: events.KernelChanged, _at: Moment) -> Snapshot:
    return replace(state, look=state.look.noticed(event.event, state.known.host))


def _endpoint(state: Snapshot, event: events.EndpointFound, _at: Moment) -> Snapshot:
    return replace(state, endpoints=event.endpoints, look=LookDue())


def _timers(state: Snapshot, event: events.TimersDue, _at: Moment) -> Snapshot:
    return replace(state, look=LookDue()) if event.timers & {Timer.RESYNC, Timer.HOST} else state


def _host(state: Snapshot, event: events.HostSeen, _at: Moment) -> Snapshot:
    state = state.saying(ConditionSource.HOST, event.conditions)
    known = replace(state.known, host=event.facts, uplink=event.uplink)
    return replace(state, known=known, look=LookDue(links=False, everything=False))


def _copy(state: Snapshot, event: events.CopyWritten, _at: Moment) -> Snapshot:
    problem = None if state.known.left else event.problem  # who has left wants no copy
    state = state.saying(
        ConditionSource.COPY, () if problem is None else (tell.copy_not_written(problem),)
    )
    # What was written is in the place of the one that was set aside at start.
    return state.saying(ConditionSource.COPY_DAMAGED, ()) if event.problem is None else state


def _left(state: Snapshot, event: events.Left, _at: Moment) -> Snapshot:
    if event.left:
        for source in (ConditionSource.JOINING, ConditionSource.LEASE, ConditionSource.COPY):
            state = state.saying(source, ())
    return replace(state, known=state.known.set_left(left=event.left), look=LookDue())


def _round(state: Snapshot, event: events.RoundDone, at: Moment) -> Snapshot:
    known = state.known
    if event.configured and known.config is not None and known.sends_by != known.config.backend:
        known = replace(known, sends_by=known.config.backend)
    return replace(
        state,
        known=known,
        lease_ended=bool(state.contact_problem) and known.lease_ended(at.wall_s),
        report=event.report,
        passed=event.settled,
        configured=event.configured and known.docker_config is not ConfigFile.WAITING,
    )


_HANDLERS: Final[Mapping[type[events.Event], _Handler]] = {
    events.Accepted: _accepted,
    events.ConditionsFound: lambda state, event, _: state.saying(event.source, event.conditions),
    events.ContactChanged: _contact,
    events.CopyWritten: _copy,
    events.DockerReported: _docker,
    events.EndpointFound: _endpoint,
    events.HostSeen: _host,
    events.HostsSilent: lambda state, event, _: replace(
        state, known=replace(state.known, silent=event.addresses)
    ),
    events.JobEnded: lambda state, _event, _at: state,  # it comes before a round
    events.KernelChanged: _kernel,
    events.LeaseChanged: _lease,
    events.Left: _left,
    events.RoundDone: _round,
    events.RulesWritten: lambda state, _event, _at: state,  # news for the passes only
    events.SettingsRead: lambda state, event, _: replace(state, settings=event.settings),
    events.TimersDue: _timers,
    events.ViewSeen: _view,
}
