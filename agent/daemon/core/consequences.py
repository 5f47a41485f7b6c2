"""Derive the actions that an event requires from the state before and after it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from agent.daemon.membership.publication import publication, read_by_publication
from agent.daemon.names.wanted import wanted_names
from agent.daemon.state import events
from agent.daemon.state.agent_state import AgentState
from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.mesh_state import MeshState
from agent.daemon.state.timers import Timer
from agent.docker.daemonjson.desired import wanted_docker_names
from agent.docker.endpoints.publishable import EndpointTerms
from agent.docker.networks.plan import Wanted
from agent.kernel.uplink import uplink_target
from agent.mesh.networks import wanted_networks
from agent.model import NETWORKS_LEVEL, HostFacts
from agent.model.family import Address, Network
from agent.sharedmap import SharedMap

__all__ = ["Action", "Effect", "consequences", "watched"]

_COPY_DELAY_S: Final = 2.0
_LOOK_AGAIN_S: Final = 2.0


class Action(Enum):
    """An action of the loop; its arguments in parentheses."""

    SET_CONDITIONS = auto()  # (source, conditions)
    SET_TIMER = auto()  # (timer, in seconds, give or take a fifth)
    SET_TIMER_AT = auto()  # (timer, monotonic seconds)
    SET_TIMER_SOONER = auto()  # (timer, in seconds)
    APPLY_SETTINGS = auto()  # Give other settings to all parts. (settings)
    RECORD_PEERS = auto()  # (view before, view now, this host's id)
    RECORD_SUBNET = auto()  # (subnet)
    RECORD_UPLINK = auto()  # (uplink)
    RECORD_RESTART = auto()  # Docker was restarted.
    PIN_CLUSTER = auto()  # (id of the mesh's cluster)
    RECONNECT_ETCD = auto()  # Drop etcd's connections: they are bound to an address that is gone.
    SET_BOUNDS = auto()  # (bounds of a config)
    REREAD_CONFIG = auto()  # Check the config in etcd again. (needed addresses, allowed ranges)
    HOLD_CLAIMS = auto()  # Claim no new subnet.
    CHECK_RECORDS = auto()  # Have this host's records looked for. (view)
    LEAVE = auto()  # Keep nothing in etcd any more, and no copy.
    PUBLISH = auto()  # (publication)
    FOLLOW_ENDPOINTS = auto()  # (whether they are needed)
    CHECK_ENDPOINTS = auto()  # Have this host's endpoints looked for. (view)
    SAVE_COPY = auto()  # (mesh state)
    CONFIGURE_DOCKER = auto()  # (subnet, MTU, former subnet, names)
    CONFIGURE_NETWORKS = auto()  # (wanted Docker networks)
    FOLLOW_NAMES = auto()  # (input of the name servers' snapshot)
    FOLLOW_CONTAINERS = auto()  # (terms of endpoints; None: there are none)
    WATCH_ROUTES = auto()  # (CIDRs, protocol, address of etcd)
    PROBE_HOSTS = auto()  # (addresses, uplink)
    PASS_KERNEL = auto()  # (what changed)
    PASS_RULES = auto()  # (programs that wrote)
    PASS_TIMERS = auto()  # (timers)
    PASS = auto()  # Routes and rules may have to change.
    PASS_EVERYTHING = auto()  # Compare all there is.


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing to do."""

    action: Action
    given: tuple[Any, ...] = ()


def consequences(before: AgentState, after: AgentState, event: events.Event) -> tuple[Effect, ...]:
    """Return the actions that ``event`` requires, in order.

    Args:
        event: The one that was folded into ``before``.
    """
    found = [*_settings(before, after), *_conditions(before, after), *_graces(before, after)]
    if after.mesh is not before.mesh:
        found += _mesh(before.mesh, after.mesh)
        found += _host(before.mesh, after.mesh)
    for output in _OUTPUTS:
        found += output.effects(before, after)
    found += _news(after, event)
    found += _passes(before, after, event)
    return tuple(found)


def _conditions(before: AgentState, after: AgentState) -> Iterator[Effect]:
    if after.conditions is before.conditions:
        return
    for source, conditions in after.conditions.items():
        if conditions != before.conditions.get(source, ()):
            yield Effect(Action.SET_CONDITIONS, (source, conditions))


