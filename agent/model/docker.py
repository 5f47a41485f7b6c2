"""Facts about a host's Docker Engine."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from agent.model.family import Address, Interface, Network, address_order

__all__ = [
    "OWN_BRIDGE",
    "Attachment",
    "Binding",
    "Container",
    "DockerFacts",
    "DockerNetwork",
    "DockerState",
]

OWN_BRIDGE = "hostmesh0"
"""The Linux bridge of the agent's own Docker network (``docker.attach = "network"``)."""


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
        address: The bridge's own, with the prefix length; None when not known.
        mtu: In bytes; None when it cannot be read.
    """

    id: str
    name: str
    bridge: str
    subnet: Network
    internal: bool = False
    default: bool = False
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    address: Interface | None = None
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container's place in one network.

    Attributes:
        network: The network's id.
        mac: As Docker says it, "" when it does not.
    """

    network: str
    address: Address
    mac: str


@dataclass(frozen=True, slots=True)
class Binding:
    """A port of a container that the host shows at an address of its own (``-p``).

    Attributes:
        protocol: As Docker names it: "tcp", "udp", "sctp".
        port: The container's.
        host_address: The address of the host; 0.0.0.0 and :: are all of them.
    """

    protocol: str
    port: int
    host_address: Address


@dataclass(frozen=True, slots=True)
class Container:
    """A running container; without attachments it shares the host's network or has none.

    Attributes:
        paused: It runs, or is about to run again, and answers nothing now.
    """

    id: str
    name: str
    attachments: tuple[Attachment, ...]
    bindings: frozenset[Binding] = frozenset()
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerFacts:
    """Facts about the engine, or that it does not answer.

    Attributes:
        reachable: The API answered within its deadline.
        version: Engine version such as "26.1.5", "" when unknown.
        bridge: docker0's network, None when the engine has none.
        networks: All bridge networks with an IPv4 subnet, ``bridge`` included.
        other_bridges: Bridges of the networks that have none, in order.
        running: Names of containers running, paused, restarting or just made.
        containers: Those of them that have an address on a network, in order of id.
        firewall_backend: "iptables", "nftables" (29 and later) or "" when unknown.
        live_restore: The engine's live-restore as in GET /info.
        problem: Why it is not reachable.
    """

    reachable: bool
    version: str = ""
    bridge: DockerNetwork | None = None
    networks: tuple[DockerNetwork, ...] = ()
    other_bridges: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    containers: tuple[Container, ...] = ()
    firewall_backend: str = ""
    live_restore: bool = False
    problem: str = ""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Addresses of containers that answer now, in order.

        With several networks one may answer by another bridge than it was asked by.
        """
        one = (each for each in self.containers if len(each.attachments) == 1)
        found = (each.attachments[0].address for each in one if not each.paused)
        return tuple(sorted(found, key=address_order))
