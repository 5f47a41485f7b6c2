"""Say what this host's name servers need to know of this host. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from agent.mesh.firewall.access import judged
from agent.mesh.networks import own_slices
from agent.mesh.world import World
from agent.model import Access, Container, DockerNetwork
from agent.model.endpoint import usable_name
from agent.model.family import Address
from agent.model.names import MOST_ASKERS, MOST_NETWORKS, LocalNames, LocalNetwork

__all__ = ["local_names"]


def local_names(world: World, limit: Access, boot_id: str, *, complete: bool) -> LocalNames | None:
    """Return this host's networks and askers; None while Docker or the mesh is not known.

    Args:
        limit: No network of this host is opened wider than this.
        boot_id: Of this run of the host.
        complete: The names of the whole mesh are known, and etcd is followed.
    """
    config, docker = world.config, world.docker
    if config is None or docker is None or not config.domain:
        return None
    slices = {each: slice_.name for each, slice_ in own_slices(world).by_docker_id.items()}
    names = {each.id: usable_name(each.name, each.id) for each in docker.networks}
    return LocalNames(
        domain=config.domain,
        host_id=world.host_id,
        boot_id=boot_id,
        complete=complete,
        ranges=config.cidrs,
        networks=tuple(
            _network(
                each,
                slices.get(each.id, ""),
                judged(each, config.access, limit, world.networks)[0].access,
            )
            for each in docker.networks[:MOST_NETWORKS]
        ),
        askers=dict(islice(_askers(docker.containers, names).items(), MOST_ASKERS)),
    )


def _network(network: DockerNetwork, name: str, access: Access) -> LocalNetwork:
    return LocalNetwork(
        name=usable_name(network.name, network.id),
        bridge=network.bridge,
        subnets=(network.subnet,),
        mesh_network=name,
        access=access,
        internal=network.internal,
    )


def _askers(
    containers: tuple[Container, ...], names: Mapping[str, str]
) -> Mapping[Address, tuple[str, ...]]:
    """Return the networks of each container that has several, by each of its addresses."""
    found: dict[Address, tuple[str, ...]] = {}
    for container in containers:
        places = [each for each in container.attachments if each.network in names]
        if len(places) > 1:
            networks = tuple(sorted({names[each.network] for each in places}))
            found.update(dict.fromkeys((each.address for each in places), networks))
    return found
