"""Say what Docker should have for a lease: bip, pools, MTU, and the keys for them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent.docker.daemonjson.document import JsonValue, KeyPath
from agent.docker.engine.reading import DOCKER_MTU, EngineReading
from agent.mesh.lease_split import split_lease
from agent.model import MeshConfig
from agent.model.family import Interface, Network
from agent.settings import Docker0Share

__all__ = [
    "BIP",
    "DNS",
    "DNS_SEARCH",
    "MTU",
    "NETWORK_MTU",
    "POOLS",
    "DesiredDocker",
    "DockerNames",
    "desired_docker",
    "differences",
    "keys_for",
    "parse_version",
    "wanted_docker_names",
]

BIP: KeyPath = ("bip",)
MTU: KeyPath = ("mtu",)
POOLS: KeyPath = ("default-address-pools",)
NETWORK_MTU: KeyPath = ("default-network-opts", "bridge", "com.docker.network.driver.mtu")
"""The MTU of networks to come; the key is known from Docker 24.0."""
DNS: KeyPath = ("dns",)
DNS_SEARCH: KeyPath = ("dns-search",)

_SHARES: Mapping[Docker0Share, int] = {
    "all": 0,
    "half": 1,
    "quarter": 2,
    "eighth": 3,
    "sixteenth": 4,
}
"""By how many bits docker0's prefix is longer than the lease's."""

_NETWORK_OPTS_SINCE = (24, 0)
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})")


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerNames:
    """The names that containers are to find.

    Attributes:
        domain: The mesh's.
        served: Name servers of this host answer. Without them Docker is not given their
            addresses: no container would find any name.
        search: The host's own search domains, which containers keep.
    """

    domain: str
    served: bool = False
    search: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredDocker:
    """The values that Docker should have.

    Attributes:
        subnet: The lease's whole subnet.
        bip: docker0's address with its prefix length.
        pools: (base, prefix length of each network); empty for a small lease.
        mtu: Bytes, for docker0 and new networks; None leaves it to Docker.
        former: While the mesh moves: the subnet that this host had before and still holds.
        names: None where the mesh has no names.
    """

    subnet: Network
    bip: Interface
    pools: tuple[tuple[Network, int], ...] = ()
    mtu: int | None = None
    former: Network | None = None
    names: DockerNames | None = None

    @property
    def subnets(self) -> tuple[Network, ...]:
        """The subnets whose networks are routed to other hosts."""
        return (self.subnet,) if self.former is None else (self.subnet, self.former)


def desired_docker(
    subnet: Network,
    mtu: int | None,
    *,
    network_len: int | None = None,
    share: Docker0Share = "half",
) -> DesiredDocker:
    """Return what a lease of ``subnet`` on an uplink of ``mtu`` bytes means for Docker.

    Args:
        subnet: The lease's subnet, /30 or shorter.
        mtu: The uplink's MTU less what the backend adds to a packet, in bytes.
        network_len: Prefix length of each network that Docker makes from the pools.
        share: docker0's share of the lease; what is left are the pools.

    Raises:
        ValueError: The subnet is too small to share.
    """
    split = split_lease(subnet, network_len=network_len, docker0_bits=_SHARES[share])
    return DesiredDocker(subnet=subnet, bip=split.bip, pools=split.pools, mtu=mtu)


def wanted_docker_names(config: MeshConfig | None, *, served: bool) -> DockerNames | None:
    """Return the names that containers are to find, None where the mesh has none.

    Args:
        served: Name servers of this host answer.
    """
    if config is None or not config.has_names:
        return None
    return DockerNames(domain=config.domain, served=served)


def parse_version(version: str) -> tuple[int, int] | None:
    """Return major and minor of a version: "20.10.24+dfsg1" -> (20, 10); None when unclear."""
    match = _VERSION.match(version)
    return (int(match[1]), int(match[2])) if match else None


def keys_for(desired: DesiredDocker, version: str) -> Mapping[KeyPath, JsonValue]:
    """Return the keys of daemon.json that say ``desired`` to an engine of ``version``.

    An unknown key stops dockerd, so ``default-network-opts`` is for engines known to be
    24.0 or later. An MTU of 1500 is Docker's own and is not written.
    """
    keys: dict[KeyPath, JsonValue] = {BIP: str(desired.bip)}
    if desired.pools:
        keys[POOLS] = [{"base": str(base), "size": size} for base, size in desired.pools]
    if desired.mtu is None or desired.mtu == DOCKER_MTU:
        return keys
    keys[MTU] = desired.mtu
    known = parse_version(version)
    if known is not None and known >= _NETWORK_OPTS_SINCE:
        keys[NETWORK_MTU] = str(desired.mtu)
    return keys


def differences(desired: DesiredDocker, reading: EngineReading) -> Mapping[KeyPath, str]:
    """Return the keys whose values the engine does not use, and what it uses.

    A value that the engine does not say is no difference.
    """
    bip, pools, mtu = reading.bip, reading.pools, reading.mtu
    found: dict[KeyPath, str] = {}
    if bip != desired.bip:
        found[BIP] = f"docker0 is {bip or 'absent'}, wanted {desired.bip}"
    if pools is not None and desired.pools and pools != desired.pools:
        found[POOLS] = f"pools are {_pools(pools)}, wanted {_pools(desired.pools)}"
    if mtu is not None and desired.mtu is not None and mtu != desired.mtu:
        found[MTU] = f"docker0's MTU is {mtu}, wanted {desired.mtu}"
    return found


def _pools(pools: tuple[tuple[Network, int], ...]) -> str:
    return ", ".join(f"{base} in /{size}" for base, size in pools) or "Docker's own"
