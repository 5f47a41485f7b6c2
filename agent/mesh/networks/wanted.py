"""Find the Docker networks that records ask this host to have. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.mesh.backends import container_mtu
from agent.mesh.networks.claims import is_allowed_here, spans_hosts
from agent.mesh.world import World
from agent.model import HostId
from agent.model.family import Network, within
from agent.model.network import MeshNetwork

__all__ = ["DesiredNetwork", "wanted_networks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredNetwork:
    """A Docker network of the agent's that this host should have, or have no longer.

    Attributes:
        name: The mesh network's, Docker's name and the value of the label.
        length: Prefix length of its subnet.
        subnet: The one that this host published for it; None: a free one of the lease.
        mtu: None while the uplink is not known.
        removed: It is to go as soon as no container is attached. Its record says so, or it does
            not name this host.
    """

    name: str
    length: int
    subnet: Network | None = None
    mtu: int | None = None
    removed: bool = False


def wanted_networks(world: World) -> tuple[DesiredNetwork, ...]:
    """Return what the records of mesh networks ask of this host, in order of name.

    None without a lease, nor below the level that networks need. A network without a record is
    not among them; that a record is gone is certain in a complete world only.
    """
    if world.own is None or not spans_hosts(world):
        return ()
    return tuple(_wanted(world, world.own.host_name))


def _wanted(world: World, host_name: str) -> Iterator[DesiredNetwork]:
    mtu = None if world.uplink is None else container_mtu(world.uplink, world.config)
    for name, record in sorted(world.networks.items()):
        joins = _joins(world, record, world.host_id, host_name)
        yield DesiredNetwork(
            name=name,
            length=record.length,
            subnet=_published(world, name),
            mtu=mtu,
            removed=record.removed or not joins,
        )


def _joins(world: World, record: MeshNetwork, host_id: HostId, host_name: str) -> bool:
    return record.has(host_id, host_name) and is_allowed_here(world, record.name)


def _published(world: World, name: str) -> Network | None:
    """Return the subnet of this host's slice, if a network can be made in it now."""
    found = world.slices.get((world.host_id, name))
    usable = found is not None and world.own is not None and within(found.subnet, world.own.subnet)
    return found.subnet if found is not None and usable else None
