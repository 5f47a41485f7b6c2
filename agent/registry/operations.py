"""What an operator does to the mesh: reserve, remove a host, change the config.

Every verb is idempotent, works by transactions that compare first, and needs no agent. With
``dry`` everything is checked and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.errors import ClaimConflict, EtcdError, MeshConfigError, Refused
from agent.etcd import kv
from agent.mesh.level import HeldBack
from agent.mesh.needed import needed_of_members
from agent.mesh.reconfigure import left_behind
from agent.model import (
    Bounds,
    HostId,
    Lease,
    MeshConfig,
    Needed,
    Problem,
    View,
    first_few,
    is_leasable,
)
from agent.model.family import Network, family_of, within
from agent.model.untrusted import parse_object
from agent.registry.claiming.selection import Obstacles, way_out
from agent.registry.hosts import HostRef, find_host, hosts_of
from agent.registry.record_store import RecordStore
from agent.registry.records import (
    CONFIG,
    HEARTBEATS,
    LEASES,
    MEMORY,
    RESERVATIONS,
    check_lease,
    decode_config,
    encode_config,
    encode_reservation,
    without_key,
)
from agent.registry.registry import Registry

__all__ = ["ConfigChange", "Operator", "refuse_outside"]

_TRIES = 5
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChange:
    """What became of a change of the config.

    Attributes:
        before: None when there was none that is usable.
        after: As it is now, or would be.
        changed: Something was, or would be, written.
        flannel_leaves: flannel hosts' leases that flanneld will not take up again when it is
            restarted, since they have another length or lie out of bounds.
        not_moved: Leases outside the CIDR for new ones: their hosts have yet to move.
    """

    before: MeshConfig | None
    after: MeshConfig
    changed: bool
    not_moved: tuple[Lease, ...] = ()
    flannel_leaves: tuple[Lease, ...] = ()


class Operator:
    """The operator's verbs.

    Args:
        registry: Of the mesh.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._client = registry.client
        self._keys = registry.keys

    @property
    def endpoints(self) -> tuple[str, ...]:
        """URLs of the etcd that is asked."""
        return self._registry.endpoints

    def view(self) -> View:
        """Everything as it is now."""
        return self._registry.snapshot()

    @staticmethod
    def find(text: str, view: View, *, unknown: bool = False) -> HostRef:
        """See :func:`agent.registry.hosts.find_host`."""
        return find_host(view, text, unknown=unknown)

    # --- reservations ---------------------------------------------------------------------

    def reserve(self, host_id: HostId, subnet: Network, *, dry: bool = False) -> bool:
        """Keep a subnet for a host, without a time limit. Repeating it is fine.

        Returns:
            False: it was reserved for the host already.

        Raises:
            MeshConfigError: There is no config, or ``subnet`` is not a subnet of the mesh.
            ClaimConflict: Another host holds or has reserved something that overlaps.
        """
        key = self._keys.of(RESERVATIONS, subnet)
        for _ in range(_TRIES):
            records = self._registry.records()
            view = records.view()
            config = _config(view)
            _refuse_odd(config, subnet)
            self._refuse_overlap(records, view, host_id, subnet)
            if view.reservations.get(subnet) == host_id:
                return False
            if dry:
                return True
            compares = [kv.unchanged(self._keys.of(CONFIG), config.mod_revision)]
            compares += [
                kv.none_in(each.start, each.end)
                for each in self._keys.overlapping(RESERVATIONS, subnet)
            ]
            own = [each for each in records.leases() if each.host_id == host_id]
            compares += self._leases_unchanged(subnet, own)
            put = kv.put(key, encode_reservation(host_id))
            if self._client.txn(f"reserve {subnet}", compares, [put]).succeeded:
                return True
        raise EtcdError("the mesh changes faster than a subnet can be reserved")

    def unreserve(self, subnet: Network, *, dry: bool = False) -> bool:
        """End a reservation; the host keeps what it holds. False: there was none."""
        key = self._keys.of(RESERVATIONS, subnet)
        if dry:
            return bool(self._client.range(key).records)
        exists = kv.unchanged(key, 0)
        gone = self._client.txn(f"unreserve {subnet}", [exists], [], [kv.delete(key)])
        return not gone.succeeded

    # --- hosts ----------------------------------------------------------------------------

    def remove_host(
        self, host: HostRef, *, force: bool = False, dry: bool = False
    ) -> tuple[Network, ...]:
        """Retire another host before its TTLs do: leases, heartbeat and memory. Idempotent.

        Its reservations stay: they are the operator's.

        Returns:
            The subnets that it held, () when none.

        Raises:
            Refused: It is alive, or (a flannel host) nobody can tell, and ``force`` is not
                given.
        """
        for _ in range(_TRIES):
            records = self._registry.records()
            if not force:
                _refuse_alive(records.view(), host)
            owned = [each for each in records.leases() if _is_of(each, host)]
            compares = [
                kv.unchanged(self._keys.of(LEASES, each.subnet), each.mod_revision)
                for each in owned
            ]
            deletes = [kv.delete(self._keys.of(LEASES, each.subnet)) for each in owned]
            if host.host_id is not None:
                heartbeat = self._keys.of(HEARTBEATS, host.host_id)
                compares += [] if force else [kv.absent(heartbeat)]
                deletes += [kv.delete(heartbeat), kv.delete(self._keys.of(MEMORY, host.host_id))]
            subnets = tuple(each.subnet for each in owned)
            if dry or self._client.txn(f"remove host {host}", compares, deletes).succeeded:
                return subnets
        raise EtcdError(f"host {host} writes its lease faster than it can be removed")

    # --- config ---------------------------------------------------------------------------

    def config_set(
        self, wished: Callable[[MeshConfig | None], MeshConfig], *, dry: bool = False
    ) -> ConfigChange:
        """Change the config; what is in use stays inside, unknown fields stay as they are.

        A larger CIDR and another SubnetLen for new leases work while the mesh runs. Another
        CIDR takes ``MeshConfig.previous``, in which leases go on until their hosts have moved.

        Args:
            wished: Makes the new config of the present one (None: none that is usable). Called
                again when somebody else changed it meanwhile.
            dry: Check and write nothing.

        Raises:
            Refused: A lease or a reservation would be outside, or a node address inside; a host
                cannot read a higher level.
            MeshConfigError: What is wished describes no possible mesh.
        """
        key = self._keys.of(CONFIG)
        for _ in range(_TRIES):
            records = self._registry.records()
            record = records.get(key)
            before = None if record is None else _decoded(record)
            after = self._checked(wished(before), before)
            # What no host of this mesh may use is not in use: a forged lease keeps nothing.
            bounds = self._registry.bounds
            leases = tuple(each for each in records.leases() if not bounds.problem(each.subnet))
            view = records.view()
            _refuse_misfits(after, leases, view)
            _refuse_unread(after.level, before, view)
            value = encode_config(after, _object_or_none(record))
            same = record is not None and value == record.value
            change = ConfigChange(
                before=before,
                after=replace(after, mod_revision=record.mod_revision if record else 0),
                changed=not same,
                not_moved=tuple(each for each in records.leases() if after.must_move(each.subnet)),
                flannel_leaves=tuple(
                    each for each in records.leases() if _flannel_leaves(each, after)
                ),
            )
            if same or dry:
                return change
            compares = [kv.unchanged(key, record.mod_revision if record else 0)]
            if left_behind(before, after):
                compares += self._none_joined(records)
            result = self._client.txn("change the config", compares, [kv.put(key, value)])
            if result.succeeded:
                return replace(change, after=replace(after, mod_revision=result.revision))
        raise EtcdError("the mesh changes faster than its config can be set")

    def refuse_outside(self, cidr: Network, needed: tuple[Needed, ...], view: View | None) -> None:
        """Raise MeshConfigError when this host, or a member, would use no mesh in ``cidr``."""
        bounds = replace(self._registry.bounds, needed=needed, in_force=())
        refuse_outside(cidr, bounds, view)

    def _checked(self, config: MeshConfig, before: MeshConfig | None) -> MeshConfig:
        """Return the config as every host will read it.

        Raises:
            MeshConfigError: It describes no possible mesh, or one that this host does not allow.
        """
        try:
            after = decode_config(encode_config(config))
        except ValueError as error:
            raise MeshConfigError(f"this config describes no possible mesh: {error}") from error
        bounds = replace(self._registry.bounds, in_force=before.cidrs if before else ())
        for cidr in after.cidrs:
            refuse_outside(cidr, bounds)
        return after

    def _none_joined(self, records: RecordStore) -> list[kv.Compare]:
        """No lease and no reservation that was not looked at."""
        return [
            kv.none_created_since(each.start, each.end, records.revision)
            for each in (self._keys.range(LEASES), self._keys.range(RESERVATIONS))
        ]

    def _refuse_overlap(
        self, records: RecordStore, view: View, host_id: HostId, subnet: Network
    ) -> None:
        for lease in records.leases():
            if lease.subnet.overlaps(subnet) and lease.host_id != host_id:
                unused = "" if lease.subnet in view.by_subnet else ", a lease that is set aside"
                raise ClaimConflict(
                    f"{subnet} overlaps {lease.subnet}, held by"
                    f" {lease.host_name or lease.host_id or 'a flannel host'}{unused}",
                    hint="agentctl leases shows what is held",
                )
        obstacle = Obstacles(self._keys, records.unreadable).over(subnet)
        if obstacle is not None:
            raise ClaimConflict(
                f"{obstacle.key} may hold a part of {subnet} and cannot be read: {obstacle.reason}",
                hint=way_out(obstacle),
            )
        for reserved, owner in view.reservations.items():
            if reserved.overlaps(subnet) and (reserved, owner) != (subnet, host_id):
                raise ClaimConflict(
                    f"{subnet} overlaps {reserved}, reserved for host {owner}",
                    hint=f"end that first: agentctl reserve --delete {reserved}",
                )

    def _leases_unchanged(self, subnet: Network, own: list[Lease]) -> list[kv.Compare]:
        """Nobody has a lease there but ``own``, and those are as they were seen."""
        ranges = self._keys.overlapping(LEASES, subnet)
        found: list[kv.Compare] = []
        for lease in own:
            if lease.subnet.overlaps(subnet):
                key = self._keys.of(LEASES, lease.subnet)
                found.append(kv.unchanged(key, lease.mod_revision))
                ranges = without_key(ranges, key)
        return [*found, *(kv.none_in(each.start, each.end) for each in ranges)]


