"""Compare the networks that records ask for with Docker's. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.docker.daemonjson.desired import DesiredDocker
from agent.docker.engine.reading import DOCKER_MTU
from agent.docker.networks.free_subnet import free_subnet
from agent.docker.networks.seen import Seen, SeenNetwork
from agent.mesh.networks import DesiredNetwork, digest
from agent.model import Condition, Severity, first_few
from agent.model.family import Network, meet, within
from agent.model.network import NETWORK_LABEL

__all__ = ["Creation", "Plan", "Wanted", "bridge_name", "made_by_agent", "plan"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The mesh networks that this host is to have, or to have no longer.

    Attributes:
        complete: The records are all there are, and current: a network of the agent's without one
            may go.
    """

    networks: tuple[DesiredNetwork, ...] = ()
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Creation:
    """A Docker network to be made."""

    name: str
    subnet: Network
    bridge: str
    mtu: int | None = None


@dataclass(slots=True)
class Plan:
    """Steps in their order, and conditions for what is in the way."""

    removals: list[SeenNetwork] = field(default_factory=list)
    creations: list[Creation] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)


_PREFIX: Final = "hm-"


def bridge_name(name: str) -> str:
    """Return the name of the Linux bridge of a mesh network."""
    return f"{_PREFIX}{digest(name)}"


def made_by_agent(seen: Seen, name: str) -> SeenNetwork | None:
    """Return the network of that name that the agent made."""
    found = (each for each in seen.networks if each.own and each.mesh_network == name)
    return next(found, None)


def plan(
    wanted: Wanted, docker: DesiredDocker, seen: Seen, link_exists: Callable[[str], bool]
) -> Plan:
    """Return the steps.

    Args:
        wanted: The networks that records ask for.
        docker: The lease, with the ranges for networks.
        seen: Docker's networks.
        link_exists: Tells whether the host has a link of a name.
    """
    made = Plan()
    taken = [docker.bip.network, *(subnet for each in seen.networks for subnet in each.subnets)]
    kept = [each for each in wanted.networks if not each.removed]
    taken += [each.subnet for each in kept if each.subnet and not _has(seen, each.name)]
    for each in kept:
        _make(made, each, docker, seen, taken, link_exists)
    going = [each.name for each in wanted.networks if each.removed]
    if wanted.complete:
        recorded = {each.name for each in wanted.networks}
        own = {each.mesh_network for each in seen.networks if each.own}
        going += sorted(own - recorded)
    for name in going:
        _remove(made, name, seen)
    return made


def _has(seen: Seen, name: str) -> bool:
    return any(each.mesh_network == name for each in seen.networks)


def _make(
    made: Plan,
    wanted: DesiredNetwork,
    docker: DesiredDocker,
    seen: Seen,
    taken: list[Network],
    link_exists: Callable[[str], bool],
) -> None:
    name = wanted.name
    made.conditions += _lost(name, seen)
    own = made_by_agent(seen, name)
    if own is not None:
        why = _wrong(own, wanted, docker)
        if _gives_way(own, docker, seen):
            made.removals.append(own)
        elif why:
            _remove_unused(made, own, seen, why)
        return
    if _has(seen, name):
        return  # the operator's or Compose's; conditions of its label come from the firewall's side
    problem = _in_the_way(name, made, seen, link_exists)
    if problem is not None:
        made.conditions.append(problem)
        return
    subnet = wanted.subnet
    if subnet is not None and not within(subnet, docker.subnet):
        subnet = None  # of the lease before a move
    if subnet is None or any(meet(subnet, each) for each in taken if each is not subnet):
        bases = [base for base, _ in docker.pools if base.prefixlen <= wanted.length]
        subnet = free_subnet(bases, wanted.length, taken)
    if subnet is None:
        made.conditions.append(_no_space(wanted, docker, seen))
        return
    taken.append(subnet)
    made.creations.append(Creation(name, subnet, bridge_name(name), wanted.mtu))


def _gives_way(own: SeenNetwork, docker: DesiredDocker, seen: Seen) -> bool:
    """Return whether a network of the agent's is unused, and another one can be the slice.

    Compose makes its network with the label whether there is one or not.
    """
    others = (
        each.bridge
        for each in seen.networks
        if each.mesh_network == own.mesh_network and not each.own and each.bridge
    )
    usable = (not each.internal and within(each.subnet, docker.subnet) for each in others)
    return any(usable) and not seen.users_of(own)


