"""Locks of the mesh: work that at most one host does at a time, such as restarting its Docker.

A lock is a key ``<prefix>/turns/<work>`` on a short etcd lease, written by a transaction that
requires the key to be absent. The holder keeps the etcd lease alive; the lock of a holder that died
ends with the TTL. A host that finds a lock of its own earlier run replaces it.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.etcd import kv
from agent.etcd.client import EtcdClient
from agent.etcd.errors import EtcdLeaseGoneError
from agent.etcd.kv import Record
from agent.model import HostId
from agent.registry.records import LOCKS, Keys, LockRecord

__all__ = ["LockHolder", "MeshLock", "MeshLocks"]

_TRIES = 4


@dataclass(frozen=True, slots=True)
class MeshLock:
    """A lock that this host holds, by its etcd lease."""

    key: bytes
    etcd_lease_id: int


@dataclass(frozen=True, slots=True)
class LockHolder:
    """The host that has the lock instead.

    Attributes:
        host_name: Printable ASCII; "" when the record does not say.
        mod_revision: The record's.
    """

    host_name: str
    mod_revision: int


class MeshLocks:
    """Takes and releases locks for one host. Thread-safe.

    Args:
        client: To etcd.
        prefix: Such as "/hostmesh".
        host_id: Of this host.
        host_name: For the others to see.
    """

    def __init__(self, client: EtcdClient, prefix: str, host_id: HostId, host_name: str) -> None:
        self._client = client
        self._keys = Keys(prefix)
        self._host_id = host_id
        self._value = LOCKS.encode(LockRecord(host_id, host_name))

    def take(self, work: str, ttl_s: int, *, over: int = 0) -> MeshLock | LockHolder:
        """Take a lock, or return its holder.

        Args:
            work: Name of the lock.
            ttl_s: How long the lock outlives its holder.
            over: Revision of a record to replace: its holder had its time.

        Raises:
            EtcdUnavailable, EtcdAuthError, EtcdError: As their names say.
        """
        key = self._keys.of(LOCKS, work)
        lease_id = 0
        compare = kv.absent(key)
        holder = LockHolder("", 0)
        for _ in range(_TRIES):
            lease_id = lease_id or self._client.grant(ttl_s).id
            put = kv.put(key, self._value, lease_id)
            try:
                result = self._client.txn(f"take the lock {work}", [compare], [put], [kv.get(key)])
            except EtcdLeaseGoneError:
                lease_id = 0
                continue
            found = result.ranges[0] if not result.succeeded else ()
            if result.succeeded or (found and found[0].lease_id == lease_id):
                return MeshLock(key, lease_id)  # also when an earlier try had got through
            if not found:
                compare = kv.absent(key)
                continue
            compare = kv.unchanged(key, found[0].mod_revision)
            written = self._read(found[0])
            holder = LockHolder(written.host_name if written else "", found[0].mod_revision)
            if not self._may_replace(found[0], over):
                break
        if lease_id:
            self._client.revoke(lease_id)
        return holder

    def _may_replace(self, record: Record, over: int) -> bool:
        """Whether a record may be replaced: this host's own, without an etcd lease, or overdue."""
        holder = self._read(record)
        return (
            (holder is not None and holder.host_id == self._host_id)
            or not record.lease_id
            or record.mod_revision == over
        )

    def _read(self, record: Record) -> LockRecord | None:
        try:
            return self._keys.read(LOCKS, record)
        except ValueError:
            return None

    def keep(self, lock: MeshLock) -> bool:
        """Give a lock its full TTL again; return False when it is lost.

        Read the key, too: it may be deleted, or another host's, while the etcd lease lives.

        Raises:
            EtcdUnavailable, EtcdAuthError, EtcdError: As their names say.
        """
        if self._client.keep_alive(lock.etcd_lease_id) == 0:
            return False
        found = self._client.range(lock.key).records
        return bool(found) and found[0].lease_id == lock.etcd_lease_id

    def give_back(self, lock: MeshLock) -> None:
        """Release a lock; one that is gone is fine.

        Raises:
            EtcdUnavailable, EtcdAuthError, EtcdError: As their names say; the TTL ends it.
        """
        self._client.revoke(lock.etcd_lease_id)
