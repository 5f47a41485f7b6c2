"""Derive the records that this host publishes beside its lease from the agent's state. Pure."""

from __future__ import annotations

from agent.daemon.state.agent_state import AgentState
from agent.mesh.networks import own_slices, wanted_networks
from agent.mesh.world import World
from agent.model import NETWORKS_LEVEL, Lease, MeshConfig
from agent.model.family import Network, meet
from agent.model.network import NetworkSlice
from agent.registry.own.own_records import Holding
from agent.registry.own.publisher import Publication
from agent.registry.records import LEASES, OWNERS, Keys

__all__ = ["publication", "read_by_publication"]


def publication(state: AgentState) -> tuple[Publication] | None:
    """Return what is to be in etcd of this host; None while it has no lease there.

    Agents of a lower level pass over these keys, so they do not hold them back.
    """
    mesh = state.mesh
    own, config = mesh.own, mesh.config
    if mesh.left or own is None or config is None:
        return None
    if not own.create_revision or not own.etcd_lease_id:  # as this host's copy has it
        return None
    holding = Holding.of(_key(state, own, config), own)
    if config.level < NETWORKS_LEVEL:
        return (Publication(holding, (), ()),)
    return (Publication(holding, _slices(state), mesh.own_endpoints),)


def _key(state: AgentState, own: Lease, config: MeshConfig) -> bytes:
    """Return the key that decides whose the lease is."""
    keys = Keys(state.settings.etcd.prefix)
    if config.owners:
        return keys.of(OWNERS, (state.mesh.host_id, own.subnet))
    return keys.of(LEASES, own.subnet)


def _slices(state: AgentState) -> tuple[NetworkSlice, ...] | None:
    world = state.world()
    if world is None:
        return None
    found = own_slices(world)
    if not found.known:
        return None
    slices = {each.name: each.subnet for each in found.slices}
    slices = {**_awaited(world), **slices}
    host_id = state.mesh.host_id
    return tuple(
        NetworkSlice(host_id=host_id, network=name, subnet=slices[name]) for name in sorted(slices)
    )


def _awaited(world: World) -> dict[str, Network]:
    """Return the subnets of networks that Docker is to make again in them, by name.

    A network that was removed while the agent was off gets its subnet back. Not one whose subnet
    Docker has given to another network: the slice would open this mesh network to that one.
    """
    taken = [each.subnet for each in world.docker.networks] if world.docker else []
    return {
        each.name: each.subnet
        for each in wanted_networks(world)
        if each.subnet is not None
        and not each.removed
        and not any(meet(each.subnet, other) for other in taken)
    }


def read_by_publication(state: AgentState) -> tuple[object, ...]:
    """Return the parts of the state from which a publication is made."""
    mesh = state.mesh
    view = mesh.believed
    return (
        state.settings,
        mesh.left,
        mesh.own,
        mesh.former,
        mesh.config,
        mesh.docker,
        mesh.own_endpoints,
        mesh.host is None,
        None if view is None else view.networks,
        None if view is None else view.slices,
    )
