"""Turns: what at most one host of the mesh does at a time, such as restarting its Docker.

A turn is a key ``<prefix>/turns/<what>`` on a short etcd lease, written by a transaction that
finds no such key. Its holder keeps the etcd lease alive; a holder that dies loses the turn when
the TTL has passed. A host that finds its own earlier life there takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.etcd import kv
from agent.etcd.client import EtcdClient
from agent.etcd.errors import EtcdLeaseGoneError
from agent.etcd.kv import Record
from agent.model import HostId
from agent.registry.records import TURNS, Keys, Taker

__all__ = ["Holder", "Turn", "Turns"]

_TRIES = 4


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that we hold, by its etcd lease."""

    key: bytes
    etcd_lease_id: int


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has the turn instead.

    Attributes:
        host_name: Printable ASCII; "" when the record does not say.
        mod_revision: The record's.
    """

    host_name: str
    mod_revision: int


class Turns:
    """Takes and gives back turns for one host. Thread-safe.

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
        self._value = TURNS.encode(Taker(host_id, host_name))

    def take(self, what: str, ttl_s: int, *, over: int = 0) -> Turn | Holder:
        """Take the turn, or say who has it.

        Args:
            what: Name of the turn.
            ttl_s: How long it outlives us.
            over: A record's revision that must not be minded: its holder had its time.

        Raises:
            EtcdUnavailable, EtcdAuthError, EtcdError: As their names say.
        """
        key = self._keys.of(TURNS, what)
        lease_id = 0
        compare = kv.absent(key)
        holder = Holder("", 0)
        for _ in range(_TRIES):
            lease_id = lease_id or self._client.grant(ttl_s).id
            put = kv.put(key, self._value, lease_id)
            try:
                result = self._client.txn(f"take the turn {what}", [compare], [put], [kv.get(key)])
            except EtcdLeaseGoneError:
                lease_id = 0
                continue
            found = result.ranges[0] if not result.succeeded else ()
            if result.succeeded or (found and found[0].lease_id == lease_id):
                return Turn(key, lease_id)  # also when an earlier try had got through
            if not found:
                compare = kv.absent(key)
                continue
            compare = kv.unchanged(key, found[0].mod_revision)
            taker = self._taker(found[0])
            holder = Holder(taker.host_name if taker else "", found[0].mod_revision)
            if not self._may_replace(found[0], over):
                break
        if lease_id:
            self._client.revoke(lease_id)
        return holder

    def _may_replace(self, record: Record, over: int) -> bool:
        """Whether a record holds nobody's turn: ours of old, without an end, or overdue."""
        taker = self._taker(record)
        return (
            (taker is not None and taker.host_id == self._host_id)
            or not record.lease_id
            or record.mod_revision == over
        )

    def _taker(self, record: Record) -> Taker | None:
        try:
            return self._keys.read(TURNS, record)
        except ValueError:
            return None

    def keep(self, turn: Turn) -> bool:
        """Give the turn its full TTL again; False when it is lost.

        That its etcd lease lives does not say so: its key may be deleted, or another's by now.

        Raises:
            EtcdUnavailable, EtcdAuthError, EtcdError: As their names say.
        """
        if self._client.keep_alive(turn.etcd_lease_id) == 0:
            return False
        found = self._client.range(turn.key).records
        return bool(found) and found[0].lease_id == turn.etcd_lease_id

    def give_back(self, turn: Turn) -> None:
        """End the turn; one that is gone is fine.

        Raises:
            EtcdUnavailable, EtcdAuthError, EtcdError: As their names say; the TTL ends it.
        """
        self._client.revoke(turn.etcd_lease_id)
