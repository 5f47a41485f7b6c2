"""Retire a host: delete its leases, its heartbeat and its memory."""

from __future__ import annotations

from agent.errors import EtcdError, Refused
from agent.etcd import kv
from agent.model import Lease, View
from agent.model.family import Network
from agent.registry.claiming.release import published_ranges
from agent.registry.operations.hosts import HostRef, hosts_of
from agent.registry.records import HEARTBEATS, LEASES, MEMORY, OWNERS
from agent.registry.registry import Registry

__all__ = ["remove_host"]

_TRIES = 5
_BATCH = 100  # leases of one transaction


def remove_host(
    registry: Registry, host: HostRef, *, force: bool = False, dry: bool = False
) -> tuple[Network, ...]:
    """Retire another host before its TTLs do: leases, heartbeat and memory. Idempotent.

    Its reservations stay: they are the operator's.

    Returns:
        The subnets that it held, () when none.

    Raises:
        Refused: It is alive, or (a flannel host) it may be, and ``force`` is not
            given.
    """
    for _ in range(_TRIES):
        records = registry.records()
        if not force:
            _refuse_alive(records.view(), host)
        leases = [each for each in records.leases() if _is_of(each, host)]
        owned = [each for each in records.owners() if _is_of(each, host)]
        subnets = tuple(dict.fromkeys(each.subnet for each in (*leases, *owned)))
        if dry or _removed(registry, host, leases, force=force):
            return subnets
    raise EtcdError(f"host {host} writes its lease faster than it can be removed")


def _removed(registry: Registry, host: HostRef, leases: list[Lease], *, force: bool) -> bool:
    """Delete what a host has; return False when some of it changed meanwhile.

    A host may have put its name on any number of keys under ``subnets/``.
    """
    keys = registry.keys
    alive: list[kv.Compare] = []
    first: list[kv.Operation] = []
    if host.host_id is not None:
        heartbeat = keys.of(HEARTBEATS, host.host_id)
        alive = [] if force else [kv.absent(heartbeat)]
        first = [
            kv.delete(heartbeat),
            kv.delete(keys.of(MEMORY, host.host_id)),
            kv.delete(*keys.of_host(OWNERS, host.host_id)),
            *(kv.delete(*each) for each in published_ranges(keys, host.host_id)),
        ]
    for at in range(0, max(1, len(leases)), _BATCH):
        part = leases[at : at + _BATCH]
        places = [keys.of(LEASES, each.subnet) for each in part]
        same = [
            kv.unchanged(key, each.mod_revision) for key, each in zip(places, part, strict=True)
        ]
        deletes = [*(first if at == 0 else []), *map(kv.delete, places)]
        if not registry.client.txn(f"remove host {host}", [*alive, *same], deletes).succeeded:
            return False
    return True


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