def _refuse_odd(config: MeshConfig, subnet: Network) -> None:
    """Raise MeshConfigError unless a host could hold ``subnet``."""
    if not within(subnet, config.cidr) or subnet == config.cidr:
        raise MeshConfigError(f"{subnet} is not a part of the mesh's CIDR {config.cidr}")
    if not is_leasable(subnet):
        shortest, longest = family_of(subnet).subnet_lengths
        raise MeshConfigError(
            f"{subnet} is not a subnet for a host: those are /{shortest} to /{longest}"
        )


def refuse_outside(cidr: Network, bounds: Bounds, view: View | None = None) -> None:
    """Raise MeshConfigError when a host with ``bounds`` would use no mesh in ``cidr``.

    Args:
        view: Members' heartbeats say what they need; ``cidr`` may hold nothing of that either.
    """
    problem = bounds.problem(cidr)
    reported = tuple(needed_of_members(view, (cidr,))) if view and not problem else ()
    if reported:
        problem = Problem(f"holds {', '.join(reported)}")
    if problem:
        ways = filter(None, ("choose another range", problem.hint))
        raise MeshConfigError(f"{cidr} {problem}; nothing was written", hint="; or ".join(ways))


def _is_of(lease: Lease, host: HostRef) -> bool:
    if host.host_id is not None:
        return lease.host_id == host.host_id
    return lease.host_id is None and lease.node_address == host.node_address


