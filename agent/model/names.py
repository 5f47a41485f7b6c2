"""Names of the mesh as the agent hands them to its name server. Frozen, free of I/O."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.model.domain import LABEL
from agent.model.family import Address, Network, read_address
from agent.model.mesh import Access, HostId

__all__ = [
    "LOOPBACK",
    "MOST_ADDRESSES",
    "MOST_ASKERS",
    "MOST_NAMES",
    "MOST_NETWORKS",
    "NAME_RANK",
    "NAME_SERVERS",
    "OWN_LABEL",
    "HostNames",
    "LocalNames",
    "LocalNetwork",
    "Name",
    "NameKind",
    "NamedAddress",
]

NAME_SERVERS: Final = (read_address("169.254.20.53"), read_address("169.254.20.54"))
"""The service addresses: the same two on every host, on ``lo``, so that daemon.json never changes.
Link-local (RFC 3927), so no route leads a query for them to another machine."""

LOOPBACK: Final = "lo"
"""The link that carries them: every host has it."""

OWN_LABEL: Final = "host"
"""The label above hosts' own names; no network, project or host with containers has it."""

MOST_ADDRESSES: Final = 4096
"""Of one host: 2,000 containers, most of them in one or two networks."""

MOST_ASKERS: Final = 4096
"""Addresses of local containers that are in several networks."""

MOST_NETWORKS: Final = 1024
"""Docker networks of this host."""

MOST_NAMES: Final = 64
"""Of one address, of every kind together."""

_PLAIN: Final = re.compile(LABEL)
_IN_DOMAIN: Final = re.compile(rf"{LABEL}\.{LABEL}")


class NameKind(enum.StrEnum):
    """The source of a name; of equal names, the kind that comes first here answers."""

    NETWORK = "network"
    """``<container, service or alias>.<mesh network>``."""
    PROJECT = "project"
    """``<service>.<project>``."""
    HOST = "host"
    """``<container>.<host>``."""
    OWN = "own"
    """``<host>.host``; every container may see it."""
    PLAIN = "plain"
    """``<container, service or alias>``: for askers in the address's own network only."""


NAME_RANK: Final = {kind: rank for rank, kind in enumerate(NameKind)}
"""Of equal names, the kind with the lowest rank answers."""


@dataclass(frozen=True, slots=True)
class Name:
    """A name in lower case, without the mesh's domain.

    Attributes:
        text: Two labels, one if it is plain.
    """

    text: str
    kind: NameKind

    def __post_init__(self) -> None:
        shape = _PLAIN if self.kind is NameKind.PLAIN else _IN_DOMAIN
        if not shape.fullmatch(self.text):
            raise ValueError(f"{self.text!r} is not a name of kind {self.kind}")
        own = self.text.endswith(f".{OWN_LABEL}")
        if own is not (self.kind is NameKind.OWN):
            raise ValueError(f"{self.text} and kind {self.kind} do not agree: host is reserved")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedAddress:
    """An address that has been verified, with all its names.

    Attributes:
        names: In order of kind.
        network: Docker's name of the network at the publishing host, by ``clean_name``.
        mesh_network: The mesh network whose slice that network is, "" for none.
        access: How much of the network other hosts reach.
        healthy: Answered before others; False while its health check fails or starts.
        pointer: The name that the address itself has (PTR), "" for none.
    """

    address: Address
    names: tuple[Name, ...] = ()
    network: str = ""
    mesh_network: str = ""
    access: Access = Access.PUBLISHED
    healthy: bool = True
    pointer: str = ""

    def __post_init__(self) -> None:
        if len(self.names) > MOST_NAMES:
            raise ValueError(f"{self.address} has more than {MOST_NAMES} names")
        if self.pointer and not _IN_DOMAIN.fullmatch(self.pointer):
            raise ValueError(f"{self.pointer!r} is not a name of two labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostNames:
    """All that one host has names for."""

    host_id: HostId
    addresses: tuple[NamedAddress, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalNetwork:
    """A Docker network of this host, routable or not.

    Attributes:
        name: As ``NamedAddress.network`` of this host has it.
        bridge: The Linux bridge that its containers' queries come in by.
        subnets: That its containers have addresses in.
        mesh_network: The mesh network whose slice it is, "" for none.
        access: Its containers see names of other networks unless it is closed.
        internal: Docker gives it no way out (``--internal``).
    """

    name: str
    bridge: str
    subnets: tuple[Network, ...]
    mesh_network: str = ""
    access: Access = Access.PUBLISHED
    internal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalNames:
    """Facts of this host and its mesh that the server needs.

    Attributes:
        domain: The mesh's.
        serial: Grows with every change of any file; the zone's serial number.
        boot_id: Of the kernel that ran when this was written, without hyphens: a file of an earlier
            boot proves no absence.
        complete: The host files are those of the whole mesh, and etcd is being watched.
        ranges: The mesh's CIDR, and its previous one while it moves; their reverse zones are never
            forwarded.
        askers: Names of the networks of each local container that is in several networks. Any
            other asker is in the network whose subnet has its address.
    """

    domain: str
    host_id: HostId
    boot_id: str
    serial: int = 0
    complete: bool = False
    ranges: tuple[Network, ...] = ()
    networks: tuple[LocalNetwork, ...] = ()
    askers: Mapping[Address, tuple[str, ...]] = field(default_factory=dict)
