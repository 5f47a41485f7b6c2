"""What a host's Docker Engine says of itself."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType

__all__ = ["OWN_BRIDGE", "DockerFacts", "DockerNetwork", "DockerState"]

OWN_BRIDGE = "hostmesh0"
"""The Linux bridge of the Docker network that is ours (``docker.attach = "network"``)."""


class DockerState(enum.StrEnum):
    """Whether a host's Docker has the subnet; carried in its heartbeat."""

    READY = "ready"
    PENDING = "pending"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerNetwork:
    """A Docker network of driver ``bridge`` with an IPv4 subnet.

    Attributes:
        bridge: Name of its Linux bridge ("docker0", "br-0123456789ab").
        internal: Created with --internal.
        default: Docker's own network "bridge", on docker0.
    """

    id: str
    name: str
    bridge: str
    subnet: IPv4Network
    internal: bool = False
    default: bool = False
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerFacts:
    """What the engine says of itself now, or that it does not answer.

    Attributes:
        reachable: The API answered within its deadline.
        version: Engine version such as "26.1.5", "" when unknown.
        bridge: docker0's network, None when the engine has none.
        networks: All bridge networks, ``bridge`` included.
        containers: Addresses of running containers on bridge networks, in order, not all of many.
        running: Names of containers running, paused, restarting or just made.
        firewall_backend: "iptables", "nftables" (29 and later) or "" when unknown.
        live_restore: The engine's live-restore as in GET /info.
        problem: Why it is not reachable.
    """

    reachable: bool
    version: str = ""
    bridge: DockerNetwork | None = None
    networks: tuple[DockerNetwork, ...] = ()
    pools: tuple[tuple[IPv4Network, int], ...] = ()
    containers: tuple[IPv4Address, ...] = ()
    running: tuple[str, ...] = ()
    firewall_backend: str = ""
    live_restore: bool = False
    problem: str = ""
