"""What follows from an event: compare the state before it with the state after it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from agent.daemon.state import events
from agent.daemon.state.agent_state import Snapshot
from agent.daemon.state.mesh_state import Known
from agent.daemon.state.timers import Timer
from agent.kernel.facts import uplink_target
from agent.model import HostFacts
from agent.model.family import Address, Network

__all__ = ["Act", "Effect", "consequences", "watched"]

_COPY_DELAY_S: Final = 2.0
_LOOK_AGAIN_S: Final = 2.0


class Act(Enum):
    """What the loop can do; in parentheses what with."""

    TELL = auto()  # (source, conditions)
    WAKE = auto()  # (timer, in seconds, give or take a fifth)
    WAKE_AT = auto()  # (timer, monotonic seconds)
    WAKE_SOONER = auto()  # (timer, in seconds)
    ADOPT = auto()  # Let the rooms go on with other settings. (settings)
    NOTE_PEERS = auto()  # (view before, view now, this host's id)
    NOTE_SUBNET = auto()  # (subnet)
    NOTE_UPLINK = auto()  # (uplink)
    NOTE_RESTART = auto()  # Docker was restarted.
    PIN = auto()  # (id of the mesh's cluster)
    RECONNECT = auto()  # Drop etcd's connections: they are bound to an address that is gone.
    BOUND = auto()  # (what this host allows of a config)
    READ_AGAIN = auto()  # Judge the config in etcd again.
    HOLD = auto()  # Claim no new subnet.
    NOTICE = auto()  # Have the keeper look for what it wrote. (view)
    LEAVE = auto()  # Keep nothing in etcd any more, and no copy.
    SAVE_COPY = auto()  # (what is known)
    WANT_DOCKER = auto()  # (subnet, MTU, former subnet)
    WATCH = auto()  # Say which changes of routes matter. (CIDRs, protocol, way to)
    PROBE = auto()  # (addresses, uplink)
    PASS_KERNEL = auto()  # (what changed)
    PASS_RULES = auto()  # (programs that wrote)
    PASS_TIMERS = auto()  # (timers)
    PASS = auto()  # Routes and rules may have to change.
    PASS_EVERYTHING = auto()  # Compare all there is.


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing to do."""

    act: Act
    given: tuple[Any, ...] = ()


def consequences(before: Snapshot, after: Snapshot, event: events.Event) -> tuple[Effect, ...]:
    """Return what follows from ``event``, in order.

    Args:
        event: What was folded into ``before``; only news that is no state is taken from it.
    """
    found = [*_settings(before, after), *_conditions(before, after), *_graces(before, after)]
    if after.known is not before.known:
        found += _mesh(before.known, after.known)
        found += _host(before.known, after.known)
    if _outside_may_differ(before, after):
        found += _outside(before, after)
    found += _news(after, event)
    found += _passes(before, after, event)
    return tuple(found)


def _conditions(before: Snapshot, after: Snapshot) -> Iterator[Effect]:
    if after.conditions is before.conditions:
        return
    for source, conditions in after.conditions.items():
        if conditions != before.conditions.get(source, ()):
            yield Effect(Act.TELL, (source, conditions))


def _settings(before: Snapshot, after: Snapshot) -> Iterator[Effect]:
    if after.settings is not before.settings:
        yield Effect(Act.ADOPT, (after.settings,))
        yield Effect(Act.WAKE_AT, (Timer.RESYNC, 0.0))


def _graces(before: Snapshot, after: Snapshot) -> Iterator[Effect]:
    was, now = before.grace, after.grace
    if now.calm_from_s > was.calm_from_s:
        yield Effect(Act.WAKE_AT, (Timer.CALM, now.calm_from_s))
    if now.sweep_from_s != was.sweep_from_s:
        yield Effect(Act.WAKE_AT, (Timer.SWEEP, now.sweep_from_s))


