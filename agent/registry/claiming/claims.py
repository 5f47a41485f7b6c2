"""Claiming and renewing leases: each by one transaction that compares first.

The compares of a claim (promise 1): no lease and no reservation that overlaps the subnet,
whatever its length; the config unchanged; the host's own memory record unchanged. The last
one makes a host's tries exclude each other: one that was given up on (its answer was lost)
and arrives late then fails, so a host never ends with two leases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from agent.errors import ClaimConflict, EtcdError, MeshConfigError
from agent.etcd import kv
from agent.etcd.client import EtcdClient
from agent.etcd.errors import EtcdLeaseGoneError
from agent.etcd.kv import Record
from agent.model import Lease, View
from agent.model.family import Network, within
from agent.registry.claiming.identity_conflicts import Claimant, CloneCheck, IdentityInUseError
from agent.registry.claiming.request import ClaimRequest, LeaseLostError
from agent.registry.claiming.selection import Selection
from agent.registry.record_store import RecordStore
from agent.registry.records import CONFIG, LEASES, MEMORY, Keys, encode_lease, encode_memory

__all__ = ["Claims", "confirmed"]

_log = structlog.get_logger()

_ROUNDS = 6  # snapshots per claim
_TRIES = 64  # transactions per snapshot
_RENEW_TRIES = 4
_DAY_S = 86_400
_LOOK_AHEAD = 64
"""How many of the next candidates a failed claim asks about in its failure branch, so that
the next try is likely to succeed without listing everything again."""


class Claims:
    """The writing half of the registry.

    Args:
        client: To etcd.
        keys: Of the mesh.
        read: Returns all records at one revision.
        wall_clock: Unix seconds, written for display only.
    """

    def __init__(
        self,
        client: EtcdClient,
        keys: Keys,
        read: Callable[[], RecordStore],
        *,
        wall_clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._keys = keys
        self._read = read
        self._wall_clock = wall_clock
        self._clone_check = CloneCheck(client, keys)

    def claim(self, request: ClaimRequest) -> Lease:
        """See :meth:`agent.registry.registry.Registry.claim`."""
        lease_id = memory_id = 0
        try:
            for _ in range(_ROUNDS):
                records = self._read()
                view = records.view()
                held = _held(view, request) or self._damaged(records, request)
                if held is None or not view.config_problem:
                    _require_config(view, self._keys)
                if held is not None:
                    self._refuse_rival(held, request)
                    adopted = self._adopt(held, request)
                    if adopted is not None:
                        return adopted
                    continue
                selection = Selection(records, view, request)
                if not lease_id:
                    lease_id = self._client.grant(request.ttl_s).id
                    if request.memory_ttl_s:
                        memory_id = self._client.grant(request.memory_ttl_s).id
                lease = self._try_all(selection, request, lease_id, memory_id)
                if lease is not None:
                    lease_id = memory_id = 0  # in use now
                    return lease
        finally:
            self._client.drop(lease_id, memory_id)
        raise EtcdError(
            f"the mesh changed {_ROUNDS} times while claiming a subnet",
            hint="many hosts join at once; the claim is tried again",
        )

    def _try_all(
        self, selection: Selection, request: ClaimRequest, lease_id: int, memory_id: int
    ) -> Lease | None:
        """Try candidates until one is won.

        Returns:
            The lease; None when what was read is out of date: read again.

        Raises:
            NoFreeSubnet, ClaimConflict, GraceError: See :class:`Selection`.
        """
        for _ in range(_TRIES):
            subnet = selection.next()
            if subnet is None:
                return None
            lease = self._new_lease(subnet, request, lease_id)
            value = encode_lease(lease, boot_id=request.boot_id)
            key, memory = self._keys.of(LEASES, subnet), self._keys.of(MEMORY, request.host_id)
            ahead = selection.peek(_LOOK_AHEAD)
            result = self._client.txn(
                f"claim {subnet}",
                selection.compares(subnet),
                [
                    kv.put(key, value, lease_id),
                    *([kv.put(memory, encode_memory(subnet), memory_id)] if memory_id else []),
                ],
                [
                    kv.get(key),
                    kv.get(self._keys.of(CONFIG), keys_only=True),
                    kv.get(memory, keys_only=True),
                    *(kv.get(*_own_keys(self._keys, each), limit=1, keys_only=True)
                      for each in ahead),
                ],
            )  # fmt: skip
            if result.succeeded:
                return replace(lease, create_revision=result.revision, mod_revision=result.revision)
            there, config, remembered, *taken = result.ranges
            if there and there[0].lease_id == lease_id:  # an earlier try had got through
                return confirmed(lease, there[0])
            if not selection.still_true(config, remembered):
                return None
            selection.lost(
                subnet, [each for each, found in zip(ahead, taken, strict=True) if found]
            )
        return None

    def _new_lease(self, subnet: Network, request: ClaimRequest, lease_id: int) -> Lease:
        now_s = round(self._wall_clock(), 3)
        return Lease(
            subnet=subnet,
            node_address=request.node_address,
            backend=request.published.backend,
            host_id=request.host_id,
            host_name=request.host_name,
            claimed_s=now_s,
            renewed_s=now_s,
            ttl_s=request.ttl_s,
            etcd_lease_id=lease_id,
        ).publishing(request.published)

    def _adopt(self, held: Lease, request: ClaimRequest) -> Lease | None:
        """Take over the host's own lease, or flannel's of this same address; None: read again."""
        try:
            return self.renew(
                replace(
                    held.publishing(request.published),
                    host_id=request.host_id,
                    host_name=request.host_name,
                    node_address=request.node_address,
                    claimed_s=held.claimed_s or round(self._wall_clock(), 3),
                    ttl_s=request.ttl_s,
                ),
                request.memory_ttl_s,
                request.claimant,
                fresh=held.host_id is None,
            )
        except IdentityInUseError:
            raise
        except (LeaseLostError, ClaimConflict):
            return None

    def _damaged(self, records: RecordStore, request: ClaimRequest) -> Lease | None:
        """The lease that this host had, where its record was overwritten and cannot be read."""
        past = request.past
        if past is None or request.beside is not None:
            return None
        key = self._keys.of(LEASES, past.subnet)
        if key not in records.unreadable:
            return None
        return past if _is_damaged(past, records.get(key)) else None

    def _refuse_rival(self, held: Lease, request: ClaimRequest) -> None:
        """Raise IdentityInUseError when the lease of this identity may be a live clone's."""
        if held.node_address != request.node_address:
            found = self._client.range(self._keys.of(LEASES, held.subnet)).records
            self._clone_check.refuse_lease(request.claimant, found)

    def renew(
        self, lease: Lease, memory_ttl_s: int, claimant: Claimant, *, fresh: bool = False
    ) -> Lease:
        """Write ``lease`` if its key is as it was when ``lease`` was read or written.

        Args:
            lease: As wished, with the revision and the etcd lease that the key had.
            memory_ttl_s: Of the memory; 0 leaves that as it is.
            claimant: Whose lease it is to be.
            fresh: Do not go on with the key's etcd lease: it is flannel's.
        """
        own = lease
        for _ in range(_RENEW_TRIES):
            ttl_s = lease.ttl_s or _DAY_S
            before_id = lease.etcd_lease_id
            lease_id = self._kept_alive(0 if fresh else before_id, ttl_s)
            wished = replace(lease, etcd_lease_id=lease_id, renewed_s=round(self._wall_clock(), 3))
            try:
                renewed = self._write(wished, before_id, memory_ttl_s, claimant)
            except EtcdLeaseGoneError:
                continue
            if isinstance(renewed, Lease):
                if not fresh:
                    self._client.drop(*({before_id, own.etcd_lease_id} - {lease_id}))
                return renewed
            if lease_id != before_id:
                self._client.drop(lease_id)
            lease = self._after_conflict(
                lease, renewed, claimant, damaged=_is_damaged(own, renewed)
            )
        raise EtcdError(f"the lease of {lease.subnet} changes faster than it can be renewed")

    def _write(
        self, lease: Lease, before_id: int, memory_ttl_s: int, claimant: Claimant
    ) -> Lease | Record | None:
        """Write a lease and the memory of it if nobody wrote the lease since.

        Revisions alone do not prove that: an etcd that was replaced counts anew and may
        have reached the same one. The etcd lease's id is random.

        Returns:
            The lease as written; else what is there instead, None when nothing is.
        """
        key = self._keys.of(LEASES, lease.subnet)
        value = encode_lease(lease, boot_id=claimant.boot_id)
        puts = [kv.put(key, value, lease.etcd_lease_id)]
        if memory_ttl_s:
            memory = self._keys.of(MEMORY, claimant.host_id)
            remembered = self._client.range(memory).records
            memory_id = self._kept_alive(remembered[0].lease_id if remembered else 0, memory_ttl_s)
            puts.append(kv.put(memory, encode_memory(lease.subnet), memory_id))
        compares = [kv.unchanged(key, lease.mod_revision)]
        if before_id:
            compares.append(kv.attached(key, before_id))
        result = self._client.txn(f"renew {lease.subnet}", compares, puts, [kv.get(key)])
        if result.succeeded:
            return replace(lease, mod_revision=result.revision)
        there = result.ranges[0]
        if there and there[0].value == value:  # an earlier try got through
            return confirmed(lease, there[0])
        return there[0] if there else None

    def _after_conflict(
        self, lease: Lease, there: Record | None, claimant: Claimant, *, damaged: bool
    ) -> Lease:
        """Go on from what somebody else wrote, if it still says that the host is the owner.

        Args:
            damaged: The key never went away, and no other agent can have written it: what
                cannot be read is written again (promise 2).
        """
        if there is None:
            raise LeaseLostError(f"the lease of {lease.subnet} is gone from etcd")
        try:
            found = self._keys.read(LEASES, there)
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


