"""Give leases back: each by one transaction that compares first."""

from __future__ import annotations

from collections.abc import Callable

from agent.errors import EtcdError
from agent.etcd import kv
from agent.etcd.client import EtcdClient
from agent.model import HostId, View
from agent.model.family import Network
from agent.registry.claiming.identity_conflicts import IdentityInUseError
from agent.registry.record_store import RecordStore
from agent.registry.records import (
    ENDPOINTS,
    HEARTBEATS,
    LEASES,
    OWNERS,
    SLICES,
    KeyRange,
    Keys,
)

__all__ = ["Releases", "end_lease", "published_ranges"]

_TRIES = 4


class Releases:
    """Ends what a host has in etcd, never what another host has by now.

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
            self._end_published(host_id)  # before the lease, outside of which no slice counts
            every = (*records.leases(), *records.owners())
            owned = {each.subnet for each in every if each.host_id == host_id}
            if not owned:
                heartbeat = kv.delete(self._keys.of(HEARTBEATS, host_id))
                self._client.txn("end the heartbeat", [], [heartbeat])
                return given_back
            for subnet in owned:
                self.give_back(host_id, subnet)
                given_back = subnet
        raise EtcdError(f"the lease of host {host_id} is written faster than it can be released")

    def _end_published(self, host_id: HostId) -> None:
        """Delete slices and endpoints. Where a role may not write them yet there are none."""
        for start, end in published_ranges(self._keys, host_id):
            if self._client.range(start, end, limit=1, keys_only=True).records:
                self._client.txn("end what is published", [], [kv.delete(start, end)])

    def give_back(self, host_id: HostId, subnet: Network) -> None:
        """See :meth:`agent.registry.registry.Registry.give_back`."""
        self._client.drop(*end_lease(self._client, self._keys, host_id, subnet))


def end_lease(client: EtcdClient, keys: Keys, host_id: HostId, subnet: Network) -> frozenset[int]:
    """Delete a host's lease of a subnet and its owner record, whatever of them is there.

    Returns:
        The etcd leases that they were attached to.
    """
    places = [kv.get(keys.of(LEASES, subnet)), kv.get(keys.of(OWNERS, (host_id, subnet)))]
    for _ in range(_TRIES):
        looked = client.txn(f"read the lease of {subnet}", [], places)
        own = [each for found in looked.ranges for each in found if _is_of(host_id, keys, each)]
        if not own:
            return frozenset()
        compares = [kv.unchanged(each.key, each.mod_revision) for each in own]
        deletes = [kv.delete(each.key) for each in own]
        if client.txn(f"give {subnet} back", compares, deletes).succeeded:
            return frozenset(each.lease_id for each in own)
    raise EtcdError(f"the lease of {subnet} is written faster than it can be given back")


def published_ranges(keys: Keys, host_id: HostId) -> tuple[KeyRange, ...]:
    """Return the ranges of what a host publishes beside its lease."""
    return keys.of_host(SLICES, host_id), keys.of_host(ENDPOINTS, host_id)


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


def _is_of(host_id: HostId, keys: Keys, record: kv.Record) -> bool:
    """Whether a record says that the host has the subnet; its own owner record does in any case."""
    if keys.split(record.key)[0] is OWNERS:
        return True
    try:
        return keys.read_lease(record).host_id == host_id
    except ValueError:
        return False
