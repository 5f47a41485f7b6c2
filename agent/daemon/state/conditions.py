"""Conditions that come from events: etcd, its views, the host. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from agent.errors import HostmeshError
from agent.mesh.backend_change import Step, awaited
from agent.mesh.level import HeldBack
from agent.model import (
    Bounds,
    Condition,
    DockerNetwork,
    Heartbeat,
    Lease,
    MeshConfig,
    Problem,
    SetAside,
    Severity,
    View,
    first_few,
)
from agent.model.family import Network
from agent.registry.claiming.identity_conflicts import CLONE_HINT

__all__ = [
    "ConditionSource",
    "alarm",
    "backend_changing",
    "cloned",
    "config_gone",
    "config_unusable",
    "copy_damaged",
    "copy_not_written",
    "dead",
    "host_unusable",
    "level_held_back",
    "moving",
    "not_moved",
    "outside_bounds",
    "own_set_aside",
    "set_aside",
]


_NAMES_SHOWN = 10


class ConditionSource(StrEnum):
    """Whose conditions they are."""

    CONTAINERS = "containers"
    COPY = "copy"
    COPY_DAMAGED = "copy-damaged"
    DISCOVERY = "discovery"
    DOCKER = "docker"
    ENDPOINTS = "endpoints"
    ETCD = "etcd"
    EVENTS = "events"
    FOLLOWING = "following"
    HOST = "host"
    JOINING = "joining"
    LEASE = "lease"
    LEAVING = "leaving"
    NAMES = "names"
    PAGE = "page"
    PUBLISHING = "publishing"
    ROUTES = "routes"
    RULES = "rules"
    SETTINGS = "settings"
    THREADS = "threads"
    VIEW = "view"


def copy_damaged(problem: str) -> Condition:
    """Report that the host's own copy could not be read when the agent started."""
    return Condition(
        name="copy-damaged",
        cause=problem,
        hint="nothing to do while etcd answers: a new copy is written; without etcd this"
        " host waits for it",
    )


def copy_not_written(problem: HostmeshError) -> Condition:
    """Report that the host's own copy cannot be written."""
    return Condition(
        name="copy-not-written",
        cause=problem.message,
        hint=problem.hint or "without it this host cannot boot while etcd is away",
    )


def host_unusable(problem: HostmeshError) -> Condition:
    """Report that the host's links and addresses cannot be used."""
    return Condition(
        name="uplink-missing",
        severity=Severity.ERROR,
        cause=problem.message,
        hint=problem.hint or "bring the uplink up, or name it in agent.toml: host.uplink",
    )


def alarm(reason: str) -> Condition:
    """Report that the newest view is not believed (promise 4)."""
    return Condition(
        name="etcd-alarm",
        severity=Severity.ERROR,
        cause=reason,
        hint="no route is deleted; check that agent.toml names the right etcd; if what etcd says"
        " is right: agentctl etcd accept",
    )


def config_unusable(problem: Problem) -> Condition:
    """Report an unusable config in etcd; the last usable one is in use."""
    return Condition(
        name="mesh-config-unusable",
        severity=Severity.ERROR,
        cause=problem.reason,
        hint=problem.hint
        or "agentctl config show; correct the key with etcdctl or agentctl config",
    )


def level_held_back(held_back: HeldBack) -> Condition:
    """Report that agents of older versions keep newer records from being published."""
    hosts = sorted(held_back.hosts.values(), key=lambda each: (each.level, each.host_name))
    names = [
        f"{each.host_name or each.host_id} reads level {each.level}"
        + (f" (hostmesh {each.agent_version})" if each.agent_version else "")
        for each in hosts
    ]
    named = first_few(names, _NAMES_SHOWN)
    return Condition(
        name="level-held-back",
        cause=f"the config allows level {held_back.level} and {named}: nothing newer than level"
        f" {hosts[0].level} is published",
        hint="install this version of hostmesh there (agentctl leases -o wide shows each host's"
        " level), or retire what is gone: agentctl remove HOST",
    )


def outside_bounds(bounds: Bounds, cidrs: tuple[Network, ...]) -> Condition:
    """Report that the mesh uses ranges that this host allows only because it did so before."""
    named = " and ".join(map(str, cidrs))
    return Condition(
        name="mesh-cidr-outside-within",
        cause=f"the mesh uses {named}, outside mesh.within of this host; it stays valid since this"
        " host used it before it had that setting",
        hint=f"write within = [{bounds.widened(cidrs)}] under [mesh] in agent.toml, and agentctl"
        " reload",
    )


