"""Find the Docker networks of this host that are parts of mesh networks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from agent.mesh.networks.claims import clashes, is_allowed_here, refusal_by_mesh, spans_hosts
from agent.mesh.world import World
from agent.model import NETWORKS_LEVEL, Condition, DockerNetwork, first_few, summarise
from agent.model.family import Network, network_order, within
from agent.model.network import NETWORK_LABEL, NetworkSlice, parse_network_name

__all__ = ["OwnSlice", "OwnSlices", "own_slices", "published_slices"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSlice:
    """The part of a mesh network that this host has.

    Attributes:
        name: The mesh network's.
        docker_id: Docker's id of the network; "" while Docker has not answered.
    """

    name: str
    subnet: Network
    docker_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSlices:
    """The parts of mesh networks that this host has, one of a name at most.

    Attributes:
        slices: In order of name.
        conditions: Why labelled networks are none; bounded.
        known: Docker has answered. Before, the slices are those that this host published: none is
            to be withdrawn.
    """

    slices: tuple[OwnSlice, ...] = ()
    conditions: tuple[Condition, ...] = ()
    known: bool = False

    @property
    def by_docker_id(self) -> Mapping[str, OwnSlice]:
        """Every slice by Docker's id of the network."""
        return {each.docker_id: each for each in self.slices}


def own_slices(world: World) -> OwnSlices:
    """Return this host's slices in ``world``; none below the level that they need."""
    docker = world.docker
    if docker is None or not (docker.reachable or docker.networks):
        return OwnSlices(slices=tuple(_published(world)))
    problems: list[Condition] = []
    found: dict[str, list[DockerNetwork]] = {}
    for network in sorted(docker.networks, key=lambda each: (network_order(each.subnet), each.id)):
        name = network.labels.get(NETWORK_LABEL)
        if name is not None:
            refused = _refused(world, network, name)
            found.setdefault(name, []).extend(() if refused else (network,))
            problems += (refused,) if refused else ()
    slices = []
    clashing = clashes(name for name, networks in found.items() if networks)
    for name, networks in sorted(found.items()):
        if name in clashing:
            why = f"its hash is that of {clashing[name]}, which this host has, too"
            problems += (_not_joined(each, name, why) for each in networks)
            continue
        used = _the_one(world, name, networks)
        if used is not None:
            slices.append(OwnSlice(name=name, subnet=used.subnet, docker_id=used.id))
        problems += _duplicates(name, networks, used)
    return OwnSlices(slices=tuple(slices), conditions=summarise(problems), known=True)


def published_slices(world: World) -> tuple[NetworkSlice, ...]:
    """Return the slices that this host published, in order of name, whether they count or not."""
    own = (key for key in world.slices if key[0] == world.host_id)
    return tuple(world.slices[key] for key in sorted(own))


def _published(world: World) -> Iterator[OwnSlice]:
    """Yield the slices that this host published, as far as they would count now."""
    for each in published_slices(world):
        if not _refusal(world, each.network, each.subnet):
            yield OwnSlice(name=each.network, subnet=each.subnet)


def _refusal(world: World, name: str, subnet: Network) -> str:
    """Return why this host has no part of a mesh network there, or ""."""
    if world.config is None:
        return "the mesh's config is not known"
    if not spans_hosts(world):
        level = world.config.level
        return f"the mesh's level is {level}, below the {NETWORKS_LEVEL} that it needs"
    if not any(within(subnet, lease) for lease in world.own_subnets):
        return f"its subnet {subnet} is outside this host's lease"
    if not is_allowed_here(world, name):
        return "networks.allow in agent.toml does not name it"
    host_name = world.own.host_name if world.own else ""
    return refusal_by_mesh(world, name, world.host_id, host_name)


def _refused(world: World, network: DockerNetwork, name: str) -> Condition | None:
    try:
        parse_network_name(name)
    except ValueError as error:
        return Condition(
            name="network-label-invalid",
            subject=network.name,
            cause=f"label {NETWORK_LABEL}={name!r} of Docker network {network.name}: {error}",
            hint=f"make the network again with --label {NETWORK_LABEL}=NAME",
        )
    if network.internal:
        return _not_joined(network, name, "it was made with --internal and cannot be routed")
    why = _refusal(world, name, network.subnet)
    return _not_joined(network, name, why) if why else None


def _not_joined(network: DockerNetwork, name: str, why: str) -> Condition:
    return Condition(
        name="network-not-joined",
        subject=network.name,
        cause=f"Docker network {network.name} is no part of mesh network {name}: {why}",
        hint=f"see agentctl network inspect {name}; without the label the network is this host's"
        " alone",
    )


def _the_one(world: World, name: str, networks: list[DockerNetwork]) -> DockerNetwork | None:
    """Return the network that has the name here: of several the one that is published."""
    if len(networks) == 1:
        return networks[0]
    published = world.slices.get((world.host_id, name))
    if published is None:
        return None
    return next((each for each in networks if each.subnet == published.subnet), None)


def _duplicates(
    name: str, networks: list[DockerNetwork], used: DockerNetwork | None
) -> Iterable[Condition]:
    if len(networks) <= 1:
        return
    which = f"{used.name} is used" if used else "none is used"
    for each in networks:
        if each is not used:
            yield Condition(
                name="network-duplicate",
                subject=each.name,
                cause=f"Docker networks {first_few([one.name for one in networks])} all have the"
                f" label {NETWORK_LABEL}={name}, and a host has one part of a mesh network:"
                f" {which}",
                hint=f"remove one: docker network rm {each.name}",
            )
