"""Backends by name. A new one is a module here and a line in :data:`agent.model.BACKENDS`."""

from __future__ import annotations

import functools
import importlib
from typing import cast

from agent.mesh.backends.base import Backend, HostObjects, KernelObject, PeerObjects, ThisHost
from agent.model import BACKENDS

__all__ = [
    "Backend",
    "HostObjects",
    "KernelObject",
    "PeerObjects",
    "ThisHost",
    "backend_by_name",
    "backend_names",
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