def config_gone() -> Condition:
    """Report that the config is gone from etcd; the last usable one is in use."""
    return Condition(
        name="mesh-config-gone",
        severity=Severity.ERROR,
        cause="the mesh's config is gone from etcd; the last known one is used",
        hint="it is written back from this host's copy; to dismantle the mesh: agentctl"
        " leave on every host",
    )


def cloned(other: Heartbeat, *, leased: bool) -> Condition:
    """Report another host that found this host's identity in use, and got no lease.

    Args:
        leased: This host has the lease; else it is a clone, too.
    """
    whose = ", which keeps its lease" if leased else ", which has no lease either"
    return Condition(
        name="machine-id-cloned",
        subject=str(other.node_address),
        severity=Severity.ERROR,
        cause=f"host {other.host_name or other.host_id} at {other.node_address} has the same"
        f" id as this host{whose}; that one gets none",
        hint=CLONE_HINT,
    )


def dead(lease: Lease) -> Condition:
    """Report a peer without heartbeat that answers no probe."""
    name = lease.host_name or str(lease.node_address)
    return Condition(
        name="peer-dead",
        subject=str(lease.subnet),
        cause=f"{name} is down: no heartbeat, no answer to ping; {lease.subnet} is unreachable",
        hint="nothing to do if it is rebooting. Gone for good: agentctl remove "
        f"{lease.host_name or lease.subnet}",
    )


def moving(config: MeshConfig, leases: Iterable[Lease]) -> Condition:
    """Report that the mesh moves to another CIDR, with the hosts that have not moved."""
    left = ", ".join(map(str, config.previous))
    hosts = [
        each.host_name or str(each.node_address) for each in leases if config.must_move(each.subnet)
    ]
    who = (
        f"{len(hosts)} still hold a subnet there: {first_few(hosts, _NAMES_SHOWN)}"
        if hosts
        else "every host has moved"
    )
    return Condition(
        name="mesh-moving",
        severity=Severity.INFO,
        cause=f"the mesh moves from {left} to {config.cidr}; {who}",
        hint="a host moves when its Docker may restart: agentctl docker restart --now there"
        if hosts
        else "agentctl config set --finish ends the move",
    )


def backend_changing(config: MeshConfig, view: View) -> Condition | None:
    """Report how far a change of the mesh's backend has come; None while there is none."""
    if config.accepted is None:
        return None
    other = config.accepted.name
    behind = awaited(view, config.backend, Step.SWITCH)
    if behind:
        named = first_few(
            [each.host_name or str(each.node_address) for each in behind], _NAMES_SHOWN
        )
        cause, hint = f"{named} do not send by {config.backend} yet", "see agentctl status there"
    else:
        cause = f"every live host sends by {config.backend}"
        hint = (
            f"agentctl config set --backend {config.backend} --finish gives {other} up; before a"
            f" change to {other}: agentctl config set --backend {other} --switch"
        )
    return Condition(
        name="mesh-backend-changing",
        severity=Severity.INFO,
        cause=f"hosts accept packets by {config.backend} and by {other}; {cause}",
        hint=hint,
    )


def not_moved(own: Lease, former: Lease, networks: tuple[DockerNetwork, ...]) -> Condition:
    """Report that the host keeps its previous subnet for Docker networks that still lie in it."""
    named = first_few([f"{each.name} ({each.subnet})" for each in networks], _NAMES_SHOWN)
    return Condition(
        name="host-not-moved",
        subject=str(former.subnet),
        severity=Severity.INFO,
        cause=f"this host keeps {former.subnet} beside {own.subnet} since Docker has networks in"
        f" it: {named}",
        hint="docker0 moves when Docker restarts (agentctl docker restart --now); other networks"
        " when they are made again (docker compose down, then up)",
    )


def own_set_aside(record: SetAside) -> Condition:
    """Report that no host uses this host's lease in etcd."""
    return Condition(
        name="own-lease-set-aside",
        subject=record.key,
        severity=Severity.ERROR,
        cause=f"no host of the mesh routes to this one: {record.reason}",
        hint="the lease is kept; give the host a node address outside the mesh (host.uplink,"
        " host.node_address in agent.toml) or correct the mesh's CIDR: agentctl config set",
    )


def set_aside(record: SetAside) -> Condition:
    """Report a record that is not used."""
    return Condition(
        name="record-set-aside",
        subject=record.key,
        cause=record.reason,
        hint="correct or delete this key in etcd; every other record is used",
    )