def _require_config(view: View, keys: Keys) -> None:
    """Raise MeshConfigError when the view has no config, or an unusable one."""
    problem = view.config_problem
    if problem:
        raise MeshConfigError(
            f"{keys.of(CONFIG).decode()} is not usable: {problem}",
            hint=problem.hint or "correct it with agentctl config set",
        )
    if view.config is None:
        raise MeshConfigError(
            f"there is no config at {keys.of(CONFIG).decode()}",
            hint="create it with agentctl config init --cidr …, or bring [mesh] in agent.toml",
        )


def _held(view: View, request: ClaimRequest) -> Lease | None:
    """Find the host's lease: by identity, else what flannel leased to this host's address."""
    own = [each for each in view.leases if each.host_id == request.host_id]
    own += [each for each in view.set_aside_of(request.host_id) if _stays(each, view, request)]
    if request.beside is not None:
        cidr = view.config.cidr if view.config else request.beside
        return next(
            (
                each
                for each in own
                if each.subnet != request.beside
                and (each.subnet == request.wanted or within(each.subnet, cidr))
            ),
            None,
        )
    flannel = [
        each
        for each in view.leases
        if each.host_id is None and each.node_address == request.node_address
    ]
    for lease in (*own, *flannel):
        if lease.subnet == request.wanted:
            return lease
    return next(iter((*own, *flannel)), None)


def _stays(lease: Lease, view: View, request: ClaimRequest) -> bool:
    """Whether a host's lease that nobody uses is still the one it should have.

    So it is where something else than its subnet is wrong: another would be set aside, too. While
    the config cannot be used, it is the one that the host knows it had.
    """
    fits = (
        view.config.holds(lease.subnet)
        if view.config
        else view.config_problem is not None and lease.subnet == request.wanted
    )
    return fits and not any(each.subnet.overlaps(lease.subnet) for each in view.leases)


def _is_damaged(own: Lease, there: Record | None) -> bool:
    """Whether a key that differs from the host's own lease can only have been overwritten.

    A claim of another host needs the key to be absent first, and always attaches an etcd lease.
    """
    return (
        there is not None
        and own.create_revision != 0
        and there.create_revision == own.create_revision
        and there.lease_id in {0, own.etcd_lease_id}
    )


def _own_keys(keys: Keys, subnet: Network) -> tuple[bytes, bytes]:
    """The keys of the lease of exactly this subnet, with and without an IPv6 half."""
    key = keys.of(LEASES, subnet)
    return key, key + b"'"


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
