"""Backends by name. A new one is a module here and a line in :data:`agent.model.BACKENDS`."""

from __future__ import annotations

import functools
import importlib
from typing import cast

from agent.mesh.backends.base import (
    Backend,
    HostObjects,
    KernelObject,
    PeerObjects,
    ThisHost,
    published_by,
)
from agent.model import BACKENDS, Uplink, family_of

__all__ = [
    "Backend",
    "HostObjects",
    "KernelObject",
    "PeerObjects",
    "ThisHost",
    "backend_by_name",
    "backend_names",
    "container_mtu",
    "published_by",
]


def backend_by_name(name: str) -> Backend | None:
    """Return the backend that flannel calls ``name``, None when this version does not have it."""
    place = BACKENDS.get(name)
    return None if place is None else _load(place)


@functools.cache
def _load(place: str) -> Backend:
    """Import a backend: only the one that the mesh uses costs memory."""
    module, _, name = place.partition(":")
    return cast("Backend", getattr(importlib.import_module(module), name)())


def backend_names() -> tuple[str, ...]:
    """Return the name of every backend that this version has, for messages."""
    return tuple(BACKENDS)


def container_mtu(uplink: Uplink, backend: str) -> int:
    """Return the bytes that a container's packet may have: the uplink's less the outer headers."""
    found = backend_by_name(backend)
    return uplink.mtu - (found.overhead(family_of(uplink.node_address)) if found else 0)
