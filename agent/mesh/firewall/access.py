"""How open a Docker network is to the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent.mesh.firewall.values import WantedNetwork
from agent.model import Access, Condition, DockerNetwork
from agent.model.network import NETWORK_LABEL, MeshNetwork

__all__ = ["ACCESS_LABEL", "is_closed", "judged"]

ACCESS_LABEL: Final = "hostmesh.access"
"""Label of a Docker network that says how open it is to the mesh."""

_TIGHTNESS: Final = {Access.OPEN: 0, Access.PUBLISHED: 1, Access.CLOSED: 2}


Records = Mapping[str, MeshNetwork]
"""The operator's records of mesh networks, by name."""


def is_closed(network: DockerNetwork, default: Access, limit: Access, records: Records) -> bool:
    """Whether hosts outside a network's mesh network may send nothing into it."""
    return judged(network, default, limit, records)[0].closed


def judged(
    network: DockerNetwork, default: Access, limit: Access, records: Records
) -> tuple[WantedNetwork, Condition | None]:
    """Return what the mesh may do with a network, and what is wrong with its label.

    Args:
        default: The mesh's default for user-defined networks without a label.
        limit: No network of this host is opened wider than this.
    """
    access, problem = _access(network, default, limit, records)
    wanted = WantedNetwork(
        subnet=network.subnet,
        bridge=network.bridge,
        access=access,
        internal=network.internal,
        labelled=NETWORK_LABEL in network.labels,
    )
    return wanted, problem


def _access(
    network: DockerNetwork, default: Access, limit: Access, records: Records
) -> tuple[Access, Condition | None]:
    """How open ``network`` is, never wider than ``limit``; an unreadable label closes it.

    The record of its mesh network takes the place of the mesh's default, and limits its label.
    """
    if network.internal:
        return Access.CLOSED, None
    label = network.labels.get(ACCESS_LABEL)
    record = records.get(network.labels.get(NETWORK_LABEL, ""))
    said = record.access if record else None
    problem: Condition | None = None
    if label is None:
        access = Access.OPEN if network.default else said or default
    elif label in set(Access):
        access = Access(label)
    else:
        access, problem = Access.CLOSED, _odd_label(network, label)
    return max(access, said or access, limit, key=_TIGHTNESS.__getitem__), problem


def _odd_label(network: DockerNetwork, label: str) -> Condition:
    return Condition(
        name="network-access-invalid",
        subject=network.name,
        cause=f"label {ACCESS_LABEL}={label!r} of Docker network {network.name} is none of"
        " open, published, closed; the network is closed to the mesh",
        hint=f"make the network again with --label {ACCESS_LABEL}=published",
    )
