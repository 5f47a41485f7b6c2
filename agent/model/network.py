"""Mesh networks: Docker networks of several hosts, at most one per host, that carry one name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from agent.model.domain import LABEL
from agent.model.family import Network
from agent.model.mesh import Access, HostId
from agent.model.untrusted import HOST_ID

__all__ = [
    "DEFAULT_SLICE",
    "LONGEST_SLICE",
    "NETWORK_LABEL",
    "RESERVED_NETWORK_NAMES",
    "SHORTEST_SLICE",
    "MeshNetwork",
    "NetworkSlice",
    "parse_network_name",
]

NETWORK_LABEL: Final = "hostmesh.network"
"""Label of a Docker network that names the mesh network whose slice it is."""

RESERVED_NETWORK_NAMES: Final = frozenset({"host", "none", "bridge", "default", "hostmesh"})
"""Docker's own networks and the agent's; ``host`` is also the domain of hosts' names."""

DEFAULT_SLICE: Final = 24
"""Prefix length of a slice where the operator says none; Docker's own choice, too."""

SHORTEST_SLICE: Final = 16
LONGEST_SLICE: Final = 30
"""Prefix length of the smallest slice: the bridge and one container fit in."""

_NAME: Final = re.compile(LABEL)
"""A label of a host name (RFC 1123, 2.1) in lower case: the name is also a DNS domain."""


def parse_network_name(text: str) -> str:
    """Return the name of a mesh network.

    Raises:
        ValueError: It is none; the reason is fit to be shown.
    """
    if not _NAME.fullmatch(text):
        raise ValueError(
            "a network's name has 1 to 63 lower-case letters, digits and hyphens, with no hyphen"
            " at an end"
        )
    if text in RESERVED_NETWORK_NAMES:
        raise ValueError(f"{text} is a name that Docker or the mesh reserves")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSlice:
    """The part of a mesh network that lives on one host.

    Attributes:
        subnet: Of the host's Docker network; inside a lease of the host, or it does not count.
        since_s: Unix time by the host's clock when it first published that; for display only.
        create_revision: etcd's; of two slices that overlap, the older one counts.
    """

    host_id: HostId
    network: str
    subnet: Network
    since_s: float | None = None
    create_revision: int = 0
    mod_revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshNetwork:
    """The operator's record of a mesh network.

    Attributes:
        access: How much of it hosts that are not in it reach; None: as the mesh's config says.
        hosts: Which hosts take part: a host id, or a pattern of host names (``*``, ``?``). A
            name is what a host says of itself, an id is proved by its credentials. () is all.
        length: Prefix length of each host's slice.
        removed: Hosts are to remove their Docker network as soon as it is unused.
    """

    name: str
    access: Access | None = None
    hosts: tuple[str, ...] = ()
    length: int = DEFAULT_SLICE
    removed: bool = False
    create_revision: int = 0
    mod_revision: int = 0

    def has(self, host_id: HostId, host_name: str) -> bool:
        """Return whether a host may take part.

        An id is no pattern: a host that calls itself by another's id would match it.
        """
        return not self.hosts or any(
            each == host_id if HOST_ID.fullmatch(each) else fnmatchcase(host_name, each)
            for each in self.hosts
        )
