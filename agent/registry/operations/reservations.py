"""Reserve a subnet for a host, and end a reservation."""

from __future__ import annotations

from agent.errors import ClaimConflict, EtcdError, MeshConfigError
from agent.etcd import kv
from agent.model import HostId, MeshConfig, View, is_leasable
from agent.model.family import Network, family_of, within
from agent.registry.claiming.selection import Obstacles, way_out
from agent.registry.record_store import RecordStore
from agent.registry.records import CONFIG, LEASES, OWNERS, RESERVATIONS, encode_reservation
from agent.registry.registry import Registry

__all__ = ["config_of", "reserve", "unreserve"]

_TRIES = 5


def reserve(registry: Registry, host_id: HostId, subnet: Network, *, dry: bool = False) -> bool:
    """Keep a subnet for a host, without a time limit. Repeating it is fine.

    Returns:
        False: it was reserved for the host already.

    Raises:
        MeshConfigError: There is no config, or ``subnet`` is not a subnet of the mesh.
        ClaimConflict: Another host holds or has reserved something that overlaps.
    """
    key = registry.keys.of(RESERVATIONS, subnet)
    for _ in range(_TRIES):
        records = registry.records()
        view = records.view()
        config = config_of(view)
        _refuse_odd(config, subnet)
        _refuse_overlap(records, view, host_id, subnet)
        if view.reservations.get(subnet) == host_id:
            return False
        if dry:
            return True
        compares = [kv.unchanged(registry.keys.of(CONFIG), config.mod_revision)]
        compares += [
            kv.none_in(each.start, each.end)
            for each in registry.keys.overlapping(RESERVATIONS, subnet)
        ]
        ranges = registry.keys.overlapping(LEASES, subnet)
        if config.owners:  # a claim may have replaced a key that has no right to be there
            ranges = (*ranges, registry.keys.range(OWNERS))
        compares += [
            kv.none_created_since(each.start, each.end, records.revision) for each in ranges
        ]
        put = kv.put(key, encode_reservation(host_id))
        if registry.client.txn(f"reserve {subnet}", compares, [put]).succeeded:
            return True
    raise EtcdError("the mesh changes faster than a subnet can be reserved")


def unreserve(registry: Registry, subnet: Network, *, dry: bool = False) -> bool:
    """End a reservation; the host keeps what it holds. False: there was none."""
    key = registry.keys.of(RESERVATIONS, subnet)
    if dry:
        return bool(registry.client.range(key).records)
    exists = kv.unchanged(key, 0)
    gone = registry.client.txn(f"unreserve {subnet}", [exists], [], [kv.delete(key)])
    return not gone.succeeded


def _refuse_odd(config: MeshConfig, subnet: Network) -> None:
    """Raise MeshConfigError unless a host could hold ``subnet``."""
    if not within(subnet, config.cidr) or subnet == config.cidr:
        raise MeshConfigError(f"{subnet} is not a part of the mesh's CIDR {config.cidr}")
    if not is_leasable(subnet):
        shortest, longest = family_of(subnet).subnet_lengths
        raise MeshConfigError(
            f"{subnet} is not a subnet for a host: those are /{shortest} to /{longest}"
        )


def config_of(view: View) -> MeshConfig:
    """Return the mesh's config. Raises MeshConfigError when there is none that is usable."""
    if view.config is None:
        raise MeshConfigError(
            str(view.config_problem or "") or "there is no config in etcd yet",
            hint="create it with agentctl config init --cidr …",
        )
    return view.config


def _refuse_overlap(records: RecordStore, view: View, host_id: HostId, subnet: Network) -> None:
    for lease in records.holders():
        if lease.subnet.overlaps(subnet) and lease.host_id != host_id:
            unused = "" if lease.subnet in view.by_subnet else ", a lease that is set aside"
            raise ClaimConflict(
                f"{subnet} overlaps {lease.subnet}, held by"
                f" {lease.host_name or lease.host_id or 'a flannel host'}{unused}",
                hint="agentctl leases shows what is held",
            )
    obstacle = Obstacles(records).over(subnet)
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
