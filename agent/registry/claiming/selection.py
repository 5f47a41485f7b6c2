"""Which subnet a claim tries next, what its transaction compares, and what refusal says."""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Collection, Iterator, Sequence

from agent.errors import ClaimConflict, NoFreeSubnet
from agent.etcd import kv
from agent.etcd.kv import Compare, Record
from agent.mesh.ranges import OverlapIndex, candidates, count_subnets
from agent.model import Lease, MeshConfig, SetAside, View, is_leasable
from agent.model.family import Network, within
from agent.model.untrusted import quote
from agent.registry.claiming.request import ClaimRequest, GraceError
from agent.registry.record_store import RecordStore
from agent.registry.records import (
    CONFIG,
    GRACE,
    LEASES,
    MEMORY,
    OWNERS,
    RESERVATIONS,
    SHORTEST_RANGE,
    without_key,
)

__all__ = ["Obstacles", "Selection", "way_out"]

_BUFFER = 256  # candidates computed ahead, for peek
_MOST_REPLACED = 12
"""Keys without rights that one claim replaces: its transaction takes no more."""


class Selection:
    """The candidates of one claim over one snapshot, best first.

    Args:
        records: The snapshot.
        view: Of ``records``, with a config.
        request: Who claims and how.
    """

    def __init__(self, records: RecordStore, view: View, request: ClaimRequest) -> None:
        if view.config is None:
            raise ValueError("a claim needs a config")
        self._records = records
        self._keys = records.keys
        self._view = view
        self._config: MeshConfig = view.config
        self._request = request
        self._taken = OverlapIndex(each.subnet for each in records.holders(request.host_id))
        self._obstacles = Obstacles(records)
        self._without_rights = records.without_rights()
        self._reserved = dict(view.reservations)
        self._refused = OverlapIndex(
            subnet for subnet, owner in self._reserved.items() if owner != request.host_id
        )
        self._lost_any = False
        self._order = self._candidates()
        self._ahead: deque[Network] = deque()

    @property
    def revision(self) -> int:
        """The revision of the snapshot."""
        return self._records.revision

    def next(self) -> Network | None:
        """The next subnet to try.

        Returns:
            None when this snapshot has no candidate left but others won some of them since:
            another look may find that some were given back.

        Raises:
            NoFreeSubnet: Nothing in the snapshot is free for this host.
            ClaimConflict: Only the wanted subnet would do and it is not to be had.
            GraceError: etcd was replaced and this host did not hold a subnet.
        """
        while True:
            self._fill(1)
            if not self._ahead:
                break
            subnet = self._ahead.popleft()
            if self._free(subnet):
                self._check_grace(subnet)
                return subnet
        if self._lost_any and not self._request.only_wanted:
            return None
        raise self._refusal()

    def peek(self, count: int) -> tuple[Network, ...]:
        """Return up to ``count`` candidates that would be tried next."""
        self._fill(_BUFFER)
        free = (subnet for subnet in self._ahead if self._free(subnet))
        return tuple(itertools.islice(free, count))

    def replaces(self, subnet: Network) -> tuple[bytes, ...]:
        """Return the keys without rights that a claim of ``subnet`` replaces."""
        if not self._without_rights:
            return ()
        found: list[bytes] = []
        for each in self._keys.overlapping(LEASES, subnet):
            first = bisect.bisect_left(self._without_rights, each.start)
            last = bisect.bisect_left(self._without_rights, each.end)
            found += self._without_rights[first : min(last, first + _MOST_REPLACED + 1)]
        return tuple(found)

    def is_taken(self, found: Sequence[Record]) -> bool:
        """Whether keys that were found under ``subnets/`` keep a claim from their subnet."""
        return any(
            (seen := self._records.get(each.key)) is None
            or each.key not in self._without_rights
            or each.mod_revision != seen.mod_revision
            for each in found
        )

    def lost(self, subnet: Network, taken: Collection[Network]) -> None:
        """Learn that a transaction for ``subnet`` failed and that ``taken`` are gone too."""
        self._lost_any = True
        for each in (subnet, *taken):
            self._taken.add(each)

    def still_true(self, config: Sequence[Record], memory: Sequence[Record]) -> bool:
        """Whether config and own memory are still those that this selection rests on."""
        ours = self._records.get(self._keys.of(MEMORY, self._request.host_id))
        return _revision(config) == self._config.mod_revision and _revision(memory) == (
            ours.mod_revision if ours else 0
        )

    def compares(self, subnet: Network) -> list[Compare]:
        """Build what must hold for ``subnet`` to be ours."""
        memory = self._keys.of(MEMORY, self._request.host_id)
        remembered = self._records.get(memory)
        found = [
            kv.unchanged(self._keys.of(CONFIG), self._config.mod_revision),
            kv.unchanged(memory, remembered.mod_revision if remembered else 0),
        ]
        if not self._past_grace(subnet):
            found.append(kv.absent(self._keys.of(GRACE)))
        leases = self._keys.overlapping(LEASES, subnet)
        for key in self.replaces(subnet):
            seen = self._records.get(key)
            found.append(kv.unchanged(key, seen.mod_revision if seen else 0))
            leases = without_key(leases, key)
        found += [kv.none_in(each.start, each.end) for each in leases]
        if self._config.owners:
            found.append(kv.absent(self._keys.of(OWNERS, (self._request.host_id, subnet))))
        reservations = self._keys.overlapping(RESERVATIONS, subnet)
        if self._reserved.get(subnet) == self._request.host_id:
            key = self._keys.of(RESERVATIONS, subnet)
            record = self._records.get(key)
            found.append(kv.unchanged(key, record.mod_revision if record else 0))
            reservations = without_key(reservations, key)
        found += [kv.none_in(each.start, each.end) for each in reservations]
        return found

    def _candidates(self) -> Iterator[Network]:
        request, config = self._request, self._config
        wanted = [
            each
            for each in (request.wanted,)
            if each is not None and is_leasable(each) and config.holds(each)
        ]
        if request.only_wanted and request.wanted is not None:
            return iter(wanted)
        reserved = [each for each, owner in self._reserved.items() if owner == request.host_id]
        remembered = self._view.memory.get(request.host_id)
        preferred = [*reserved, *wanted, remembered]  # the operator's reservation comes first
        return candidates(
            config,
            request.host_id,
            preferred=[
                each
                for each in preferred
                if each is not None and (self._fits(each) or each in wanted)
            ],
            last=[
                subnet for owner, subnet in self._view.memory.items() if owner != request.host_id
            ],
            avoid=request.avoid,
        )

    def _fits(self, subnet: Network) -> bool:
        """Whether a new lease may be there; what the host had may lie in a previous CIDR, too."""
        cidr = self._config.cidr
        return is_leasable(subnet) and within(subnet, cidr) and subnet != cidr

    def _fill(self, count: int) -> None:
        while len(self._ahead) < count:
            following = next(self._order, None)
            if following is None:
                return
            self._ahead.append(following)

    def _free(self, subnet: Network) -> bool:
        held = self._taken.find(subnet) or self._refused.find(subnet)
        if held is not None or self._obstacles.over(subnet) is not None:
            return False
        return len(self.replaces(subnet)) <= _MOST_REPLACED

    def _past_grace(self, subnet: Network) -> bool:
        return self._request.registering and subnet == self._request.wanted

    def _check_grace(self, subnet: Network) -> None:
        if self._records.get(self._keys.of(GRACE)) is not None and not self._past_grace(subnet):
            raise GraceError(
                "etcd was set up anew and hosts that held a subnet before come back first",
                hint="the claim is tried again; nothing needs to be done",
            )

    def _refusal(self) -> Exception:
        request, view = self._request, self._view
        if request.only_wanted and request.wanted is not None:
            return self._not_had(request.wanted)
        oldest = min(view.leases, key=lambda each: each.create_revision, default=None)
        held_longest = (
            f"; the oldest is {oldest.subnet}, held by {_shown(oldest)}" if oldest else ""
        )
        obstacle = self._obstacles.over(self._config.cidr)
        in_the_way = (
            f"; {obstacle.key} cannot be read and keeps what it may hold: {obstacle.reason}"
            if obstacle
            else ""
        )
        return NoFreeSubnet(
            f"no free subnet among the {count_subnets(self._config)} of {self._config.cidr}:"
            f" {len(view.leases)} are held, {len(self._reserved)} reserved,"
            f" {len(request.avoid)} networks seen by this host are avoided"
            f"{held_longest}{in_the_way}",
            hint=(f"{way_out(obstacle)}; or " if obstacle else "")
            + "retire hosts that are gone (agentctl leases; agentctl remove HOST), or enlarge"
            " the mesh (agentctl config set: a shorter Network or a longer SubnetLen)",
        )

    def _not_had(self, wanted: Network) -> ClaimConflict:
        """Say who has the one subnet that would do, or what is in the way."""
        leases = (*self._view.leases, *self._records.holders(self._request.host_id))
        holder = next((each for each in leases if each.subnet.overlaps(wanted)), None)
        obstacle = self._obstacles.over(wanted)
        free_it = "or free that one: agentctl remove, on any host"
        if holder is not None:
            what = f"is held by {_shown(holder)}"
        elif obstacle is not None:
            what = f"is kept by {obstacle.key}, which cannot be read: {obstacle.reason}"
            free_it = f"or {way_out(obstacle)}"
        else:
            what = "is reserved for another host or not a part of the mesh's CIDR"
        return ClaimConflict(
            f"{wanted}, which this host had, {what}",
            hint="what runs here keeps running; this host takes another subnet when Docker may"
            ' be restarted: when no container runs, or with docker.restart = "always";'
            f" {free_it}",
        )