def _settings(before: AgentState, after: AgentState) -> Iterator[Effect]:
    if after.settings is not before.settings:
        yield Effect(Action.APPLY_SETTINGS, (after.settings,))
        yield Effect(Action.SET_TIMER_AT, (Timer.RESYNC, 0.0))


def _graces(before: AgentState, after: AgentState) -> Iterator[Effect]:
    was, now = before.grace, after.grace
    if now.calm_from_s > was.calm_from_s:
        yield Effect(Action.SET_TIMER_AT, (Timer.CALM, now.calm_from_s))
    if now.sweep_from_s != was.sweep_from_s:
        yield Effect(Action.SET_TIMER_AT, (Timer.SWEEP, now.sweep_from_s))


def _mesh(before: MeshState, after: MeshState) -> Iterator[Effect]:
    if after.left and not before.left:
        yield Effect(Action.LEAVE)
    if after.believed is not before.believed and after.believed is not None:
        yield Effect(Action.RECORD_PEERS, (before.believed, after.believed, after.host_id))
        if before.believed is None or before.believed.cluster_id != after.believed.cluster_id:
            yield Effect(Action.PIN_CLUSTER, (after.believed.cluster_id,))
    if after.newest is not before.newest:
        if after.alarming is not None:  # before the keeper sees there what it lost
            yield Effect(Action.HOLD_CLAIMS)
        yield Effect(Action.CHECK_RECORDS, (after.newest,))
        yield Effect(Action.SET_TIMER_SOONER, (Timer.COPY, _COPY_DELAY_S))
    if after.own is not None and _leases(after) != _leases(before):
        if before.own is None or before.own.subnet != after.own.subnet:
            yield Effect(Action.RECORD_SUBNET, (after.own.subnet,))
        yield Effect(Action.SET_TIMER_SOONER, (Timer.COPY, 0.0))


def _host(before: MeshState, after: MeshState) -> Iterator[Effect]:
    uplink, was = after.uplink, before.uplink
    if uplink is not None and uplink != was:
        if was is not None and uplink.node_address != was.node_address:
            yield Effect(Action.RECONNECT_ETCD)
        yield Effect(Action.RECORD_UPLINK, (uplink,))


@dataclass(frozen=True, slots=True)
class Output:
    """A value that a part outside the loop follows: it gets the new one when it changes.

    Attributes:
        action: Gives it to the part.
        of: Compute it, the action's arguments; None: nothing to give.
        reads: The parts of the state that it is computed from. While each is the same object, so
            is the value.
    """

    action: Action
    of: Callable[[AgentState], tuple[Any, ...] | None]
    reads: Callable[[AgentState], tuple[object, ...]]

    def effects(self, before: AgentState, after: AgentState) -> Iterator[Effect]:
        """Yield the action if the value has changed."""
        if all(was is now for was, now in zip(self.reads(before), self.reads(after), strict=True)):
            return
        given = self.of(after)
        if given is not None and given != self.of(before):
            yield Effect(self.action, given)


def watched(state: AgentState) -> tuple[tuple[Network, ...] | None, int, Address | None]:
    """Return the CIDRs, the protocol and the address of etcd for which routes are watched."""
    config = state.mesh.config
    return (
        config.cidrs if config else None,
        state.settings.routes.protocol,
        uplink_target(state.settings.host.uplink, state.endpoints.address),
    )


def _news(after: AgentState, event: events.Event) -> Iterator[Effect]:
    """Yield actions that come from the event alone, not from the state."""
    match event:
        case events.KernelChanged(changed):
            yield Effect(Action.PASS_KERNEL, (changed,))
        case events.RulesWritten(by):
            yield Effect(Action.PASS_RULES, (by,))
        case events.DockerReported(report) if report.restarted:
            yield Effect(Action.RECORD_RESTART)
        case events.HostSeen(failed=True):
            yield Effect(Action.SET_TIMER, (Timer.HOST, _LOOK_AGAIN_S))
        case events.EndpointViewSeen(view):
            yield Effect(Action.CHECK_ENDPOINTS, (view,))
        case events.CopyWritten():
            yield Effect(Action.SAVE_COPY, (after.mesh,))  # what came meanwhile
        case events.TimersDue(timers):
            yield Effect(Action.PASS_TIMERS, (timers,))
            if Timer.RESYNC in timers:
                yield Effect(Action.SET_TIMER, (Timer.RESYNC, after.settings.routes.resync_s))
            if Timer.COPY in timers:
                yield Effect(Action.SAVE_COPY, (after.mesh,))


