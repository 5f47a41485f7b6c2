"""Read the API's answers: what an engine says of itself."""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.docker.engine.api import Api
from agent.docker.engine.containers import container_name, containers_of
from agent.model import Container, DockerFacts, DockerNetwork
from agent.model.family import Interface, Network, read_interface, read_network

__all__ = [
    "ACTIVE",
    "BRIDGE_NAME",
    "DOCKER_MTU",
    "NETWORK_DRIVER_MTU",
    "OWN_LABEL",
    "OWN_NETWORK",
    "EngineKind",
    "EngineReading",
    "bridge_networks",
    "read_engine",
    "stays_down",
    "unreachable",
]

BRIDGE_NAME = "com.docker.network.bridge.name"
NETWORK_DRIVER_MTU = "com.docker.network.driver.mtu"
DOCKER_MTU = 1500
"""MTU of every bridge without a setting of its own, on any uplink."""

OWN_NETWORK = "hostmesh"
"""Name of the network of ``docker.attach = "network"``."""

OWN_LABEL = "hostmesh.managed"
"""Its label; a network without it is the operator's."""

ACTIVE = ("running", "paused", "restarting")
"""Container states that a restart of dockerd would disturb."""

_ABOUT_TO_START_S = 30.0
"""A container made less than this ago is taken for one that is about to start: Compose makes
all of a project's before it starts the first, and ``docker run`` would fail half-way."""

_POOLS_SINCE_API = (1, 40)
"""From this API version GET /info carries DefaultAddressPools when any are configured."""


class EngineKind(enum.Enum):
    """The kind of program that answers on the socket."""

    DOCKER = "docker"
    PODMAN = "podman"
    SILENT = "silent"  # a program listens and does not answer in time, or answers nonsense
    ABSENT = "absent"  # no program listens
    UNSAFE = "unsafe"  # the socket may be another user's: it is not asked


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReading:
    """One reading of an engine: :class:`DockerFacts` and what only this package needs.

    Attributes:
        kind: What answered.
        facts: For the rest of the agent.
        pools: None when the engine is too old to say which pools it has.
        swarm: Swarm's local node state, "inactive" when there is none.
    """

    kind: EngineKind
    facts: DockerFacts
    pools: tuple[tuple[Network, int], ...] | None = None
    swarm: str = "inactive"

    @property
    def bip(self) -> Interface | None:
        """docker0's address, None when the engine has no docker0."""
        return self.facts.bridge.address if self.facts.bridge else None

    @property
    def mtu(self) -> int | None:
        """docker0's MTU in bytes, None when the engine does not say."""
        return self.facts.bridge.mtu if self.facts.bridge else None

    @property
    def own_network(self) -> DockerNetwork | None:
        """The network that Hostmesh made (``docker.attach = "network"``), None without one."""
        found = (e for e in self.facts.networks if e.name == OWN_NETWORK and OWN_LABEL in e.labels)
        return next(found, None)


def unreachable(kind: EngineKind, problem: str) -> EngineReading:
    """Return the reading of an engine that says nothing, and why."""
    return EngineReading(kind=kind, facts=DockerFacts(reachable=False, problem=problem))


def read_engine(api: Api, socket: Path) -> EngineReading:
    """Ask the engine everything; raises one of :data:`agent.docker.engine.api.FAILURES`."""
    version = api.get("/version")
    components = {str(part.get("Name")) for part in version.get("Components") or ()}
    if any("podman" in name.lower() for name in components):
        problem = f"podman answers on {socket}, not Docker"
        return unreachable(EngineKind.PODMAN, problem)
    info = api.get("/info")
    networks = api.get("/networks", filters={"driver": ["bridge"]})
    listed = api.get("/containers/json", filters={"status": [*ACTIVE, "created"]})
    active = [each for each in listed if _is_active(each, time.time())]
    bridges = bridge_networks(networks)
    facts = DockerFacts(
        reachable=True,
        version=str(version.get("Version") or ""),
        bridge=next((network for network in bridges if network.default), None),
        networks=bridges,
        other_bridges=tuple(sorted(_bridge(each) for each in networks if _ipam(each) is None)),
        running=tuple(sorted(container_name(c) for c in active)),
        containers=_attached(active),
        firewall_backend=_firewall(info),
        live_restore=bool(info.get("LiveRestoreEnabled")),
    )
    says_pools = _at_least(str(version.get("ApiVersion")), _POOLS_SINCE_API)
    return EngineReading(
        kind=EngineKind.DOCKER,
        facts=facts,
        pools=_pools(info) if says_pools else None,
        swarm=str((info.get("Swarm") or {}).get("LocalNodeState") or "inactive"),
    )


