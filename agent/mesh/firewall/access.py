"""How open a Docker network is to the mesh."""

from __future__ import annotations

from typing import Final

from agent.mesh.firewall.values import WantedNetwork
from agent.model import Access, Condition, DockerNetwork

__all__ = ["ACCESS_LABEL", "is_closed", "judged"]

ACCESS_LABEL: Final = "hostmesh.access"
"""Label of a Docker network that says how open it is to the mesh."""

_TIGHTNESS: Final = {Access.OPEN: 0, Access.PUBLISHED: 1, Access.CLOSED: 2}


def is_closed(network: DockerNetwork, default: Access, limit: Access) -> bool:
    """Whether the mesh may send nothing into ``network``."""
    return judged(network, default, limit)[0].closed


def judged(
    network: DockerNetwork, default: Access, limit: Access
) -> tuple[WantedNetwork, Condition | None]:
    """Return what the mesh may do with a network, and what is wrong with its label.

    Args:
        default: The mesh's default for user-defined networks without a label.
        limit: No network of this host is opened wider than this.
    """
    access, problem = _access(network, default, limit)
    wanted = WantedNetwork(
        subnet=network.subnet, bridge=network.bridge, access=access, internal=network.internal
    )
    return wanted, problem


def _access(
    network: DockerNetwork, default: Access, limit: Access
) -> tuple[Access, Condition | None]:
    """How open ``network`` is, never wider than ``limit``; an unreadable label closes it."""
    if network.internal:
        return Access.CLOSED, None
    label = network.labels.get(ACCESS_LABEL)
    problem: Condition | None = None
    if label is None:
        access = Access.OPEN if network.default else default
    elif label in set(Access):
        access = Access(label)
    else:
        access, problem = Access.CLOSED, _odd_label(network, label)
    return max(access, limit, key=_TIGHTNESS.__getitem__), problem


def _odd_label(network: DockerNetwork, label: str) -> Condition:
    return Condition(
        name="network-access-invalid",
        subject=network.name,
        cause=f"label {ACCESS_LABEL}={label!r} of Docker network {network.name} is none of"
        " open, published, closed; the network is closed to the mesh",
        hint=f"make the network again with --label {ACCESS_LABEL}=published",
    )
