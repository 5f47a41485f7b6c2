"""Why a host's claim to a part of a mesh network does not count. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final

from agent.mesh.world import World
from agent.model import NETWORKS_LEVEL, HostId

__all__ = ["clashes", "digest", "is_allowed_here", "refusal_by_mesh", "spans_hosts"]

_DIGEST: Final = 10
"""Hex digits of a kernel object's name: with its prefix it must fit into a link's 15 octets."""


def digest(name: str) -> str:
    """Return what names of kernel objects have in place of a mesh network's name."""
    return hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]


def clashes(names: Iterable[str]) -> Mapping[str, str]:
    """Return each name whose digest another one has, first in order, and that other name."""
    first: dict[str, str] = {}
    return {
        name: first[digest(name)]
        for name in sorted(names)
        if first.setdefault(digest(name), name) != name
    }


def spans_hosts(world: World) -> bool:
    """Whether the mesh has networks that span hosts."""
    return world.config is not None and world.config.level >= NETWORKS_LEVEL


def is_allowed_here(world: World, name: str) -> bool:
    """Whether this host's own settings let it take part in a mesh network."""
    return any(fnmatchcase(name, each) for each in world.allowed_networks)


def refusal_by_mesh(world: World, name: str, host_id: HostId, host_name: str) -> str:
    """Return why config or record keep a host out of a mesh network, or "".

    The level of the mesh is not looked at.
    """
    record = world.networks.get(name)
    if record is None:
        declared = world.config is not None and world.config.declared_networks
        return "the mesh has declared networks only, and none of that name" if declared else ""
    return "" if record.has(host_id, host_name) else "its record does not name the host"
