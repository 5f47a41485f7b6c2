"""Backends by name. A new one is a module beside :mod:`.host_gw` and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from agent.mesh.backends.base import RouteBackend
from agent.mesh.backends.host_gw import HostGateway

__all__ = ["RouteBackend", "backend_by_name", "backend_names"]

_BACKENDS: Final[Mapping[str, RouteBackend]] = MappingProxyType(
    {backend.name: backend for backend in (HostGateway(),)}
)


def backend_by_name(name: str) -> RouteBackend | None:
    """The backend flannel calls ``name``, or None when this version does not have it."""
    return _BACKENDS.get(name)


def backend_names() -> tuple[str, ...]:
    """Every backend this version has, for messages."""
    return tuple(_BACKENDS)
