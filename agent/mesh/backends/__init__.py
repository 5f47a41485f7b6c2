"""Backends by name. A new one is a module beside :mod:`.host_gw` and an entry here."""

from __future__ import annotations

from typing import Final

from agent.mesh.backends.base import Backend, HostObjects, KernelObject, PeerObjects, ThisHost
from agent.mesh.backends.host_gw import HostGateway

__all__ = [
    "BACKENDS",
    "Backend",
    "HostObjects",
    "KernelObject",
    "PeerObjects",
    "ThisHost",
    "backend_by_name",
    "backend_names",
]

_ALL: Final[tuple[Backend, ...]] = (HostGateway(),)

BACKENDS: Final[dict[str, Backend]] = {backend.name: backend for backend in _ALL}
"""Every backend that this version has, by flannel's name."""


def backend_by_name(name: str) -> Backend | None:
    """Return the backend that flannel calls ``name``, None when this version does not have it."""
    return BACKENDS.get(name)


def backend_names() -> tuple[str, ...]:
    """Return the name of every backend that this version has, for messages."""
    return tuple(BACKENDS)
