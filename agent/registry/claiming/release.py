"""Giving leases back: each by one transaction that compares first."""

from __future__ import annotations

from collections.abc import Callable

from agent.errors import EtcdError
from agent.etcd import kv
from agent.etcd.client import EtcdClient
from agent.etcd.kv import Record
from agent.model import HostId, Lease, View
from agent.model.family import Network
from agent.registry.claiming.claims import confirmed
from agent.registry.claiming.identity_conflicts import IdentityInUseError
from agent.registry.record_store import RecordStore
from agent.registry.records import HEARTBEATS, LEASES, Keys

__all__ = ["Releases"]

_TRIES = 4


class Releases:
    """Ends what a host has in etcd, never what somebody else has by now.

    Args:
        client: To etcd.
        keys: Of the mesh.
        read: Returns all records at one revision.
    """

    def __init__(self, client: EtcdClient, keys: Keys, read: Callable[[], RecordStore]) -> None:
        self._client = client
        self._keys = keys
        self._read = read

    def release(self, host_id: HostId, boot_id: str) -> Network | None:
        """See :meth:`agent.registry.registry.Registry.release`."""
        given_back: Network | None = None
        for _ in range(_TRIES):
            records = self._read()
            _refuse_as_clone(records.view(), host_id, boot_id)
            owned = [each for each in records.leases() if each.host_id == host_id]
            heartbeat = kv.delete(self._keys.of(HEARTBEATS, host_id))
            if not owned:
                self._client.txn("end the heartbeat", [], [heartbeat])
                return given_back
            for lease in owned:
                key = self._keys.of(LEASES, lease.subnet)
                result = self._client.txn(
                    f"release {lease.subnet}",
                    [kv.unchanged(key, lease.mod_revision)],
                    [kv.delete(key), heartbeat],
                )
                if result.succeeded:
                    given_back = lease.subnet
                    self._client.drop(lease.etcd_lease_id)
        raise EtcdError(f"the lease of host {host_id} is written faster than it can be released")

    def give_back(self, lease: Lease) -> None:
        """See :meth:`agent.registry.registry.Registry.give_back`."""
        key = self._keys.of(LEASES, lease.subnet)
        for _ in range(_TRIES):
            compares = [kv.unchanged(key, lease.mod_revision)]
            task = f"give {lease.subnet} back"
            result = self._client.txn(task, compares, [kv.delete(key)], [kv.get(key)])
            if result.succeeded:
                self._client.drop(lease.etcd_lease_id)
                return
            there = result.ranges[0]
            if not there or not _is_of(lease, self._keys, there[0]):
                return
            lease = confirmed(lease, there[0])
        raise EtcdError(f"the lease of {lease.subnet} is written faster than it can be given back")


def _refuse_as_clone(view: View, host_id: HostId, boot_id: str) -> None:
    """Raise IdentityInUseError when another boot of this identity lives, or refused this one."""
    beat = view.heartbeats.get(host_id)
    other_beats = beat is not None and beat.boot_id not in {"", boot_id}
    refused = any(each.host_id == host_id and each.boot_id == boot_id for each in view.clones)
    lease = view.lease_of(host_id)
    address = (beat and beat.node_address) or (lease and lease.node_address)
    if boot_id and address and (other_beats or refused):
        shown = (beat and beat.host_name) or (lease and lease.host_name) or host_id
        raise IdentityInUseError(shown, address, beating=other_beats)


def _is_of(lease: Lease, keys: Keys, record: Record) -> bool:
    """Whether ``record`` still says that the owner of ``lease`` has the subnet."""
    try:
        return keys.read(LEASES, record).host_id == lease.host_id
    except ValueError:
        return False
