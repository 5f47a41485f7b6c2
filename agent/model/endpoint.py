"""Endpoints: running containers as other hosts need them, with names and addresses."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.model.family import Address
from agent.model.mesh import Access, HostId
from agent.sharedmap import SharedMap

__all__ = [
    "ENDPOINTS_MOST",
    "LONGEST_NAME",
    "NAMES_MOST",
    "Endpoint",
    "EndpointAddress",
    "EndpointView",
    "Health",
    "is_usable",
    "usable_name",
]

ENDPOINTS_MOST: Final = 2_000
"""Of one host."""

NAMES_MOST: Final = 16
"""Aliases of a container in one network, and networks of a container."""

LONGEST_NAME: Final = 128
"""Characters of the name of a container, network, project or service, and of an alias."""

_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{LONGEST_NAME - 1}}}")
"""Docker's names of containers and networks, bounded."""


def is_usable(name: str) -> bool:
    """Return whether other hosts can read a name."""
    return _NAME.fullmatch(name) is not None


def usable_name(name: str, identity: str) -> str:
    """Return a name, or the start of the object's id where others could not read it."""
    return name if is_usable(name) else identity[:12]


class Health(enum.StrEnum):
    """The result of a container's health check, in Docker's terms."""

    NONE = "none"
    """The container has no health check."""
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointAddress:
    """The place of a container in one routable Docker network of its host.

    Attributes:
        network: Docker's name of the network ("bridge" for docker0).
        mesh_network: The mesh network whose slice it is, "" for none.
        access: How much of the network other hosts reach.
        aliases: The container's names in this network beside its own.
    """

    network: str
    address: Address
    mesh_network: str = ""
    access: Access = Access.PUBLISHED
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A running container as its host publishes it.

    Attributes:
        container_id: Docker's, 64 hex digits.
        name: The container's, without a slash.
        project, service: Of Compose, "" without it.
        addresses: In networks inside the host's lease, in order of network name.
        boot_id: Of the host's run in which the container was seen.
        mod_revision: etcd's, 0 for one that was not read there.
    """

    host_id: HostId
    container_id: str
    name: str
    project: str = ""
    service: str = ""
    health: Health = Health.NONE
    addresses: tuple[EndpointAddress, ...] = ()
    boot_id: str = ""
    mod_revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointView:
    """The endpoints of all hosts at one revision of etcd, as the hosts say.

    Views of one mesh share what did not change between them.

    Attributes:
        endpoints: By host and the first digits of the container's id.
        set_aside: Why records cannot be used, by key behind the prefix; bounded.
        complete: etcd was read completely. False before that: then absence proves nothing.
    """

    cluster_id: int = 0
    revision: int = 0
    endpoints: Mapping[tuple[HostId, str], Endpoint] = field(default_factory=SharedMap)
    set_aside: Mapping[str, str] = field(default_factory=SharedMap)
    complete: bool = False
