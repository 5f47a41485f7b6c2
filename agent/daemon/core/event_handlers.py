"""Fold one event into the agent's state. Pure: handlers do nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from agent.daemon.state import conditions, events
from agent.daemon.state.agent_state import AgentState, StaleFacts
from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.deletion_grace import DeletionGrace
from agent.daemon.state.mesh_state import MeshState
from agent.daemon.state.timers import Timer
from agent.docker.report import ConfigFile
from agent.etcd.errors import contact_condition
from agent.model import View
from agent.registry import trust

__all__ = ["Moment", "fold"]

_Handler = Callable[[AgentState, Any, "Moment"], AgentState]


@dataclass(frozen=True, slots=True)
class Moment:
    """When an event is folded.

    Attributes:
        clock_s: Monotonic seconds.
        wall_s: Unix seconds, in which a lease says when it was renewed.
    """

    clock_s: float
    wall_s: float


def fold(state: AgentState, event: events.Event, at: Moment) -> AgentState:
    """Return the state after ``event``."""
    return _HANDLERS[type(event)](state, event, at)


def _view(state: AgentState, event: events.ViewSeen, at: Moment) -> AgentState:
    for view in (*event.passed, event.view):
        state = _seen(state, view, at)
    return state


def _seen(state: AgentState, view: View, at: Moment) -> AgentState:
    before = state.mesh
    mesh = before.with_view(view, now_s=at.wall_s, ttl_s=state.settings.lease.ttl_s)
    alarm = before.alarming is not None or mesh.alarming is not None
    grace = state.grace
    lost = trust.many_gone(before.believed, view) or trust.lost_unseen(before.believed, view)
    if alarm or lost:
        grace = grace.hold(_calm_from_s(state, at))  # live hosts may be about to register again
    last_seen = state.last_seen.follow(view, at.wall_s)
    if _backends(before) != _backends(mesh):  # one may need what the host has not made yet
        state = replace(state, look=StaleFacts())
    return _believing(replace(state, last_seen=last_seen), mesh, grace, at)


def _backends(mesh: MeshState) -> tuple[str, ...]:
    return mesh.config.backends if mesh.config else ()


def _accepted(state: AgentState, _event: events.Accepted, at: Moment) -> AgentState:
    mesh = state.mesh
    if mesh.alarming is None:
        return state
    return _believing(state, mesh.accepted(at.wall_s), state.grace.end(), at)


def _believing(state: AgentState, mesh: MeshState, grace: DeletionGrace, at: Moment) -> AgentState:
    if mesh.complete:
        grace = grace.complete(at.clock_s + state.settings.routes.sweep_grace_s)
    return replace(state, mesh=mesh, grace=grace)


def _calm_from_s(state: AgentState, at: Moment) -> float:
    return at.clock_s + state.settings.lease.empty_cluster_grace_s


def _contact(state: AgentState, event: events.ContactChanged, at: Moment) -> AgentState:
    grace, problem = state.grace, event.problem
    if problem is not None or event.was_lost:
        believed = state.mesh.believed
        grace = grace.contact_lost(followed=believed is not None and not believed.cached)
    if problem is None:
        state = state.with_conditions(ConditionSource.ETCD, ())
        grace = grace.contact_made(_calm_from_s(state, at))
        return replace(state, grace=grace, contact_problem="")
    lost = contact_condition(
        problem, "routes and rules stay; see etcd, and etcd.endpoints in agent.toml"
    )
    state = state.with_conditions(ConditionSource.ETCD, (lost,))
    return replace(state, grace=grace, contact_problem=problem.message)


def _lease(state: AgentState, event: events.LeaseChanged, _at: Moment) -> AgentState:
    mesh = state.mesh
    # The keeper may have posted conditions before it was paused: they would never end.
    state = state.with_conditions(ConditionSource.LEASE, () if mesh.left else event.conditions)
    return replace(state, mesh=mesh.with_lease(event.lease, event.former, event.conditions))


def _docker(state: AgentState, event: events.DockerReported, _at: Moment) -> AgentState:
    report = event.report
    mesh = state.mesh.with_docker(report.facts, report.state)
    state = state.with_conditions(ConditionSource.DOCKER, report.conditions)
    return replace(state, mesh=replace(mesh, docker_config=report.config))


def _endpoints(state: AgentState, event: events.EndpointsSeen, _at: Moment) -> AgentState:
    state = state.with_conditions(ConditionSource.CONTAINERS, event.conditions)
    return replace(state, mesh=replace(state.mesh, own_endpoints=event.endpoints))


def _kernel(state: AgentState, event: events.KernelChanged, _at: Moment) -> AgentState:
    return replace(state, look=state.look.noticed(event.event, state.mesh.host))


def _endpoint(state: AgentState, event: events.EndpointFound, _at: Moment) -> AgentState:
    return replace(state, endpoints=event.endpoints, look=StaleFacts())


def _endpoint_view(state: AgentState, event: events.EndpointViewSeen, _at: Moment) -> AgentState:
    mesh = state.mesh
    if not mesh.needs_endpoints:  # posted before the directory knew
        return state
    found = mesh.peer_endpoints.follow(event.view)
    return replace(state, mesh=replace(mesh, peer_endpoints=found))


def _timers(state: AgentState, event: events.TimersDue, _at: Moment) -> AgentState:
    return replace(state, look=StaleFacts()) if event.timers & {Timer.RESYNC, Timer.HOST} else state


def _host(state: AgentState, event: events.HostSeen, _at: Moment) -> AgentState:
    state = state.with_conditions(ConditionSource.HOST, event.conditions)
    mesh = replace(state.mesh, host=event.facts, uplink=event.uplink)
    return replace(state, mesh=mesh, look=StaleFacts(links=False, everything=False))


def _copy(state: AgentState, event: events.CopyWritten, _at: Moment) -> AgentState:
    problem = None if state.mesh.left else event.problem  # a host that has left has no copy
    state = state.with_conditions(
        ConditionSource.COPY, () if problem is None else (conditions.copy_not_written(problem),)
    )
    # The new copy replaces the damaged one.
    return (
        state.with_conditions(ConditionSource.COPY_DAMAGED, ()) if event.problem is None else state
    )


def _left(state: AgentState, event: events.Left, _at: Moment) -> AgentState:
    if event.left:
        for source in (ConditionSource.JOINING, ConditionSource.LEASE, ConditionSource.COPY):
            state = state.with_conditions(source, ())
    return replace(state, mesh=state.mesh.set_left(left=event.left), look=StaleFacts())


def _names(state: AgentState, event: events.NamesReported, _at: Moment) -> AgentState:
    state = state.with_conditions(ConditionSource.NAMES, event.conditions)
    return replace(state, names_served=event.served)


def _round(state: AgentState, event: events.RoundDone, at: Moment) -> AgentState:
    mesh = state.mesh
    if event.configured and mesh.config is not None and mesh.sends_by != mesh.config.backend:
        mesh = replace(mesh, sends_by=mesh.config.backend)
    return replace(
        state,
        mesh=mesh,
        lease_ended=bool(state.contact_problem) and mesh.lease_ended(at.wall_s),
        report=event.report,
        passed=event.settled,
        configured=event.configured and mesh.docker_config is not ConfigFile.WAITING,
    )


_HANDLERS: Final[Mapping[type[events.Event], _Handler]] = {
    events.Accepted: _accepted,
    events.ConditionsFound: lambda state, event, _: state.with_conditions(
        event.source, event.conditions
    ),
    events.ContactChanged: _contact,
    events.CopyWritten: _copy,
    events.DockerReported: _docker,
    events.EndpointFound: _endpoint,
    events.EndpointViewSeen: _endpoint_view,
    events.EndpointsSeen: _endpoints,
    events.HostSeen: _host,
    events.HostsSilent: lambda state, event, _: replace(
        state, mesh=replace(state.mesh, silent=event.addresses)
    ),
    events.JobEnded: lambda state, _event, _at: state,  # it only causes a round
    events.KernelChanged: _kernel,
    events.LeaseChanged: _lease,
    events.Left: _left,
    events.NamesReported: _names,
    events.RoundDone: _round,
    events.RulesWritten: lambda state, _event, _at: state,  # it only causes a pass
    events.SettingsRead: lambda state, event, _: replace(state, settings=event.settings),
    events.TimersDue: _timers,
    events.ViewSeen: _view,
}
