"""Distinguish this host's own previous run from a clone of its machine-id.

What another boot of this identity left in etcd (its heartbeat, its lease) is this host's own
when it names this host's address: two live hosts cannot share one. At another address it may
be this host before it was rebooted with a new address, or a clone. Only a host that can ask
at that address knows; until then nothing of it is taken over. A host that is refused so writes
a record of its own, which the other sees: both report it.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from agent.errors import ClaimConflict, EtcdError
from agent.etcd import kv
from agent.etcd.client import EtcdClient
from agent.etcd.errors import EtcdLeaseGoneError
from agent.etcd.kv import Record
from agent.model import Heartbeat, HostId, Lease, OwnerRecords
from agent.model.family import Address, Network
from agent.registry.records import (
    CLONES,
    HEARTBEATS,
    LEASES,
    MEMORY,
    OWNERS,
    Keys,
    decode_boot_id,
    encode_heartbeat,
)

__all__ = ["CLONE_HINT", "Claimant", "CloneCheck", "IdentityInUseError"]

_log = structlog.get_logger()

CLONE_HINT = (
    "one is a clone of the other. Where a token was used, give one of them a token of its own:"
    " systemctl stop hostmesh-agent, hostmesh-agent join --replace FILE. Else on one of them remove"
    " /etc/machine-id, run systemd-machine-id-setup and restart hostmesh-agent"
)


class IdentityInUseError(ClaimConflict):
    """Another host seems to have this host's identity.

    Args:
        shown: Its name or id.
        node_address: Where it says it is.
        beating: Its heartbeat is there; else only its lease is.
    """

    def __init__(self, shown: str, node_address: Address, *, beating: bool) -> None:
        if beating:
            what = f"host {shown} at {node_address} is alive with the same id as this host"
            hint = CLONE_HINT
        else:
            what = (
                f"host {shown} at {node_address} has a lease under this host's id, and"
                " it cannot be ruled out that it is alive there"
            )
            hint = (
                f"{CLONE_HINT}; if {node_address} is another machine's now and no host of the"
                " mesh's: agentctl remove this host there and it joins anew"
            )
        super().__init__(what, hint=hint)
        self.node_address = node_address
        self.beating = beating


@dataclass(frozen=True, slots=True)
class Claimant:
    """A host from boot to boot, at one address.

    Attributes:
        host_id: Its identity, the same in every boot.
        boot_id: Of this boot; "" when the caller has none, which is then compared as such.
        node_address: By which peers reach it now.
        cleared: Addresses of which is known that no clone of this host lives there.
        owners: What the mesh does with owner records.
    """

    host_id: HostId
    boot_id: str
    node_address: Address
    cleared: frozenset[Address] = frozenset()
    owners: OwnerRecords = OwnerRecords.UNUSED

    def lease_key(self, keys: Keys, subnet: Network) -> bytes:
        """Return the key that says whether this host has the lease of ``subnet``."""
        if self.owners is OwnerRecords.DECIDE:
            return keys.of(OWNERS, (self.host_id, subnet))
        return keys.of(LEASES, subnet)

    def owns(self, boot_id: str, node_address: Address | None) -> bool:
        """Whether what was written by that boot at that address is this host's own."""
        if node_address is None or node_address == self.node_address:
            return True
        return boot_id == self.boot_id or node_address in self.cleared

    def check_heartbeat(self, other: Heartbeat) -> None:
        """Raise IdentityInUseError unless that heartbeat is this host's own."""
        address = other.node_address
        if address is not None and not self.owns(other.boot_id, address):
            shown = other.host_name or other.host_id
            raise IdentityInUseError(shown, address, beating=True)

    def check_lease(self, lease: Lease, record: Record) -> None:
        """Raise IdentityInUseError unless that lease, read from ``record``, is this host's own.

        A lease of another identity is none of this method's business.
        """
        if lease.host_id != self.host_id:
            return
        if not self.owns(decode_boot_id(record), lease.node_address):
            shown = lease.host_name or self.host_id
            raise IdentityInUseError(shown, lease.node_address, beating=False)


class CloneCheck:
    """Look for other hosts with this identity, and announce this one to them.

    Args:
        client: To etcd.
        keys: Of the mesh.
    """

    def __init__(self, client: EtcdClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def refuse(self, claimant: Claimant) -> None:
        """Look, before anything is written, whether another host is alive with this identity.

        The memory names the subnet, so that this takes two small reads, not a listing.

        Raises:
            IdentityInUseError: A heartbeat or a lease of another boot at another address.
            EtcdError: It could not be found out.
        """
        answer = self._client.txn(
            "look for other hosts with this identity",
            [],
            [
                kv.get(self._keys.of(HEARTBEATS, claimant.host_id)),
                kv.get(self._keys.of(MEMORY, claimant.host_id)),
            ],
        )
        beats, memories = answer.ranges
        for record in beats:
            try:
                claimant.check_heartbeat(self._keys.read(HEARTBEATS, record))
            except ValueError:  # no host's
                continue
        for record in memories:
            try:
                subnet = self._keys.read(MEMORY, record)
            except ValueError:
                continue
            self.refuse_lease(claimant, subnet)

    def refuse_lease(self, claimant: Claimant, subnet: Network) -> None:
        """Raise IdentityInUseError when a clone may have the lease of ``subnet``."""
        for record in self._client.range(claimant.lease_key(self._keys, subnet)).records:
            try:
                lease = self._keys.read_lease(record)
            except ValueError:
                continue
            claimant.check_lease(lease, record)

    def announce(self, heartbeat: Heartbeat, ttl_s: int, etcd_lease_id: int) -> int:
        """Say that this host exists beside another of its identity, for ``ttl_s`` seconds.

        Args:
            heartbeat: Of this host; with a node address.
            ttl_s: How long it lasts unless it is written again.
            etcd_lease_id: What the last call returned, 0 at first.

        Returns:
            The etcd lease's id.
        """
        if heartbeat.node_address is None:
            raise ValueError("a clone is known by its address")
        key = self._keys.of(CLONES, (heartbeat.host_id, heartbeat.node_address))
        if not etcd_lease_id or self._client.keep_alive(etcd_lease_id) == 0:
            etcd_lease_id = self._client.grant(ttl_s).id
        put = kv.put(key, encode_heartbeat(heartbeat), etcd_lease_id)
        try:
            self._client.txn("report a cloned machine-id", [], [put])
        except EtcdLeaseGoneError:
            return 0
        return etcd_lease_id

    def withdraw(self, etcd_lease_id: int) -> None:
        """End :meth:`announce`; failing costs nothing: it expires."""
        try:
            self._client.revoke(etcd_lease_id)
        except EtcdError as error:
            _log.debug("clone-report-left-to-expire", reason=str(error))
