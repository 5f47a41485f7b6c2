"""Backends as the mesh's records know them: their names, and the data that they publish."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["BACKENDS", "DEFAULT_BACKEND", "BackendChoice", "BackendData"]

BACKENDS: Final[dict[str, str]] = {
    "host-gw": "agent.mesh.backends.host_gw:HostGateway",
    "vxlan": "agent.mesh.backends.vxlan:Vxlan",
    "wireguard": "agent.mesh.backends.wireguard:WireGuard",
}
"""Every backend that this version has: flannel's name for it, its module and class."""

DEFAULT_BACKEND: Final = "host-gw"

_MAX_BYTES: Final = 1024
"""flannel's largest, of WireGuard with two keys, has less than 200."""


@dataclass(frozen=True, slots=True)
class BackendData:
    """A JSON object that a backend publishes with a lease, or is configured by.

    Attributes:
        text: The object in one spelling: equal objects, equal texts.
    """

    text: str

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> BackendData | None:
        """Return the data of these fields; None for none, and for more than 1 KiB of them."""
        try:
            text = json.dumps(fields, separators=(",", ":"), sort_keys=True)
        except RecursionError:
            return None
        return cls(text) if fields and len(text) <= _MAX_BYTES else None

    @property
    def fields(self) -> dict[str, Any]:
        """The object, made anew; a peer's is for :class:`agent.model.untrusted.Fields` to read."""
        found: dict[str, Any] = json.loads(self.text)
        return found


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """A backend by flannel's name, with its options or with what a host publishes for it."""

    name: str
    data: BackendData | None = None
