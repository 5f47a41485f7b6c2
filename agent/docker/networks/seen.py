"""Read Docker's networks and the containers that use them, stopped ones too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.docker.engine.api import Api
from agent.docker.engine.containers import container_name
from agent.docker.engine.reading import OWN_LABEL, bridge_networks
from agent.model import DockerNetwork
from agent.model.family import Network, read_network
from agent.model.network import NETWORK_LABEL

__all__ = ["MADE_FOR_MESH", "Seen", "SeenNetwork", "User", "read_seen"]

MADE_FOR_MESH = "network"
"""Value of the agent's own label on a network that it made by a record."""


@dataclass(frozen=True, slots=True)
class SeenNetwork:
    """A Docker network of any driver.

    Attributes:
        subnets: IPv4 only.
        bridge: Its facts, None where it is no bridge network with an IPv4 subnet.
    """

    id: str
    name: str
    mesh_network: str = ""
    own: bool = False
    subnets: tuple[Network, ...] = ()
    bridge: DockerNetwork | None = None


@dataclass(frozen=True, slots=True)
class User:
    """A container and the networks that it is attached to, or will be when it starts.

    Attributes:
        networks: Name and id of each; the id is "" before the first start.
    """

    name: str
    networks: tuple[tuple[str, str], ...]

    def uses(self, network: SeenNetwork) -> bool:
        """Return whether it could not start without the network."""
        return any(
            identity == network.id or (not identity and name in {network.name, network.id})
            for name, identity in self.networks
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """All networks, and the containers on those that matter."""

    networks: tuple[SeenNetwork, ...]
    users: tuple[User, ...] = ()

    def users_of(self, network: SeenNetwork) -> tuple[str, ...]:
        """Name the containers of a network, in order."""
        return tuple(sorted(each.name for each in self.users if each.uses(network)))

    def lost_by(self, name: str) -> tuple[str, ...]:
        """Name the containers that refer to a network of that name by an id that is gone."""
        ids = {each.id for each in self.networks}
        return tuple(
            sorted(
                each.name
                for each in self.users
                if any(n == name and i and i not in ids for n, i in each.networks)
            )
        )


def read_seen(api: Api, names: Iterable[str]) -> Seen:
    """Ask for all networks, and for the containers of those that are the agent's or have a name.

    Args:
        api: A connection.
        names: Of mesh networks that are to be made or removed.

    Raises one of :data:`agent.docker.engine.api.FAILURES`.
    """
    networks = _networks(api.get("/networks"))
    asked = {*names, *(each.name for each in networks if each.own or each.mesh_network)}
    if not asked:
        return Seen(networks)
    found = api.get("/containers/json", all="1", filters={"network": sorted(asked)})
    return Seen(networks, tuple(_users(found)))


def _networks(raw: Iterable[Mapping[str, Any]]) -> tuple[SeenNetwork, ...]:
    listed = list(raw)
    bridges = {each.id: each for each in bridge_networks(listed)}
    found = []
    for each in listed:
        labels = each.get("Labels") or {}
        identity = str(each["Id"])
        network = SeenNetwork(
            id=identity,
            name=str(each.get("Name")),
            mesh_network=str(labels.get(NETWORK_LABEL) or ""),
            own=labels.get(OWN_LABEL) == MADE_FOR_MESH,
            subnets=tuple(_subnets(each)),
            bridge=bridges.get(identity),
        )
        found.append(network)
    return tuple(found)


def _subnets(raw: Mapping[str, Any]) -> Iterator[Network]:
    for config in (raw.get("IPAM") or {}).get("Config") or ():
        with contextlib.suppress(ValueError):
            yield read_network(config.get("Subnet") or "", strict=False)


def _users(listed: Iterable[Mapping[str, Any]]) -> Iterator[User]:
    for each in listed:
        places = (each.get("NetworkSettings") or {}).get("Networks") or {}
        networks = tuple(
            (name, str((place or {}).get("NetworkID") or "")) for name, place in places.items()
        )
        yield User(container_name(each), networks)
