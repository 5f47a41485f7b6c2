"""Create and remove the record of a mesh network; hosts do the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.errors import EtcdError, Refused
from agent.etcd import kv
from agent.mesh.networks import digest
from agent.model import NETWORKS_LEVEL, MeshConfig, View, first_few
from agent.model.network import DEFAULT_SLICE, LONGEST_SLICE, MeshNetwork
from agent.registry.operations.hosts import find_host
from agent.registry.operations.network_hosts import Slices, parts_of
from agent.registry.operations.reservations import config_of
from agent.registry.records import CONFIG, NETWORKS, encode_network
from agent.registry.registry import Registry

__all__ = ["NetworkChange", "create_network", "member_pattern", "remove_network", "usual_length"]

_TRIES = 5
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkChange:
    """The result of a change of a mesh network's record.

    Attributes:
        view: The mesh before it.
        changed: The record was, or would be, written or deleted.
        deleted: It is, or would be, gone.
        kept: Its removal was pending, and is taken back.
    """

    view: View
    changed: bool
    deleted: bool = False
    kept: bool = False


def member_pattern(view: View, text: str) -> str:
    """Return an entry of ``MeshNetwork.hosts``: a pattern as it is, a host by its id.

    Raises:
        Refused: Without a wildcard, and no host with a lease is meant, or more than one.
    """
    if "*" in text or "?" in text:
        return text
    host = find_host(view, text)
    if host.host_id is None or not view.leases_of(host.host_id):
        raise Refused(
            f"{host} has no lease of Hostmesh, so it takes part in no network",
            hint="agentctl leases -o wide shows hosts and their ids",
        )
    return host.host_id


def usual_length(config: MeshConfig) -> int:
    """Return the prefix length of slices where the operator says none."""
    return max(DEFAULT_SLICE, min(config.subnet_len + 4, LONGEST_SLICE))


def create_network(registry: Registry, wish: MeshNetwork, *, dry: bool = False) -> NetworkChange:
    """Write the record of a mesh network. Repeating it is fine.

    A removal that is pending is taken back if all else is as it was: hosts keep their slices.

    Raises:
        MeshConfigError: There is no config.
        Refused: The config does not allow networks, slices would not fit into hosts' subnets, or
            there is a network of that name that differs.
    """
    key = registry.keys.of(NETWORKS, wish.name)
    for _ in range(_TRIES):
        records = registry.records()
        view = records.view()
        config = config_of(view)
        _refuse_unfit(config, wish)
        _refuse_unreadable(records.unreadable.get(key), wish.name)
        present = view.networks.get(wish.name)
        _refuse_same_hash(view, wish.name)
        if present is None and len(view.networks) >= NETWORKS.most:
            raise Refused(
                f"there are {len(view.networks)} records of networks, as many as a mesh may have",
                hint="remove one first: agentctl network ls, agentctl network rm NAME",
            )
        in_use = bool(Slices(view).of(wish.name))
        if present is not None and (in_use or not present.removed):
            _refuse_other(present, wish)
        if present is not None and not present.removed:
            return NetworkChange(view=view, changed=False)
        change = NetworkChange(view=view, changed=True, kept=present is not None and in_use)
        compares = [
            kv.unchanged(registry.keys.of(CONFIG), config.mod_revision),
            kv.unchanged(key, present.mod_revision if present else 0),
        ]
        put = kv.put(key, encode_network(wish))
        if dry or registry.client.txn(f"create network {wish.name}", compares, [put]).succeeded:
            return change
    raise EtcdError("the mesh changes faster than a network can be created")


def remove_network(registry: Registry, name: str, *, dry: bool = False) -> NetworkChange:
    """Have every host remove its part of a network, then delete the record. Repeat it for that.

    The record stays, marked as removed, while a host publishes a slice. A host that comes back
    later removes what it made of a record that is gone.

    Raises:
        Refused: Hosts have the network by a label alone: it has no record to remove.
    """
    key = registry.keys.of(NETWORKS, name)
    for _ in range(_TRIES):
        records = registry.records()
        view = records.view()
        record, deleted = records.get(key), False
        if record is None:
            _refuse_label_only(view, name)
            return NetworkChange(view=view, changed=False)
        network = view.networks.get(name)
        if network is not None and not network.removed:
            operation = kv.put(key, encode_network(replace(network, removed=True)))
        elif network is not None and Slices(view).of(name):
            return NetworkChange(view=view, changed=False)
        else:
            operation, deleted = kv.delete(key), True
        same = [kv.unchanged(key, record.mod_revision)]
        if dry or registry.client.txn(f"remove network {name}", same, [operation]).succeeded:
            return NetworkChange(view=view, changed=True, deleted=deleted)
    raise EtcdError("the network changes faster than it can be removed")


def _refuse_unfit(config: MeshConfig, wish: MeshNetwork) -> None:
    if config.level < NETWORKS_LEVEL:
        raise Refused(
            f"networks need level {NETWORKS_LEVEL} and the config has level {config.level}",
            hint=f"when every host can read it: agentctl config set --level {NETWORKS_LEVEL}",
        )
    if wish.length <= config.subnet_len:
        raise Refused(
            f"a /{wish.length} does not fit into a host's subnet, a /{config.subnet_len}",
            hint=f"choose a smaller one: --size /{usual_length(config)}",
        )


def _refuse_same_hash(view: View, name: str) -> None:
    hashed = digest(name)
    other = next((each for each in view.networks if digest(each) == hashed and each != name), None)
    if other is not None:
        raise Refused(
            f"the hash of {name}, after which hosts name its bridge, is that of network {other}",
            hint="choose another name",
        )


def _refuse_unreadable(reason: str | None, name: str) -> None:
    if reason is not None:
        raise Refused(
            f"the record of network {name} cannot be read: {reason}",
            hint=f"delete it first: agentctl network rm {name}",
        )


def _refuse_other(present: MeshNetwork, wish: MeshNetwork) -> None:
    """Raise Refused unless both say the same, but for the removal."""
    pairs = (
        ("access", present.access or "as the mesh", wish.access or "as the mesh"),
        ("hosts", _listed(present.hosts), _listed(wish.hosts)),
        ("size", f"/{present.length}", f"/{wish.length}"),
    )
    differing = [
        f"{name} {there}, not {wished}" for name, there, wished in pairs if there != wished
    ]
    if differing:
        state = "is being removed from its hosts" if present.removed else "exists"
        raise Refused(
            f"network {wish.name} {state}, with {'; '.join(differing)}",
            hint="wait until agentctl network ls shows no host of it"
            if present.removed
            else f"to replace it: agentctl network rm {wish.name}, then create it again",
        )


def _listed(hosts: tuple[str, ...]) -> str:
    return ", ".join(sorted(hosts)) or "all"


def _refuse_label_only(view: View, name: str) -> None:
    parts = parts_of(view, name, Slices(view))
    if parts:
        hosts = first_few([each.host_name or each.host_id for each in parts], _SHOWN)
        raise Refused(
            f"network {name} has no record: Docker networks of {hosts} carry its label",
            hint="remove them there: docker network rm, or docker compose down",
        )
