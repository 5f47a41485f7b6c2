"""Write heartbeats: alive or not, and one live host per identity."""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import EtcdError
from agent.etcd import kv
from agent.etcd.client import EtcdClient
from agent.etcd.errors import EtcdLeaseGoneError
from agent.etcd.kv import Record
from agent.model import Heartbeat
from agent.registry.claiming.identity_conflicts import Claimant
from agent.registry.records import HEARTBEATS, Keys, encode_heartbeat

__all__ = ["HeartbeatWriter", "Written"]

_TRIES = 4


@dataclass(frozen=True, slots=True)
class Written:
    """A heartbeat that is in etcd.

    Attributes:
        etcd_lease_id: For :meth:`EtcdClient.keep_alive`.
        revision: At which it was written.
    """

    etcd_lease_id: int
    revision: int


class HeartbeatWriter:
    """Writes heartbeats by transactions that look at who wrote the last one.

    Args:
        client: To etcd.
        keys: Of the mesh.
    """

    def __init__(self, client: EtcdClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def write(
        self, heartbeat: Heartbeat, ttl_s: int, etcd_lease_id: int, claimant: Claimant
    ) -> Written:
        """See :meth:`agent.registry.registry.Registry.heartbeat`."""
        key = self._keys.of(HEARTBEATS, heartbeat.host_id)
        compare = kv.attached(key, etcd_lease_id) if etcd_lease_id else kv.absent(key)
        for _ in range(_TRIES):
            etcd_lease_id = etcd_lease_id or self._client.grant(ttl_s).id
            put = kv.put(key, encode_heartbeat(heartbeat), etcd_lease_id)
            try:
                result = self._client.txn("write the heartbeat", [compare], [put], [kv.get(key)])
            except EtcdLeaseGoneError:
                etcd_lease_id = 0
                continue
            if result.succeeded:
                return Written(etcd_lease_id, result.revision)
            found = result.ranges[0]
            if not found:
                compare = kv.absent(key)
            else:
                self._refuse_other(found[0], claimant, etcd_lease_id)
                compare = kv.unchanged(key, found[0].mod_revision)
        raise EtcdError(f"the heartbeat {key.decode()} changes faster than it can be written")

    def _refuse_other(self, record: Record, claimant: Claimant, etcd_lease_id: int) -> None:
        """Raise IdentityInUseError when ``record`` was written by another live host."""
        if record.lease_id == etcd_lease_id:  # our own earlier try got through
            return
        try:
            other = self._keys.read(HEARTBEATS, record)
        except ValueError:
            return  # no host's: overwriting it costs nothing
        claimant.check_heartbeat(other)
