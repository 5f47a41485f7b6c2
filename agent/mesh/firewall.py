"""What the host's firewall should let pass: addresses, devices and access, not yet rules.

Pure. The kernel's room turns a :class:`FirewallWants` into chains (agent/kernel/firewall).
A network is open to the mesh only when it is listed here as such: what is not known yet
(a network that Docker made a moment ago) stays closed until the next pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from agent.model import Access, Condition, DockerNetwork

__all__ = [
    "ACCESS_LABEL",
    "PEERS_SET",
    "Access",
    "FirewallWants",
    "WantedNetwork",
    "desired_firewall",
    "is_closed",
]

ACCESS_LABEL: Final = "hostmesh.access"
"""Label of a Docker network that says how open it is to the mesh."""

PEERS_SET: Final = "hostmesh-peers"
"""Name of the set of peers' node addresses (ipset, hash:ip)."""

_INTERFACE_NAME: Final = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")
"""Names iptables takes literally. A trailing ``+`` would be a wildcard (iptables(8), -i)."""


_TIGHTNESS: Final = {Access.OPEN: 0, Access.PUBLISHED: 1, Access.CLOSED: 2}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class WantedNetwork:
    """One Docker network inside the lease, and what the mesh may do with it.

    Attributes:
        bridge: Its Linux bridge ("docker0", "br-0123456789ab").
        access: "open", every port; "published", published ports and ICMP; "closed", nothing.
        internal: Made with --internal: closed, and kept from talking to the mesh as well.
    """

    subnet: IPv4Network
    bridge: str
    access: Access
    internal: bool = False

    @property
    def closed(self) -> bool:
        """Nothing of ours opens this network, in either direction."""
        return self.internal or self.access is Access.CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallWants:
    """All that the firewall's rules depend on.

    Attributes:
        cidr: The mesh's range: source of container traffic from other hosts.
        lease: This host's subnet.
        previous: CIDRs that the mesh moves away from; they count as ``cidr`` does.
        former: The subnet that this host had before the move, while it still holds it.
        uplink: Name of the interface mesh traffic comes in by and goes out by.
        peers: Node addresses of usable peers; members of a set, never rules.
        networks: Docker networks inside the lease, in order of subnet.
        local_bridges: Bridges of every Docker network of this host, inside the lease or not;
            what comes from them is Docker's to judge.
        docker_backend: Docker's firewall backend: "iptables", "nftables" or "" when unknown.
        conditions: What was wrong with the input; nothing of it was guessed.
    """

    cidr: IPv4Network
    lease: IPv4Network
    uplink: str
    peers: frozenset[IPv4Address] = frozenset()
    networks: tuple[WantedNetwork, ...] = ()
    local_bridges: tuple[str, ...] = ()
    docker_backend: str = ""
    conditions: tuple[Condition, ...] = ()
    previous: tuple[IPv4Network, ...] = ()
    former: IPv4Network | None = None

    @property
    def cidrs(self) -> tuple[IPv4Network, ...]:
        """Every range of the mesh."""
        return (self.cidr, *self.previous)

    @property
    def leases(self) -> tuple[IPv4Network, ...]:
        """Every subnet of this host."""
        return (self.lease,) if self.former is None else (self.lease, self.former)


def desired_firewall(
    *,
    cidr: IPv4Network,
    lease: IPv4Network,
    uplink: str,
    peers: Iterable[IPv4Address],
    networks: Iterable[DockerNetwork],
    docker_backend: str = "",
    default_access: Access = Access.PUBLISHED,
    host_limit: Access = Access.OPEN,
    previous: tuple[IPv4Network, ...] = (),
    former: IPv4Network | None = None,
) -> FirewallWants:
    """What the firewall should let pass on this host.

    Args:
        cidr, lease: The mesh's range and this host's part of it.
        uplink: Interface name of the uplink.
        peers: Node addresses of usable peers.
        networks: Every bridge network Docker has, docker0 included. Those outside the
            lease are never opened. Pass the last known ones while Docker does not answer.
        docker_backend: ``DockerFacts.firewall_backend``.
        default_access: The mesh's default for user-defined networks without a label.
        host_limit: No network of this host is opened wider than this.
        previous, former: See :class:`FirewallWants`.

    Raises:
        ValueError: ``uplink`` is no name that iptables takes literally.
    """
    if not _INTERFACE_NAME.fullmatch(uplink):
        raise ValueError(f"uplink {uplink!r} is no interface name that iptables takes literally")
    leases = (lease,) if former is None else (lease, former)
    known = sorted(networks, key=lambda network: (network.subnet, network.bridge))
    usable = [network for network in known if _INTERFACE_NAME.fullmatch(network.bridge)]
    judged = [
        _judged(network, default_access, host_limit)
        for network in usable
        if any(network.subnet.subnet_of(each) for each in leases)
    ]
    odd = (_odd_bridge(network) for network in known if network not in usable)
    return FirewallWants(
        cidr=cidr,
        lease=lease,
        uplink=uplink,
        peers=frozenset(peers),
        networks=tuple(wanted for wanted, _ in judged),
        local_bridges=tuple(sorted({network.bridge for network in usable})),
        docker_backend=docker_backend,
        conditions=(*(problem for _, problem in judged if problem), *odd),
        previous=previous,
        former=former,
    )


def is_closed(network: DockerNetwork, default: Access, limit: Access) -> bool:
    """Whether the mesh may send nothing into ``network``; see :func:`desired_firewall`."""
    return _judged(network, default, limit)[0].closed


def _judged(
    network: DockerNetwork, default: Access, limit: Access
) -> tuple[WantedNetwork, Condition | None]:
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


def _odd_bridge(network: DockerNetwork) -> Condition:
    return Condition(
        name="network-bridge-unusable",
        subject=network.name,
        cause=f"bridge name {network.bridge!r} of Docker network {network.name} cannot be"
        " written in a firewall rule; the network is closed to the mesh",
        hint="make the network again with another com.docker.network.bridge.name",
    )