def _shown(lease: Lease) -> str:
    return f"{lease.host_name or lease.host_id or 'a flannel host'} at {lease.node_address}"


def _revision(records: Sequence[Record]) -> int:
    return records[0].mod_revision if records else 0


class Obstacles:
    """Finds the unreadable record that a transaction for a subnet would meet.

    Such a record may be a live host's that another program overwrote, and its owner is not known
    (promise 1). A claim passes it by, and a refusal names it. Where owner records decide, these
    are the unreadable ones among them.

    Args:
        records: All of the mesh.
    """

    def __init__(self, records: RecordStore) -> None:
        self._keys = keys = records.keys
        config = records.last_config
        deciding = OWNERS if config is not None and config.owners else LEASES
        self._index = OverlapIndex()
        self._records: dict[Network, SetAside] = {}
        self._odd: list[tuple[bytes, SetAside]] = []
        for key, reason in sorted(records.unreadable.items()):
            kind, rest = keys.split(key)
            if kind not in {deciding, RESERVATIONS}:
                continue
            record = SetAside(quote(key), reason)
            try:
                subnet = LEASES.key(rest.partition(b"/")[2] if kind is OWNERS else rest)
            except ValueError:  # in the way only where the range of keys around it is compared
                self._odd.append((key, record))
                continue
            if subnet.prefixlen < SHORTEST_RANGE:
                continue  # larger than any mesh: no claim looks there
            self._index.add(subnet)
            self._records.setdefault(subnet, record)

    def over(self, subnet: Network) -> SetAside | None:
        """One record in the way of a claim for ``subnet``, None when there is none."""
        found = self._index.find(subnet) if self._records else None
        if found is not None:
            return self._records[found]
        if not self._odd:
            return None
        ranges = (
            *self._keys.overlapping(LEASES, subnet),
            *self._keys.overlapping(RESERVATIONS, subnet),
        )
        return next(
            (
                record
                for key, record in self._odd
                if any(each.start <= key < each.end for each in ranges)
            ),
            None,
        )


def way_out(record: SetAside) -> str:
    """Say what an operator can do about a record in the way."""
    return (
        f"see whose it is (etcdctl get {record.key}); if it is no host's: etcdctl del {record.key}"
    )
