"""Change the mesh's config while hosts use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from agent.errors import EtcdError, MeshConfigError, Refused
from agent.etcd import kv
from agent.mesh.config_change import left_behind
from agent.mesh.level import HeldBack
from agent.mesh.needed import needed_of_members
from agent.mesh.ranges import OverlapIndex
from agent.model import (
    NETWORKS_LEVEL,
    OWNERS_LEVEL,
    Bounds,
    Lease,
    MeshConfig,
    Problem,
    View,
    first_few,
)
from agent.model.family import Network, network_order
from agent.model.untrusted import parse_object
from agent.registry.accepted_leases import AcceptedLeases
from agent.registry.lease_records import why_unowned
from agent.registry.record_store import RecordStore
from agent.registry.records import (
    CONFIG,
    LEASES,
    OWNERS,
    RESERVATIONS,
    check_lease,
    decode_config,
    encode_config,
)
from agent.registry.registry import Registry

__all__ = ["ConfigChange", "change_config", "refuse_outside"]

_TRIES = 5
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChange:
    """The result of a change of the config.

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


def change_config(
    registry: Registry,
    wished: Callable[[MeshConfig | None], MeshConfig],
    *,
    flannel_may_go: bool = False,
    dry: bool = False,
) -> ConfigChange:
    """Change the config; what is in use stays inside, unknown fields stay as they are.

    A larger CIDR and another SubnetLen for new leases work while the mesh runs. Another
    CIDR takes ``MeshConfig.previous``, in which leases go on until their hosts have moved.

    Args:
        wished: Makes the new config of the present one (None: none that is usable). Called
            again when another operator changed it meanwhile.
        flannel_may_go: The operator says that flannel hosts lose their routes.
        dry: Check and write nothing.

    Raises:
        Refused: A lease or a reservation would be outside, or a node address inside; a host
            cannot read a higher level; a lease would not count any more.
        MeshConfigError: What is wished describes no possible mesh.
    """
    key = registry.keys.of(CONFIG)
    for _ in range(_TRIES):
        records = registry.records()
        record = records.get(key)
        before = None if record is None else _decoded(record)
        after = _checked(registry, wished(before), before)
        view = records.view()
        held = view.leases if before is not None and before.owners else records.leases()
        _refuse_misfits(after, _possible(registry, held), view)
        _refuse_unread(after.level, before, view)
        _refuse_otherwise_owned(records, view, before, after)
        if not (after.flannel or flannel_may_go):
            _refuse_without_flannel(view)
        value = encode_config(after, _object_or_none(record))
        same = record is not None and value == record.value
        change = ConfigChange(
            before=before,
            after=replace(after, mod_revision=record.mod_revision if record else 0),
            changed=not same,
            not_moved=tuple(each for each in held if after.must_move(each.subnet)),
            flannel_leaves=tuple(each for each in held if _flannel_leaves(each, after)),
        )
        if same or dry:
            return change
        compares = [kv.unchanged(key, record.mod_revision if record else 0)]
        if _begins_owners(before, after) or left_behind(before, after):
            compares += _none_joined(registry, records)
        result = registry.client.txn("change the config", compares, [kv.put(key, value)])
        if result.succeeded:
            return replace(change, after=replace(after, mod_revision=result.revision))
    raise EtcdError("the mesh changes faster than its config can be set")


def _possible(registry: Registry, leases: Iterable[Lease]) -> tuple[Lease, ...]:
    """Return those that a host of this mesh may use: a forged one keeps nothing."""
    return tuple(each for each in leases if not registry.bounds.problem(each.subnet))


def _begins_owners(before: MeshConfig | None, after: MeshConfig) -> bool:
    return after.owners and not (before and before.owners)


def _refuse_otherwise_owned(
    records: RecordStore, view: View, before: MeshConfig | None, after: MeshConfig
) -> None:
    """Raise Refused where a lease would belong to another host, or to none."""
    if _begins_owners(before, after):
        _refuse_unowned(records.owners(), view, after)
    if before is not None and before.owners and not after.owners:
        _refuse_overwritten(view)


