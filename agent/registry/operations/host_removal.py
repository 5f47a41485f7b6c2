"""Retire a host: delete its leases, its heartbeat and its memory."""

from __future__ import annotations

from agent.errors import EtcdError, Refused
from agent.etcd import kv
from agent.model import Lease, View
from agent.model.family import Network
from agent.registry.operations.hosts import HostRef, hosts_of
from agent.registry.records import HEARTBEATS, LEASES, MEMORY
from agent.registry.registry import Registry

__all__ = ["remove_host"]

_TRIES = 5


def remove_host(
    registry: Registry, host: HostRef, *, force: bool = False, dry: bool = False
) -> tuple[Network, ...]:
    """Retire another host before its TTLs do: leases, heartbeat and memory. Idempotent.

    Its reservations stay: they are the operator's.

    Returns:
        The subnets that it held, () when none.

    Raises:
        Refused: It is alive, or (a flannel host) nobody can tell, and ``force`` is not
            given.
    """
    for _ in range(_TRIES):
        records = registry.records()
        if not force:
            _refuse_alive(records.view(), host)
        owned = [each for each in records.leases() if _is_of(each, host)]
        compares = [
            kv.unchanged(registry.keys.of(LEASES, each.subnet), each.mod_revision) for each in owned
        ]
        deletes = [kv.delete(registry.keys.of(LEASES, each.subnet)) for each in owned]
        if host.host_id is not None:
            heartbeat = registry.keys.of(HEARTBEATS, host.host_id)
            compares += [] if force else [kv.absent(heartbeat)]
            deletes += [kv.delete(heartbeat), kv.delete(registry.keys.of(MEMORY, host.host_id))]
        subnets = tuple(each.subnet for each in owned)
        if dry or registry.client.txn(f"remove host {host}", compares, deletes).succeeded:
            return subnets
    raise EtcdError(f"host {host} writes its lease faster than it can be removed")


def _is_of(lease: Lease, host: HostRef) -> bool:
    if host.host_id is not None:
        return lease.host_id == host.host_id
    return lease.host_id is None and lease.node_address == host.node_address


def _refuse_alive(view: View, host: HostRef) -> None:
    if host.host_id is None:
        raise Refused(
            f"{host} may be alive: flannel writes no heartbeat",
            hint="stop flanneld there; then --force takes its lease away",
        )
    if host.host_id in view.heartbeats:
        known = next((each for each in hosts_of(view) if each.host_id == host.host_id), host)
        raise Refused(
            f"host {known} is alive",
            hint="run agentctl leave there; --force takes its subnet away, and it claims it again",
        )
