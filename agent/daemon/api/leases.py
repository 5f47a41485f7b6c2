"""The JSON documents that daemon and agentctl share. Pure: view in, plain values out.

docs/control-socket.md describes each field; the shape changes only with its "version".
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import Any

from agent.daemon.api.hosts import Hosts
from agent.daemon.state.freshness import CURRENT, Freshness
from agent.mesh.ways import OwnDevice, Way
from agent.model import HostId, Lease, View
from agent.model.family import Network

__all__ = ["leases_document"]

_NEVER: Mapping[HostId, float] = MappingProxyType({})
_UNKNOWN: Mapping[Network, float] = MappingProxyType({})
_NO_WAYS: Mapping[Network, Way] = MappingProxyType({})
_RENEWED_BY = 0.75
"""An agent that runs renews long before so little of a lease's time is left."""


def leases_document(
    view: View,
    own: HostId | None,
    now_s: float,
    *,
    last_heartbeat_s: Mapping[HostId, float] = _NEVER,
    left_s: Mapping[Network, float] = _UNKNOWN,
    freshness: Freshness = CURRENT,
    ways: Mapping[Network, Way] = _NO_WAYS,
    device: OwnDevice | None = None,
    dead: Container[Network] | None = None,
) -> dict[str, Any]:
    """Describe every lease of ``view``, in order of subnet.

    Args:
        view: A complete view.
        own: This host's id, None when it is not known.
        now_s: Unix time.
        last_heartbeat_s: When each host whose heartbeat lapsed was last seen alive (Unix
            time). Only a watcher can know; without it ``silent_s`` is null.
        left_s: How long flannel's leases last, by subnet, as far as it is known.
        freshness: How old ``view`` is.
        ways: How this host sends to each subnet.
        device: This host's own.
        dead: Subnets of hosts that have no heartbeat and answer no probe; None: not probed.
    """
    config, hosts = view.config, Hosts(view, freshness)
    return {
        "version": 1,
        **freshness.document(now_s),
        "cached": view.cached,
        "previous": [str(each) for each in config.previous] if config else [],
        "leases": [
            {
                **_lease(lease, view, own, now_s, last_heartbeat_s, left_s, freshness),
                "reachable": None if dead is None else lease.subnet not in dead,
                **hosts.fields(lease.host_id),
                **_way(lease, own, ways.get(lease.subnet), device),
            }
            for lease in view.leases
        ],
        "without_lease": hosts.without_lease(),
        "newest_version": hosts.newest,
        "set_aside": [{"key": each.key, "reason": each.reason} for each in view.set_aside],
    }


def _lease(
    lease: Lease,
    view: View,
    own: HostId | None,
    now_s: float,
    last_heartbeat_s: Mapping[HostId, float],
    left_s: Mapping[Network, float],
    freshness: Freshness,
) -> dict[str, Any]:
    host_id = lease.host_id
    heartbeat = view.heartbeats.get(host_id) if host_id is not None else None
    said = freshness.heartbeat(host_id, view, now_s, last_heartbeat_s)
    known = heartbeat is not None and not freshness.stale
    return {
        "subnet": str(lease.subnet),
        "host_id": host_id,
        "host_name": lease.host_name,
        "node_address": str(lease.node_address),
        "backend": lease.backend,
        "backend_data": lease.backend_data.fields if lease.backend_data else None,
        "accepted_backend": lease.accepted.name if lease.accepted else None,
        "age_s": None if lease.claimed_s is None else _since(lease.claimed_s, now_s),
        "ttl_left_s": _ttl_left(lease, now_s, left_s, renewing=said["alive"] is True),
        **said,
        "silent_s": said["last_seen_s"] if said["alive"] is False else None,
        "docker": str(heartbeat.docker) if known and heartbeat is not None else None,
        "container": freshness.container(lease, view),
        "own": own is not None and host_id == own,
        "moving": view.config is not None and view.config.must_move(lease.subnet),
    }


def _way(
    lease: Lease, own: HostId | None, way: Way | None, device: OwnDevice | None
) -> dict[str, Any]:
    """Return by which device this host sends to the lease's owner; of its own lease that device."""
    mine = own is not None and lease.host_id == own
    name, mtu = None, None
    if mine and device is not None:
        name, mtu = device.name, device.mtu
    elif way is not None:
        name, mtu = way.device, way.mtu
    return {
        "link": lease.link or None,
        "device": name,
        "direct": None if mine or way is None else way.direct,
        "mtu": mtu or None,
    }


def _since(then_s: float, now_s: float) -> float:
    """Return the seconds from ``then_s``, never negative: other hosts' clocks may be ahead."""
    return round(max(0.0, now_s - then_s), 1)


def _ttl_left(
    lease: Lease, now_s: float, asked_s: Mapping[Network, float], *, renewing: bool
) -> float | None:
    """Return the time left: by the owner's clock, or for flannel's leases as etcd says.

    Args:
        renewing: The owner has a heartbeat, so it renews in time: less than that leaves comes
            from a clock that is off, and says nothing.
    """
    left_s = lease.left_s(now_s)
    if left_s is None:
        left_s = asked_s.get(lease.subnet)
    elif renewing and lease.ttl_s is not None and left_s < lease.ttl_s * _RENEWED_BY:
        return None
    return None if left_s is None else round(left_s, 1)