def _checked(registry: Registry, config: MeshConfig, before: MeshConfig | None) -> MeshConfig:
    """Return the config as every host will read it.

    Raises:
        MeshConfigError: It describes no possible mesh, or one that this host does not allow.
    """
    if config.owners and config.level < OWNERS_LEVEL:
        raise Refused(
            f"owner records need level {OWNERS_LEVEL} and the config has level {config.level}",
            hint=f"when every host can read it: agentctl config set --level {OWNERS_LEVEL}; a"
            " mesh goes back below it without them: agentctl config set --owners optional",
        )
    if config.domain and config.level < NETWORKS_LEVEL:
        raise Refused(
            f"names need level {NETWORKS_LEVEL} and the config has level {config.level}",
            hint=f"when every host can read it: agentctl config set --level {NETWORKS_LEVEL}; a"
            " mesh goes back below it without names: agentctl config set --names off",
        )
    try:
        after = decode_config(encode_config(config))
    except ValueError as error:
        raise MeshConfigError(f"this config describes no possible mesh: {error}") from error
    bounds = replace(registry.bounds, in_force=before.cidrs if before else ())
    for cidr in after.cidrs:
        refuse_outside(cidr, bounds)
    return after


def _none_joined(registry: Registry, records: RecordStore) -> list[kv.Compare]:
    """No lease and no reservation that was not looked at."""
    return [
        kv.none_created_since(each.start, each.end, records.revision)
        for kind in (LEASES, OWNERS, RESERVATIONS)
        for each in (registry.keys.range(kind),)
    ]


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


def _refuse_misfits(wished: MeshConfig, leases: tuple[Lease, ...], view: View) -> None:
    problems = [
        f"{problem}, and {lease.host_name or lease.node_address} holds it"
        for lease in leases
        if (problem := check_lease(lease, wished))
    ]
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


def _refuse_unowned(owners: tuple[Lease, ...], view: View, after: MeshConfig) -> None:
    """Raise Refused unless every lease would count by its owner record alone, now and later.

    An older owner record that overlaps one may not count yet, and could once its host deletes
    another. While owner records decide, no claim is won beside such a record.
    """
    recorded = {(each.host_id, each.subnet): each for each in owners if each.host_id is not None}
    problems = [why_unowned(each, recorded) for each in view.leases if each.host_id is not None]
    taken = OverlapIndex()
    for owner in sorted(owners, key=lambda each: each.create_revision):
        older = taken.find(owner.subnet)
        lease = view.by_subnet.get(owner.subnet)
        if older is not None and lease is not None and lease.host_id == owner.host_id:
            problems.append(
                f"the owner record of {owner.subnet} of host {owner.host_name or owner.host_id}"
                f" overlaps an older one of {older}"
            )
        taken.add(owner.subnet)
    found = list(filter(None, problems)) or _set_aside(owners, view, after)
    if found:
        raise Refused(
            f"{len(found)} leases would not count: {first_few(found, _SHOWN, '; ')}",
            hint="each host that runs this version writes its owner record within a minute: see"
            " agentctl status there; retire a host that is gone: agentctl remove HOST; an owner"
            " record that is in the way and of no such host: etcdctl del its key",
        )


def _set_aside(owners: tuple[Lease, ...], view: View, after: MeshConfig) -> list[str]:
    """Judge as hosts will, and say which leases of today would not be used.

    Before hosts had accounts of their own, any of them could write owner records in another's name
    or over a flannel host's subnet.
    """
    flannels = [each for each in view.leases if each.host_id is None and after.flannel]
    judged = AcceptedLeases()
    for each in (*owners, *flannels):
        judged.put(f"{each.host_id} {each.subnet}", each)
    used, aside = judged.settle(after)
    return [
        f"{lease.subnet} of {lease.host_name or lease.node_address}: {reason}"
        for lease, reason in aside.values()
        if lease.subnet not in used.by_subnet
        and (now := view.by_subnet.get(lease.subnet)) is not None
        and now.host_id == lease.host_id
    ]


def _refuse_overwritten(view: View) -> None:
    """Raise Refused where a key that would decide is missing or says something else."""
    leases = (view.by_subnet[each] for each in sorted(view.overwritten, key=network_order))
    found = [f"{each.subnet} of host {each.host_name or each.host_id}" for each in leases]
    if found:
        raise Refused(
            f"{len(found)} leases would not count, because their keys under subnets/ are gone or"
            f" overwritten: {first_few(found, _SHOWN)}",
            hint="their hosts write them again at once while their agents run: start these, or"
            " retire a host that is gone: agentctl remove HOST",
        )


def _refuse_without_flannel(view: View) -> None:
    hosts = [str(each.node_address) for each in view.leases if each.host_id is None]
    if hosts:
        raise Refused(
            f"{len(hosts)} flannel hosts would lose their routes: {first_few(hosts, _SHOWN)}",
            hint="keep them with --flannel allow, or say --flannel refuse",
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


def _object_or_none(record: kv.Record | None) -> bytes | None:
    """Return a config's text if unknown fields can be kept from it."""
    if record is None:
        return None
    try:
        parse_object(record.value)
    except ValueError:
        return None
    return record.value