def _mesh(before: Known, after: Known) -> Iterator[Effect]:
    if after.left and not before.left:
        yield Effect(Act.LEAVE)
    if after.believed is not before.believed and after.believed is not None:
        yield Effect(Act.NOTE_PEERS, (before.believed, after.believed, after.host_id))
        if before.believed is None or before.believed.cluster_id != after.believed.cluster_id:
            yield Effect(Act.PIN, (after.believed.cluster_id,))
    if after.newest is not before.newest:
        if after.alarming is not None:  # before the keeper sees there what it lost
            yield Effect(Act.HOLD)
        yield Effect(Act.NOTICE, (after.newest,))
        yield Effect(Act.WAKE_SOONER, (Timer.COPY, _COPY_DELAY_S))
    if after.own is not None and _leases(after) != _leases(before):
        if before.own is None or before.own.subnet != after.own.subnet:
            yield Effect(Act.NOTE_SUBNET, (after.own.subnet,))
        yield Effect(Act.WAKE_SOONER, (Timer.COPY, 0.0))


def _host(before: Known, after: Known) -> Iterator[Effect]:
    uplink, was = after.uplink, before.uplink
    if uplink is not None and uplink != was:
        if was is not None and uplink.node_address != was.node_address:
            yield Effect(Act.RECONNECT)
        yield Effect(Act.NOTE_UPLINK, (uplink,))
    wants = _docker_wants(after)
    if wants and wants != _docker_wants(before):
        yield Effect(Act.WANT_DOCKER, wants)


def _outside_may_differ(before: Snapshot, after: Snapshot) -> bool:
    return (
        after.known is not before.known
        or after.settings is not before.settings
        or after.endpoints is not before.endpoints
    )


def _outside(before: Snapshot, after: Snapshot) -> Iterator[Effect]:
    """What follows for the monitor, the prober and the reader of the config."""
    bounds, was = after.bounds, before.bounds
    if bounds != was:
        yield Effect(Act.BOUND, (bounds,))
        if (bounds.needed, bounds.allowed) != (was.needed, was.allowed):
            yield Effect(Act.READ_AGAIN)
    if watched(after) != watched(before):
        yield Effect(Act.WATCH, watched(after))
    probed = (after.probed, after.known.uplink)
    if probed != (before.probed, before.known.uplink):
        yield Effect(Act.PROBE, probed)


def watched(state: Snapshot) -> tuple[tuple[Network, ...] | None, int, Address | None]:
    """Return which changes of routes matter: CIDRs, our protocol, the way to etcd."""
    config = state.known.config
    return (
        config.cidrs if config else None,
        state.settings.routes.protocol,
        uplink_target(state.settings.host.uplink, state.endpoints.address),
    )


def _news(after: Snapshot, event: events.Event) -> Iterator[Effect]:
    """What an event brings that is no state."""
    match event:
        case events.KernelChanged(changed):
            yield Effect(Act.PASS_KERNEL, (changed,))
        case events.RulesWritten(by):
            yield Effect(Act.PASS_RULES, (by,))
        case events.DockerReported(report) if report.restarted:
            yield Effect(Act.NOTE_RESTART)
        case events.HostSeen(failed=True):
            yield Effect(Act.WAKE, (Timer.HOST, _LOOK_AGAIN_S))
        case events.CopyWritten():
            yield Effect(Act.SAVE_COPY, (after.known,))  # what came meanwhile
        case events.TimersDue(timers):
            yield Effect(Act.PASS_TIMERS, (timers,))
            if Timer.RESYNC in timers:
                yield Effect(Act.WAKE, (Timer.RESYNC, after.settings.routes.resync_s))
            if Timer.COPY in timers:
                yield Effect(Act.SAVE_COPY, (after.known,))


def _passes(before: Snapshot, after: Snapshot, event: events.Event) -> Iterator[Effect]:
    timers = event.timers if isinstance(event, events.TimersDue) else frozenset()
    if Timer.RESYNC in timers or after.known.left != before.known.left:
        yield Effect(Act.PASS_EVERYTHING)
    elif timers & {Timer.SWEEP, Timer.CALM} or _world_differs(before.known, after.known, event):
        yield Effect(Act.PASS)


def _world_differs(before: Known, after: Known, event: events.Event) -> bool:
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
    """Whether others' routes and what the host needs are as they were; rules depend on no more."""
    if facts is None or before is None:
        return facts is before
    return facts.foreign_routes == before.foreign_routes and facts.needed == before.needed


def _leases(known: Known) -> tuple[object, object]:
    return known.own, known.former


def _docker_wants(known: Known) -> tuple[object, ...]:
    if known.left or known.own is None or known.uplink is None:
        return ()
    former = known.former.subnet if known.former else None
    return known.own.subnet, known.container_mtu, former
