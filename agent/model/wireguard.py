"""The contents of a WireGuard device as keyed values (wg(8), linux/wireguard.h)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final, NamedTuple

from agent.model.family import Address, Network, can_be_host, family_of, read_address

__all__ = [
    "MAX_PORT",
    "WIREGUARD",
    "WIREGUARD_LINK",
    "AllowedIp",
    "Endpoint",
    "PeerKey",
    "WireGuardDevice",
    "WireGuardPeer",
    "is_public_key",
    "read_endpoint",
]

WIREGUARD: Final = "wireguard"
"""The backend's name, and the kind of its link."""
WIREGUARD_LINK: Final = "hm-wg"
MAX_PORT: Final = 65_535

_KEY_BYTES: Final = 32


def is_public_key(text: str) -> bool:
    """Whether this is a Curve25519 key as wg(8) prints it: 32 bytes in base64, not all zero."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(raw) == _KEY_BYTES and any(raw) and base64.b64encode(raw).decode() == text


class Endpoint(NamedTuple):
    """Where a peer's outer packets are sent to."""

    address: Address
    port: int

    def __str__(self) -> str:
        bare = family_of(self.address).version == 4  # noqa: PLR2004 - wg puts others in brackets
        return f"{self.address}:{self.port}" if bare else f"[{self.address}]:{self.port}"


def read_endpoint(text: str) -> Endpoint:
    """Read ``192.0.2.7:51820``.

    Raises:
        ValueError: It is no address of a host with a port.
    """
    host, _, port = text.rpartition(":")
    address = read_address(host)
    if not can_be_host(address) or not (port.isascii() and port.isdigit()):
        raise ValueError(text)
    if not 0 < int(port) <= MAX_PORT:
        raise ValueError(text)
    return Endpoint(address, int(port))


@dataclass(frozen=True, slots=True, kw_only=True)
class WireGuardDevice:
    """The key and the UDP port of a device.

    Attributes:
        public_key: That of the private key in the state directory.
        port: UDP port that it listens on.
    """

    link: str
    public_key: str
    port: int

    @property
    def key(self) -> str:
        """A device has one of each."""
        return self.link

    def __str__(self) -> str:
        return f"{self.link} public-key {self.public_key} listen-port {self.port}"


class PeerKey(NamedTuple):
    """A device tells peers apart by their public keys."""

    link: str
    public_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WireGuardPeer:
    """One host behind a device.

    Attributes:
        endpoint: None where it is unknown: the host is behind NAT and sends first.
        keepalive_s: Pause between empty packets that keep a NAT's mapping; 0 for none.
    """

    link: str
    public_key: str
    endpoint: Endpoint | None = None
    keepalive_s: int = 0

    @property
    def key(self) -> PeerKey:
        """Link and public key."""
        return PeerKey(self.link, self.public_key)

    def __str__(self) -> str:
        words = [self.link, "peer", self.public_key]
        if self.endpoint is not None:
            words += ["endpoint", str(self.endpoint)]
        if self.keepalive_s:
            words += ["persistent-keepalive", str(self.keepalive_s)]
        return " ".join(words)


class PrefixKey(NamedTuple):
    """A prefix belongs to one peer of a device."""

    link: str
    network: Network


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedIp:
    """A range that is sent to a peer, and that the peer may send from."""

    link: str
    network: Network
    public_key: str

    @property
    def key(self) -> PrefixKey:
        """Link and range."""
        return PrefixKey(self.link, self.network)

    def __str__(self) -> str:
        return f"{self.link} peer {self.public_key} allowed-ips {self.network}"