def _wrong(own: SeenNetwork, wanted: DesiredNetwork, docker: DesiredDocker) -> str:
    """Return why a network must be made again, "" when it is right."""
    if own.bridge is None:
        return "it has no IPv4 subnet"
    if not within(own.bridge.subnet, docker.subnet):
        return f"it has {own.bridge.subnet}, and this host's subnet is {docker.subnet}"
    mtu = wanted.mtu or DOCKER_MTU
    if wanted.mtu is not None and own.bridge.mtu != mtu:
        return f"its MTU is {own.bridge.mtu}, and {mtu} fit between the hosts"
    return ""


def _remove(made: Plan, name: str, seen: Seen) -> None:
    for network in seen.networks:
        if network.mesh_network != name:
            continue
        if network.own:
            _remove_unused(made, network, seen, f"mesh network {name} was removed")
        else:
            made.conditions.append(
                Condition(
                    name="network-remains",
                    subject=network.name,
                    cause=f"mesh network {name} was removed, and Docker network {network.name} has"
                    f" its label {NETWORK_LABEL}={name}; the agent did not make it",
                    hint=f"docker network rm {network.name}, or docker compose down where Compose"
                    " made it",
                )
            )


def _remove_unused(made: Plan, network: SeenNetwork, seen: Seen, why: str) -> None:
    users = seen.users_of(network)
    if not users:
        made.removals.append(network)
        return
    made.conditions.append(
        Condition(
            name="network-in-use",
            subject=network.name,
            cause=f"Docker network {network.name} must go or be made again: {why}; attached,"
            f" running or stopped: {first_few(users)}",
            hint=f"docker network disconnect -f {network.name} {users[0]}, and so on, or remove"
            " these containers; the agent does the rest",
        )
    )


def _in_the_way(
    name: str, made: Plan, seen: Seen, link_exists: Callable[[str], bool]
) -> Condition | None:
    other = next((each for each in seen.networks if each.name == name), None)
    if other is not None:
        subnets = ", ".join(map(str, other.subnets)) or "no IPv4 subnet"
        return Condition(
            name="network-name-taken",
            subject=name,
            cause=f"Docker network {name} ({subnets}) has no label {NETWORK_LABEL}={name}: it is"
            " no part of the mesh network of that name, and the agent cannot make another one",
            hint=f"docker network rm {name}: the agent makes it again; or keep it and remove the"
            f" mesh network: agentctl network rm {name}",
            severity=Severity.ERROR,
        )
    bridge = bridge_name(name)
    user = next((e.name for e in seen.networks if e.bridge and e.bridge.bridge == bridge), "")
    user = user or next((each.name for each in made.creations if each.bridge == bridge), "")
    if not user and not link_exists(bridge):
        return None
    owner = f"of Docker network {user}" if user else "of another program"
    return Condition(
        name="network-bridge-taken",
        subject=name,
        cause=f"link {bridge}, which Docker network {name} needs, is there already: it is {owner}",
        hint=f"docker network rm {user}" if user else f"ip link delete {bridge}, if it is unused",
        severity=Severity.ERROR,
    )


def _no_space(wanted: DesiredNetwork, docker: DesiredDocker, seen: Seen) -> Condition:
    inside: Sequence[str] = [
        f"{each.name} ({subnet})"
        for each in seen.networks
        for subnet in each.subnets
        if within(subnet, docker.subnet)
    ]
    return Condition(
        name="network-no-space",
        subject=wanted.name,
        cause=f"no /{wanted.length} for mesh network {wanted.name} is free in this host's subnet"
        f" {docker.subnet} beside docker0's range {docker.bip.network}: {first_few(inside)}",
        hint="docker network rm what is unused, or make the mesh network with smaller slices:"
        f" agentctl network create {wanted.name} --size /28",
        severity=Severity.ERROR,
    )


def _lost(name: str, seen: Seen) -> Iterator[Condition]:
    names = {name, *(each.name for each in seen.networks if each.mesh_network == name)}
    for network in sorted(names):
        containers = seen.lost_by(network)
        if containers:
            first = containers[0]
            yield Condition(
                name="network-id-gone",
                subject=network,
                cause=f"{first_few(containers)} refer to Docker network {network} by the id of one"
                " that was removed, and do not start",
                hint=f"docker network disconnect -f {network} {first}, then docker network connect"
                f" {network} {first}, and so on",
            )
