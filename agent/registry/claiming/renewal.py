"""Renew a lease: write it again where the key that decides is as this host left it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from agent.errors import ClaimConflict, EtcdError
from agent.etcd import kv
from agent.etcd.client import EtcdClient
from agent.etcd.errors import EtcdLeaseGoneError
from agent.etcd.kv import Record
from agent.model import Lease, OwnerRecords
from agent.registry.claiming.identity_conflicts import Claimant
from agent.registry.claiming.request import LeaseLostError
from agent.registry.records import LEASES, MEMORY, OWNERS, Keys, encode_lease, encode_memory

__all__ = ["Renewals", "confirmed", "is_damaged", "lease_puts"]

_log = structlog.get_logger()

_RENEW_TRIES = 4
_DAY_S = 86_400


class Renewals:
    """Renews leases, each by one transaction that compares first.

    Args:
        client: To etcd.
        keys: Of the mesh.
        wall_clock: Unix seconds, written for display only.
    """

    def __init__(self, client: EtcdClient, keys: Keys, wall_clock: Callable[[], float]) -> None:
        self._client = client
        self._keys = keys
        self._wall_clock = wall_clock

    def renew(
        self, lease: Lease, memory_ttl_s: int, claimant: Claimant, *, fresh: bool = False
    ) -> Lease:
        """Write ``lease`` if the key that decides is as it was when ``lease`` was read or written.

        Args:
            lease: As wished, with the revision and the etcd lease that the key had.
            memory_ttl_s: Of the memory; 0 leaves that as it is.
            claimant: Whose lease it is to be.
            fresh: It is flannel's until now: do not go on with its etcd lease.
        """
        own = lease
        for _ in range(_RENEW_TRIES):
            ttl_s = lease.ttl_s or _DAY_S
            before_id = lease.etcd_lease_id
            lease_id = self._kept_alive(0 if fresh else before_id, ttl_s)
            wished = replace(lease, etcd_lease_id=lease_id, renewed_s=round(self._wall_clock(), 3))
            try:
                renewed = self._write(wished, before_id, memory_ttl_s, claimant, fresh=fresh)
            except EtcdLeaseGoneError:
                continue
            if isinstance(renewed, Lease):
                if not fresh:
                    self._drop_unused({before_id, own.etcd_lease_id} - {lease_id})
                return renewed
            if lease_id != before_id:
                self._client.drop(lease_id)
            lease = self._after_conflict(lease, renewed, claimant, damaged=is_damaged(own, renewed))
        raise EtcdError(f"the lease of {lease.subnet} changes faster than it can be renewed")

    def _write(
        self,
        lease: Lease,
        before_id: int,
        memory_ttl_s: int,
        claimant: Claimant,
        *,
        fresh: bool,
    ) -> Lease | Record | None:
        """Write a lease and the memory of it if the key that decides was not written since.

        Revisions alone do not prove that: an etcd that was replaced counts anew and may
        have reached the same one. The etcd lease's id is random.

        Returns:
            The lease as written; else the record of the key that decides, None when it is gone.
        """
        subnet = lease.subnet
        key = self._keys.of(LEASES, subnet) if fresh else claimant.lease_key(self._keys, subnet)
        puts = lease_puts(self._keys, lease, claimant)
        if memory_ttl_s:
            memory = self._keys.of(MEMORY, claimant.host_id)
            remembered = self._client.range(memory).records
            memory_id = self._kept_alive(remembered[0].lease_id if remembered else 0, memory_ttl_s)
            puts.append(kv.put(memory, encode_memory(subnet), memory_id))
        compares = [kv.unchanged(key, lease.mod_revision)]
        if before_id:
            compares.append(kv.attached(key, before_id))
        if fresh and claimant.owners is OwnerRecords.DECIDE:
            compares.append(kv.absent(claimant.lease_key(self._keys, subnet)))
        # The key that decides is another one after owner records came to decide, or ceased to.
        written = kv.get(claimant.lease_key(self._keys, subnet), keys_only=True)
        result = self._client.txn(f"renew {subnet}", compares, [*puts, written], [kv.get(key)])
        if result.succeeded:
            return confirmed(lease, result.ranges[0][0])
        there = result.ranges[0]
        value = encode_lease(lease, boot_id=claimant.boot_id)
        if there and there[0].value == value:  # an earlier try got through
            return confirmed(lease, there[0])
        return there[0] if there else None

    def _after_conflict(
        self, lease: Lease, there: Record | None, claimant: Claimant, *, damaged: bool
    ) -> Lease:
        """Continue from another writer's record, if it still says that the host is the owner.

        Args:
            damaged: The key never went away, and no other agent can have written it: what
                cannot be read is written again (promise 2).
        """
        if there is None:
            raise LeaseLostError(f"the lease of {lease.subnet} is gone from etcd")
        try:
            found = self._keys.read_lease(there)
        except ValueError as error:
            if damaged:
                return confirmed(lease, there)
            raise ClaimConflict(
                f"the lease of {lease.subnet} was overwritten with something unreadable: {error}",
                hint=f"look at it with etcdctl get {there.key.decode()}, then delete it",
            ) from error
        claimant.check_lease(found, there)
        ours = found.host_id == lease.host_id
        flannel_here = found.host_id is None and found.node_address == lease.node_address
        if not ours and not flannel_here:
            raise ClaimConflict(
                f"{lease.subnet} is now leased to {_shown(found)}",
                hint="this host was away for longer than the lease's TTL; it needs another subnet",
            )
        return confirmed(lease, there)

    def _kept_alive(self, lease_id: int, ttl_s: int) -> int:
        """Give an etcd lease its TTL again; make one when it is gone or has another TTL."""
        if lease_id and self._client.keep_alive(lease_id) == ttl_s:
            return lease_id
        return self._client.grant(ttl_s).id

    def _drop_unused(self, lease_ids: Iterable[int]) -> None:
        """Revoke etcd leases, but for one on which slices or endpoints still hang.

        Their writer attaches them to the new one; until then no peer may think they are gone.
        """
        for each in lease_ids:
            try:
                if not self._client.has_keys(each):
                    self._client.drop(each)
            except EtcdError as error:
                _log.debug("etcd-lease-left-to-expire", reason=str(error))


def lease_puts(keys: Keys, lease: Lease, claimant: Claimant) -> list[kv.Operation]:
    """Return what writes a lease: its key, and its owner record where the mesh has these.

    Both have the same value and the same etcd lease.
    """
    value = encode_lease(lease, boot_id=claimant.boot_id)
    written = [keys.of(LEASES, lease.subnet)]
    if claimant.owners is not OwnerRecords.UNUSED:
        written.append(keys.of(OWNERS, (claimant.host_id, lease.subnet)))
    return [kv.put(each, value, lease.etcd_lease_id) for each in written]


def is_damaged(own: Lease, there: Record | None) -> bool:
    """Whether a key that differs from the host's own lease can only have been overwritten.

    A claim of another host needs the key to be absent first, and always attaches an etcd lease.
    """
    return (
        there is not None
        and own.create_revision != 0
        and there.create_revision == own.create_revision
        and there.lease_id in {0, own.etcd_lease_id}
    )


def confirmed(lease: Lease, record: Record) -> Lease:
    """The lease with the revisions and the etcd lease that its key has."""
    return replace(
        lease,
        etcd_lease_id=record.lease_id,
        create_revision=record.create_revision,
        mod_revision=record.mod_revision,
    )


def _shown(lease: Lease) -> str:
    return f"{lease.host_name or lease.host_id or 'a flannel host'} at {lease.node_address}"
