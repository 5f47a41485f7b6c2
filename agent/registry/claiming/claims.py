"""Claiming and renewing leases: each by one transaction that compares first.

The compares of a claim (promise 1): no lease and no reservation that overlaps the subnet,
whatever its length; the config unchanged; the host's own memory record unchanged. The last
one makes a host's tries exclude each other: one that was given up on (its answer was lost)
and arrives late then fails, so a host never ends with two leases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from agent.errors import ClaimConflict, EtcdError, MeshConfigError
from agent.etcd import kv
from agent.etcd.client import EtcdClient
from agent.etcd.kv import Record
from agent.model import Lease, MeshConfig, OwnerRecords, View
from agent.model.family import Network, within
from agent.registry.claiming.identity_conflicts import CloneCheck, IdentityInUseError
from agent.registry.claiming.release import end_lease
from agent.registry.claiming.renewal import Renewals, confirmed, is_damaged, lease_puts
from agent.registry.claiming.request import ClaimRequest, LeaseLostError
from agent.registry.claiming.selection import Selection
from agent.registry.record_store import RecordStore
from agent.registry.records import CONFIG, LEASES, MEMORY, OWNERS, Keys, encode_memory

__all__ = ["Claims"]

_ROUNDS = 6  # snapshots per claim
_TRIES = 64  # transactions per snapshot
_MOST_NEW = 10_000
"""More owner records than this since a claim looked: it is as if one of them overlapped."""
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
        self._renewals = Renewals(client, keys, wall_clock)

    def claim(self, request: ClaimRequest) -> Lease:
        """See :meth:`agent.registry.registry.Registry.claim`."""
        lease_id = memory_id = 0
        try:
            for _ in range(_ROUNDS):
                records = self._read()
                view = records.view()
                request = _as_config_says(request, view.config)
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
            key, memory = self._keys.of(LEASES, subnet), self._keys.of(MEMORY, request.host_id)
            ahead = selection.peek(_LOOK_AHEAD)
            result = self._client.txn(
                f"claim {subnet}",
                selection.compares(subnet),
                [
                    *lease_puts(self._keys, lease, request.claimant),
                    *(kv.delete(each) for each in selection.replaces(subnet) if each != key),
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
            won: Lease | None = None
            taken: Iterable[tuple[Record, ...]] = ()
            if result.succeeded:
                at = result.revision
                won = replace(lease, create_revision=at, mod_revision=at)
            else:
                there, config, remembered, *taken = result.ranges
                if there and there[0].lease_id == lease_id:  # an earlier try had got through
                    won = confirmed(lease, there[0])
                elif not selection.still_true(config, remembered):
                    return None
            if won is not None and not self._overtaken(won, request, selection.revision):
                return won
            gone = zip(ahead, taken, strict=False)
            selection.lost(subnet, [each for each, found in gone if selection.is_taken(found)])
        return None

    def _overtaken(self, lease: Lease, request: ClaimRequest, seen_revision: int) -> bool:
        """Give a lease back at once where an older owner record, not seen before, overlaps it.

        Keys of owner records are in order of host, so a transaction cannot compare that none
        overlaps a subnet. Without this check a host could claim where an owner record hides that
        counts only later.
        """
        if request.owners is not OwnerRecords.DECIDE:
            return False
        every, own = self._keys.range(OWNERS), request.claimant.lease_key(self._keys, lease.subnet)
        page = self._client.range(
            every.start, every.end, limit=_MOST_NEW, created_since=seen_revision + 1, keys_only=True
        )
        older = (
            each
            for each in page.records
            if each.key != own and each.create_revision <= lease.create_revision
        )
        if not page.more and not any(_overlaps(self._keys, each, lease.subnet) for each in older):
            return False
        end_lease(self._client, self._keys, request.host_id, lease.subnet)
        return True

    def _new_lease(self, subnet: Network, request: ClaimRequest, lease_id: int) -> Lease:
        now_s = round(self._wall_clock(), 3)
        lease = Lease(
            subnet=subnet,
            node_address=request.node_address,
            backend=request.published.backend,
            claimed_s=now_s,
            renewed_s=now_s,
            etcd_lease_id=lease_id,
        )
        return request.on(lease)

    def _adopt(self, held: Lease, request: ClaimRequest) -> Lease | None:
        """Take over the host's own lease, or flannel's of this same address; None: read again."""
        try:
            claimed_s = held.claimed_s or round(self._wall_clock(), 3)
            return self._renewals.renew(
                replace(request.on(held), claimed_s=claimed_s),
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
        key = request.claimant.lease_key(self._keys, past.subnet)
        if key not in records.unreadable:
            return None
        return past if is_damaged(past, records.get(key)) else None

    def _refuse_rival(self, held: Lease, request: ClaimRequest) -> None:
        """Raise IdentityInUseError when the lease of this identity may be a live clone's."""
        if held.node_address != request.node_address:
            self._clone_check.refuse_lease(request.claimant, held.subnet)


def _as_config_says(request: ClaimRequest, config: MeshConfig | None) -> ClaimRequest:
    """Follow a config that is newer than the request: only it says what decides."""
    if config is None or config.owners is (request.owners is OwnerRecords.DECIDE):
        return request
    owners = OwnerRecords.DECIDE if config.owners else OwnerRecords.WRITTEN
    return replace(request, owners=owners)


def _overlaps(keys: Keys, record: Record, subnet: Network) -> bool:
    """Whether the key of an owner record names a subnet that overlaps this one."""
    try:
        _, owned = OWNERS.key(keys.split(record.key)[1])
    except ValueError:
        return False
    return owned.overlaps(subnet)


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
    """Whether a host's lease that no host uses is still the one it should have.

    So it is where something else than its subnet is wrong: another would be set aside, too. While
    the config cannot be used, it is the one that the host knows it had.
    """
    fits = (
        view.config.holds(lease.subnet)
        if view.config
        else view.config_problem is not None and lease.subnet == request.wanted
    )
    return fits and not any(each.subnet.overlaps(lease.subnet) for each in view.leases)


def _own_keys(keys: Keys, subnet: Network) -> tuple[bytes, bytes]:
    """The keys of the lease of exactly this subnet, with and without an IPv6 half."""
    key = keys.of(LEASES, subnet)
    return key, key + b"'"
