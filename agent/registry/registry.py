"""Reading the mesh at one revision, and writing to it by transactions that compare first."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from types import MappingProxyType

import structlog

from agent.errors import ClaimConflict, EtcdError, MeshConfigError
from agent.etcd import kv
from agent.etcd.client import EtcdClient
from agent.etcd.endpoint_check import in_the_clear
from agent.etcd.kv import Record
from agent.model import (
    Bounds,
    Heartbeat,
    HostId,
    Lease,
    MeshConfig,
    Problem,
    View,
)
from agent.model.family import Address, Network
from agent.registry.claiming.claims import Claims
from agent.registry.claiming.heartbeat_writer import HeartbeatWriter, Written
from agent.registry.claiming.identity_conflicts import Claimant, CloneCheck, IdentityInUseError
from agent.registry.claiming.release import Releases
from agent.registry.claiming.renewal import Renewals
from agent.registry.claiming.request import ClaimRequest, GraceError, LeaseLostError
from agent.registry.record_store import RecordStore
from agent.registry.records import (
    CONFIG,
    GRACE,
    RESERVATIONS,
    Keys,
    encode_config,
    encode_reservation,
)
from agent.registry.snapshot import pages, whole

__all__ = ["ClaimRequest", "GraceError", "IdentityInUseError", "LeaseLostError", "Registry"]

_log = structlog.get_logger()

_DEFAULT_BOUNDS = Bounds()


class Registry:
    """The mesh's records in etcd. Thread-safe: it keeps nothing but the client and ``bounds``.

    Args:
        client: To etcd.
        prefix: Such as "/hostmesh".
        bounds: What this host allows of a config; may be replaced at any time.
        wall_clock: Unix seconds, written for display only.
    """

    def __init__(
        self,
        client: EtcdClient,
        prefix: str = "/hostmesh",
        *,
        bounds: Bounds = _DEFAULT_BOUNDS,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.client = client
        self.bounds = bounds
        self.keys = Keys(prefix)
        self._wall_clock = wall_clock
        self.clone_check = CloneCheck(client, self.keys)
        self._beats = HeartbeatWriter(client, self.keys)
        self._claims = Claims(client, self.keys, self.records, wall_clock=wall_clock)
        self._renewals = Renewals(client, self.keys, wall_clock)
        self._releases = Releases(client, self.keys, self.records)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """URLs of the etcd that is asked."""
        return self.client.endpoints

    # --- reading --------------------------------------------------------------------------

    def snapshot(self) -> View:
        """Read everything under the prefix at one revision.

        Raises:
            EtcdError and what derives from it: No view, rather than a partial one.
        """
        return self.records().view()

    def records(
        self, last_config: MeshConfig | None = None, before: View | None = None
    ) -> RecordStore:
        """Like :meth:`snapshot`, as records that events can be folded into.

        Args:
            last_config: By which leases are judged while the config in etcd is unusable.
            before: An earlier view, which is used where a record cannot be read now.
        """
        found = whole(lambda: self._read_all(last_config))
        if before is not None:
            found.remember(before)
        return found

    def has_config(self) -> bool:
        """Whether there is a config, be it one that this host cannot use."""
        return bool(self.client.range(self.keys.of(CONFIG)).records)

    def _read_all(self, last_config: MeshConfig | None) -> RecordStore:
        every = pages(self.client, self.keys.followed, self.keys.following)
        first = next(every)
        found = RecordStore(
            self.keys, first.cluster_id, first.revision, last_config, bounds=lambda: self.bounds
        )
        for page in chain((first,), every):
            found.load(page.records)
        return found

    def _decode_config(self, record: Record) -> MeshConfig:
        try:
            return self.bounds.check(CONFIG.read(None, record))
        except ValueError as error:
            raise MeshConfigError(
                f"{self.keys.of(CONFIG).decode()} is not usable: {error}",
                hint=Problem.of(error).hint
                or "correct it with agentctl config set, or with etcdctl put",
            ) from error

    # --- config ---------------------------------------------------------------------------

    def create_config(
        self,
        config: MeshConfig,
        *,
        grace_s: int = 0,
        reservations: Mapping[Network, HostId] = MappingProxyType({}),
    ) -> MeshConfig:
        """Create the config unless there is one; either way return what is there.

        Args:
            config: To be created. A new one keeps containers from an etcd in the clear.
            grace_s: For that long after creating it, only hosts that say they hold a subnet
                by their own copy get one (``ClaimRequest.registering``): the holders of an
                etcd that was replaced by an empty one come back first. Kept by etcd.
            reservations: To be written with it: they are the operator's, and no host's to
                register again.

        Raises:
            MeshConfigError: What is there is not usable.
        """
        key = self.keys.of(CONFIG)
        if not config.mod_revision:
            config = replace(config, etcd_closed=any(map(in_the_clear, self.client.endpoints)))
        success = [kv.put(key, encode_config(config))]
        if grace_s > 0:
            success.append(
                kv.put(self.keys.of(GRACE), GRACE.encode(), self.client.grant(grace_s).id)
            )
        result = self.client.txn("create the config", [kv.absent(key)], success, [kv.get(key)])
        if result.succeeded:
            _log.info("mesh-config-created", cidr=str(config.cidr), subnet_len=config.subnet_len)
            self._write_back(reservations)
            return replace(config, mod_revision=result.revision)
        record = result.ranges[0][0]
        return self._decode_config(record)

    def _write_back(self, reservations: Mapping[Network, HostId]) -> None:
        for subnet, owner in reservations.items():
            key = self.keys.of(RESERVATIONS, subnet)
            put = kv.put(key, encode_reservation(owner))
            try:
                self.client.txn(f"reserve {subnet} again", [kv.absent(key)], [put])
            except EtcdError as error:  # the config is there, and that is what hosts wait for
                _log.warning("reservation-lost", subnet=str(subnet), reason=error.message)

    def begin_grace(self, grace_s: int) -> None:
        """Have only holders claim for ``grace_s`` seconds: etcd may have lost some of them.

        As after :meth:`create_config`. One grace time for all hosts that ask for it: it goes on
        for ``grace_s`` from the last one's asking.
        """
        key = self.keys.of(GRACE)
        there = self.client.range(key).records
        if there and self.client.keep_alive(there[0].lease_id) >= grace_s:
            return
        self.client.txn(
            "hold new claims back", [], [kv.put(key, GRACE.encode(), self.client.grant(grace_s).id)]
        )

    # --- leases ---------------------------------------------------------------------------

    def claim(self, request: ClaimRequest) -> Lease:
        """Get a lease for a host: the one it holds, else the best free subnet.

        Raises:
            MeshConfigError: There is no config, or it is not usable.
            NoFreeSubnet: Nothing is free for this host.
            ClaimConflict: Only ``wanted`` was allowed and another host has it.
            IdentityInUseError: The lease under this identity may be a live clone's.
            EtcdUnavailable, EtcdAuthError, EtcdError: As their names say.
        """
        return self._claims.claim(request)

    def renew(self, lease: Lease, request: ClaimRequest, *, remember: bool = True) -> Lease:
        """Write an own lease again, with its full TTL, if and only if it is still this host's.

        Args:
            lease: As last claimed or renewed, or as seen in a view.
            request: What it is to say.
            remember: Write the memory of the subnet, too.

        Returns:
            The lease with new revisions.

        Raises:
            ClaimConflict: Another owner has the key now; nothing was written.
            IdentityInUseError: A clone of this host has it now; nothing was written.
            LeaseLostError: The key is gone; nothing was written.
            EtcdUnavailable, EtcdAuthError, EtcdError: As their names say.
        """
        if lease.host_id is None:
            raise ClaimConflict(f"{lease.subnet} is a flannel host's lease, not this host's")
        memory_ttl_s = request.memory_ttl_s if remember else 0
        return self._renewals.renew(request.on(lease), memory_ttl_s, request.claimant)

    def give_back(self, lease: Lease) -> None:
        """Give back this lease of a host's and nothing else. Idempotent.

        Raises:
            EtcdUnavailable, EtcdAuthError, EtcdError: As their names say.
        """
        if lease.host_id is not None:
            self._releases.give_back(lease.host_id, lease.subnet)

    def release(self, host_id: HostId, boot_id: str = "") -> Network | None:
        """Give back a host's leases and end its heartbeat; its memory stays. Idempotent.

        Args:
            host_id: This host.
            boot_id: Of this boot, so that a clone does not give back what it does not hold.

        Returns:
            The subnet that was given back, None when the host had none.

        Raises:
            IdentityInUseError: Another live host has this identity: the lease is its.
            EtcdUnavailable, EtcdAuthError, EtcdError: As their names say.
        """
        return self._releases.release(host_id, boot_id)

    # --- heartbeat ------------------------------------------------------------------------

    def heartbeat(
        self,
        heartbeat: Heartbeat,
        ttl_s: int,
        etcd_lease_id: int = 0,
        *,
        cleared: frozenset[Address] = frozenset(),
    ) -> Written:
        """Write a heartbeat, on the etcd lease given or on a new one.

        It is what tells two live hosts with one identity (a cloned machine-id) apart: a
        heartbeat of another boot, at another node address, is not overwritten.

        Args:
            heartbeat: What to write.
            ttl_s: Of a new etcd lease.
            etcd_lease_id: As the last call returned it; made anew when it is gone.
            cleared: Addresses of which the caller has found out that no clone lives there: a
                heartbeat of one is what this host left behind before it was rebooted.

        Returns:
            The etcd lease and the revision; pass the first to the next call.

        Raises:
            IdentityInUseError: Another live host has this host's identity.
        """
        address = heartbeat.node_address
        if address is None:
            raise ValueError("a heartbeat to be written names its host's address")
        claimant = Claimant(heartbeat.host_id, heartbeat.boot_id, address, cleared)
        return self._beats.write(heartbeat, ttl_s, etcd_lease_id, claimant)
