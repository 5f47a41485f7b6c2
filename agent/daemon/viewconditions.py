"""The conditions that a view of etcd can bring. Pure."""

from __future__ import annotations

from agent.leases.rivals import CLONE_HINT
from agent.model import Condition, Heartbeat, Lease, SetAside, Severity

__all__ = ["alarm", "cloned", "config_gone", "config_unusable", "dead", "set_aside"]


def alarm(reason: str) -> Condition:
    """The newest view is not believed (promise 4)."""
    return Condition(
        name="etcd-alarm",
        severity=Severity.ERROR,
        cause=reason,
        hint="routes and leases are held as they were; check that agent.toml names the right"
        " etcd; if this is how it should be: agentctl etcd accept",
    )


def config_unusable(problem: str) -> Condition:
    """The config in etcd describes no mesh; the last usable one is in force."""
    return Condition(
        name="mesh-config-unusable",
        severity=Severity.ERROR,
        cause=problem,
        hint="agentctl config show; correct the key with etcdctl or agentctl config",
    )


def config_gone() -> Condition:
    """The config is gone from etcd; the last usable one is in force."""
    return Condition(
        name="mesh-config-gone",
        severity=Severity.ERROR,
        cause="the mesh's config is gone from etcd; the last known one is used",
        hint="it is written back from this host's copy; if the mesh shall end: agentctl leave"
        " on every host",
    )


def cloned(other: Heartbeat) -> Condition:
    """Another host found this host's identity in use, and got no lease for it."""
    return Condition(
        name="machine-id-cloned",
        subject=str(other.node_address),
        severity=Severity.ERROR,
        cause=f"host {other.host_name or other.host_id} at {other.node_address} has the same"
        " machine-id as this host, which keeps its lease; that one gets none",
        hint=CLONE_HINT,
    )


def dead(lease: Lease) -> Condition:
    """A peer without heartbeat that answers no probe."""
    return Condition(
        name="peer-dead",
        subject=str(lease.subnet),
        cause=f"{lease.host_name or lease.host_id} at {lease.node_address} has no heartbeat and"
        " answers no probe; its subnet is unreachable",
        hint="it heals by itself when the host answers; if it is gone for good, its lease ends"
        " by itself",
    )


def set_aside(record: SetAside) -> Condition:
    """One record that is not used."""
    return Condition(
        name="record-set-aside",
        subject=record.key,
        cause=record.reason,
        hint="correct or delete this key in etcd; every other record is used",
    )