def _passes(before: AgentState, after: AgentState, event: events.Event) -> Iterator[Effect]:
    timers = event.timers if isinstance(event, events.TimersDue) else frozenset()
    if Timer.RESYNC in timers or after.mesh.left != before.mesh.left:
        yield Effect(Action.PASS_EVERYTHING)
    elif timers & {Timer.SWEEP, Timer.CALM} or _world_differs(before.mesh, after.mesh, event):
        yield Effect(Action.PASS)


def _world_differs(before: MeshState, after: MeshState, event: events.Event) -> bool:
    if after is before:
        return False
    failed = isinstance(event, events.HostSeen) and event.failed
    return (
        after.steers_otherwise(before)
        or _leases(after) != _leases(before)
        or after.docker != before.docker
        or after.uplink != before.uplink
        or (after.host != before.host if failed else not _same_routes(after.host, before.host))
    )


def _same_routes(facts: HostFacts | None, before: HostFacts | None) -> bool:
    """Return whether foreign routes and needed addresses are unchanged: rules depend on these."""
    if facts is None or before is None:
        return facts is before
    return facts.foreign_routes == before.foreign_routes and facts.needed == before.needed


def _leases(mesh: MeshState) -> tuple[object, object]:
    return mesh.own, mesh.former


def _docker_wants(state: AgentState) -> tuple[object, ...] | None:
    mesh = state.mesh
    if mesh.left or mesh.own is None or mesh.uplink is None:
        return None
    former = mesh.former.subnet if mesh.former else None
    if state.names_served is None and mesh.config is not None and mesh.config.has_names:
        return None  # in a moment; one restart is to bring subnet and name servers
    names = wanted_docker_names(mesh.config, served=bool(state.names_served))
    return mesh.own.subnet, mesh.container_mtu, former, names


def _networks_wanted(state: AgentState) -> tuple[Wanted] | None:
    config, world = state.mesh.config, state.world()
    if state.mesh.left or config is None or config.level < NETWORKS_LEVEL:
        return (Wanted(),)
    if world is None:
        return None
    return (Wanted(wanted_networks(world), world.complete),)


def _records(state: AgentState) -> tuple[object, ...]:
    mesh = state.mesh
    view = mesh.believed
    records = (view.networks, view.slices) if view else (None, None)
    return (
        *records,
        mesh.complete,
        mesh.left,
        mesh.config,
        mesh.own,
        mesh.uplink,
        mesh.host,
        state.settings,
    )


def _endpoint_terms(state: AgentState) -> tuple[EndpointTerms | None] | None:
    mesh, config = state.mesh, state.mesh.config
    if mesh.left:
        return (None,)
    if mesh.own is None or mesh.host is None or config is None or config.level < NETWORKS_LEVEL:
        return None
    terms = EndpointTerms(
        host_id=mesh.host_id,
        subnets=mesh.own_subnets,
        access=config.access,
        limit=state.settings.firewall.access,
        records=mesh.believed.networks if mesh.believed else SharedMap(),
    )
    return (terms,)


def _everything(state: AgentState) -> tuple[object, ...]:
    return state.mesh, state.settings, state.endpoints


_OUTPUTS: Final = (
    Output(Action.PUBLISH, publication, read_by_publication),
    Output(
        Action.FOLLOW_ENDPOINTS,
        lambda state: (state.mesh.needs_endpoints,),
        lambda state: (state.mesh.config, state.mesh.left),
    ),
    Output(Action.CONFIGURE_DOCKER, _docker_wants, lambda state: (state.mesh, state.names_served)),
    Output(Action.SET_BOUNDS, lambda state: (state.bounds,), _everything),
    Output(
        Action.REREAD_CONFIG,
        lambda state: (state.bounds.needed, state.bounds.allowed),
        _everything,
    ),
    Output(Action.CONFIGURE_NETWORKS, _networks_wanted, _records),
    Output(Action.FOLLOW_CONTAINERS, _endpoint_terms, lambda state: (state.mesh, state.settings)),
    Output(
        Action.FOLLOW_NAMES,
        wanted_names,
        lambda state: (
            state.mesh,
            state.settings,
            state.contact_problem,
            state.conditions.get(ConditionSource.FOLLOWING),
        ),
    ),
    Output(Action.WATCH_ROUTES, watched, _everything),
    Output(Action.PROBE_HOSTS, lambda state: (state.probed, state.mesh.uplink), _everything),
)
"""In the order in which the parts get them."""