def bridge_networks(raw: Iterable[Mapping[str, Any]]) -> tuple[DockerNetwork, ...]:
    """Return the bridge networks with an IPv4 subnet of ``GET /networks``."""
    return tuple(network for each in raw if (network := _network(each)))


def _attached(active: Iterable[Mapping[str, Any]]) -> tuple[Container, ...]:
    found = (each for each in containers_of(active) if each.attachments)
    return tuple(sorted(found, key=lambda each: each.id))


def _is_active(container: Mapping[str, Any], now_s: float) -> bool:
    if container.get("State") != "created":
        return True
    made_s = float(container.get("Created") or 0)
    return 0 <= now_s - made_s < _ABOUT_TO_START_S


def _at_least(version: str, wanted: tuple[int, int]) -> bool:
    try:
        major, minor = version.split(".")[:2]
        return (int(major), int(minor)) >= wanted
    except ValueError:
        return False


def _firewall(info: Mapping[str, Any]) -> str:
    """Return "iptables", "nftables" or ""; engines before 29 say nothing and use iptables."""
    driver = (info.get("FirewallBackend") or {}).get("Driver") or ""
    return str(driver).partition("+")[0]


def _pools(info: Mapping[str, Any]) -> tuple[tuple[Network, int], ...]:
    found = []
    for pool in info.get("DefaultAddressPools") or ():
        with contextlib.suppress(ValueError):  # an IPv6 pool
            found.append((read_network(pool["Base"]), int(pool["Size"])))
    return tuple(found)


def _ipam(network: Mapping[str, Any]) -> Interface | None:
    """Return the bridge's address on a network's first IPv4 subnet, None when it has none."""
    for config in (network.get("IPAM") or {}).get("Config") or ():
        with contextlib.suppress(ValueError):
            subnet = read_network(config.get("Subnet") or "", strict=False)
            gateway = str(config.get("Gateway") or "").partition("/")[0]
            address = gateway or str(subnet.network_address + 1)
            return read_interface(f"{address}/{subnet.prefixlen}")
    return None


def _network(raw: Mapping[str, Any]) -> DockerNetwork | None:
    address = _ipam(raw)
    if address is None or raw.get("Driver") != "bridge":
        return None
    return DockerNetwork(
        id=str(raw["Id"]),
        name=str(raw.get("Name")),
        bridge=_bridge(raw),
        subnet=address.network,
        internal=bool(raw.get("Internal")),
        default=raw.get("Name") == "bridge",
        labels=MappingProxyType(dict(raw.get("Labels") or {})),
        address=address,
        mtu=_mtu(raw),
    )


def _bridge(raw: Mapping[str, Any]) -> str:
    """Return the name of a network's Linux bridge."""
    return str((raw.get("Options") or {}).get(BRIDGE_NAME) or f"br-{str(raw['Id'])[:12]}")


def _mtu(network: Mapping[str, Any]) -> int | None:
    """Return a bridge's MTU; a network without such an option has Docker's own."""
    try:
        return int((network.get("Options") or {}).get(NETWORK_DRIVER_MTU) or DOCKER_MTU)
    except ValueError:
        return None


def stays_down(container: Mapping[str, Any]) -> bool:
    """Return whether dockerd may not bring that container back, from its inspection."""
    policy = (container.get("HostConfig") or {}).get("RestartPolicy") or {}
    return policy.get("Name") not in {"always", "unless-stopped"}