def _refuse_alive(view: View, host: HostRef) -> None:
    if host.host_id is None:
        raise Refused(
            f"{host} may be alive: flannel writes no heartbeat",
            hint="stop flanneld there; then --force takes its lease away",
        )
    if host.host_id in view.heartbeats:
        known = next((each for each in hosts_of(view) if each.host_id == host.host_id), host)
        raise Refused(
            f"host {known} is alive",
            hint="run agentctl leave there; --force takes its subnet away, and it claims it again",
        )


def _refuse_misfits(wished: MeshConfig, leases: tuple[Lease, ...], view: View) -> None:
    problems = [problem for lease in leases if (problem := check_lease(lease, wished))]
    problems += [
        f"reservation {subnet} is not a part of {' or '.join(map(str, wished.cidrs))}"
        for subnet in view.reservations
        if not wished.holds(subnet)
    ]
    if problems:
        raise Refused(
            f"the config would not fit what is in use: {first_few(problems, _SHOWN, '; ')}",
            hint="retire those hosts first (agentctl leave, agentctl remove), end those"
            " reservations, choose a range that holds them, or move host by host: --move",
        )


def _refuse_unread(level: int, before: MeshConfig | None, view: View) -> None:
    """Raise Refused when some host cannot read ``level`` and the config does not have it yet."""
    if before is not None and level <= before.level:
        return
    hosts = sorted(
        f"{each.host_name or each.host_id} (level {each.level})"
        for each in HeldBack.of(view.heartbeats, level).hosts.values()
    )
    if hosts:
        raise Refused(
            f"level {level} cannot be read by {first_few(hosts, _SHOWN)}",
            hint="install this version of hostmesh there first; agentctl leases -o wide shows each"
            " host's level",
        )


def _flannel_leaves(lease: Lease, config: MeshConfig) -> bool:
    """Flannel's isSubnetConfigCompat: what it asks of its own lease at start."""
    first = int(lease.subnet.network_address)
    inside = int(config.subnet_min) <= first <= int(config.subnet_max)
    return lease.host_id is None and not (inside and lease.subnet.prefixlen == config.subnet_len)


def _decoded(record: kv.Record) -> MeshConfig | None:
    try:
        return decode_config(record.value, record.mod_revision)
    except ValueError:
        return None


def _config(view: View) -> MeshConfig:
    if view.config is None:
        raise MeshConfigError(
            str(view.config_problem or "") or "there is no config in etcd yet",
            hint="create it with agentctl config init --cidr …",
        )
    return view.config


def _object_or_none(record: kv.Record | None) -> bytes | None:
    """Return a config's text if unknown fields can be kept from it."""
    if record is None:
        return None
    try:
        parse_object(record.value)
    except ValueError:
        return None
    return record.value
